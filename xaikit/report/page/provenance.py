"""Where a run came from: fingerprints, options, versions, times, and how to make it again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from xaikit.artifacts.file_names import RESULTS
from xaikit.report.page.parts import RunParts
from xaikit.report.page.pictures import Recorded
from xaikit.text import printable, shell_line
from xaikit.version import xaikit_version


def provenance(run: RunParts, record: Recorded | None) -> dict[str, Any]:
    """Everything the page says of the run's origin."""
    origin = run.layers[0].fit.provenance.origin
    return {
        "rows": [
            ("model", printable(origin.model)),
            ("weights", printable(origin.pretrained)),
            ("fingerprint of the weights", origin.weights_fingerprint),
            ("fingerprint of the images", origin.images_fingerprint),
            ("images", f"{len(run.layers[0].features.labels):,}"),
            ("from", _source(record)),
            ("layers", ", ".join(f"{p.layer} → {p.fit.next_layer}" for p in run.layers)),
            ("page written by", f"xaikit {xaikit_version()}, {_now()}"),
        ],
        "command": command(run),
        "measured_by": _measured_by(run),
        "files": _files(run),
        "stages": _stages(run),
    }


def _source(record: Recorded | None) -> str:
    if record is None:
        return "not recorded"
    kind = str(record.source.get("kind", ""))
    rest = ", ".join(f"{key} {value}" for key, value in record.source.items() if key != "kind")
    return printable(": ".join(filter(None, (kind, rest)))) or "not recorded"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _files(run: RunParts) -> list[dict[str, str]]:
    """Files of each layer, and those of all layers together."""
    found = []
    for folder in dict.fromkeys([*(parts.folder for parts in run.layers), run.root]):
        for path in (folder / name for name in RESULTS):
            if path.is_file():
                at = path.stat()
                written = datetime.fromtimestamp(at.st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S")
                shown = str(path.relative_to(run.root))
                found.append({"name": shown, "size": size_text(at.st_size), "written": written})
    return found


def size_text(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return ""


def _stages(run: RunParts) -> list[dict[str, str]]:
    """What made each artefact: of each layer, and of all of them together."""
    rows: list[tuple[str, str, Any]] = []
    for parts in run.layers:
        layer = str(parts.layer)
        rows += [
            (layer, "trace", parts.trace),
            (layer, "cluster", parts.features),
            (layer, "fit", parts.fit),
            (layer, "circuit", parts.circuit),
            (layer, "causal", parts.causal),
            (layer, "target-causal", parts.target),
            (layer, "intervene", parts.intervention),
        ]
    rows += [("all", "circuit", run.circuit), ("all", "intervene", run.intervention)]
    return [_stage(*row) for row in rows if row[2] is not None]


def _stage(layer: str, stage: str, artefact: Any) -> dict[str, str]:
    options = {k: v for k, v in artefact.provenance.options.items() if k != "request"}
    said = ", ".join(f"{k} = {_value(v)}" for k, v in options.items() if v not in (None, []))
    return {
        "layer": layer,
        "stage": stage,
        "identity": artefact.identity,
        "options": printable(said),
    }


def _value(value: Any) -> str:
    """An option as it is typed: ``yes``, ``reach, energy``."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_value, value))})"
    return str(value)


def _measured_by(run: RunParts) -> list[tuple[str, str]]:
    """What measured the live model by a command of its own, as it was typed."""
    found = [(f"layer {parts.layer}", parts.intervention) for parts in run.layers]
    found.insert(0, ("all layers together", run.intervention))
    return [(what, printable(made.command)) for what, made in found if made and made.command]


def command(run: RunParts) -> str:
    """What makes the run again, as it was typed; nothing where it was not made by one command."""
    if not run.command:
        return ""
    return printable(f"{run.command} {shell_line(['--out-dir', str(run.root)])}")
