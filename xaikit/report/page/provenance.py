"""Where a run came from: fingerprints, options, versions, times, and how to make it again."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.report.page.pictures import Recorded
from xaikit.text import printable
from xaikit.version import xaikit_version

DEMO = "xaikit-demo"
FILES = (
    "trace.safetensors",
    "features.safetensors",
    "fit.safetensors",
    "circuit.json",
    "causal.json",
    "target_causal.json",
    "intervene.json",
)


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
        "command": command(run, record),
        "files": [row for parts in run.layers for row in _files(parts, run)],
        "stages": [row for parts in run.layers for row in _stages(parts)],
    }


def _source(record: Recorded | None) -> str:
    if record is None:
        return "not recorded"
    source = record.source
    return printable(", ".join(f"{key} {value}" for key, value in source.items())) or "not recorded"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _files(parts: LayerParts, run: RunParts) -> list[dict[str, str]]:
    found = []
    for name in FILES:
        path = parts.folder / name
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


def _stages(parts: LayerParts) -> list[dict[str, str]]:
    artefacts = [
        ("trace", parts.trace),
        ("cluster", parts.features),
        ("fit", parts.fit),
        ("circuit", parts.circuit),
        ("causal", parts.causal),
        ("target-causal", parts.target),
        ("intervene", parts.intervention),
    ]
    rows = []
    for stage, artefact in artefacts:
        if artefact is None:
            continue
        options = {k: v for k, v in artefact.provenance.options.items() if k != "request"}
        rows.append(
            {
                "layer": str(parts.layer),
                "stage": stage,
                "identity": artefact.identity,
                "options": printable(
                    ", ".join(f"{k} = {v}" for k, v in options.items() if v is not None)
                ),
            }
        )
    return rows


def command(run: RunParts, record: Recorded | None) -> str:
    """A `run-all` that makes the run again, as far as the artefacts record its options."""
    first = run.layers[0]
    origin, layers = first.fit.provenance.origin, run.layers
    words: list[str] = ["xaikit", "run-all"]
    if origin.model != DEMO:
        words += ["--model", origin.model]
        if origin.pretrained != origin.model:
            words += ["--pretrained", origin.pretrained]
    words += _images(record, len(first.features.labels))
    words += ["--target-layer", ",".join(str(p.layer) for p in layers)]
    for artefact, names in (
        (first.features, ("num_clusters", "sample_tokens", "holdout", "method", "prefix", "seed")),
        (first.fit, ("destination", "num_permutations", "null", "null_block")),
        (first.circuit, ("top_k", "rank", "max_qvalue")),
        (first.causal, ("max_clusters",)),
        (first.target, ("top_n",)),
    ):
        options = artefact.provenance.options if artefact is not None else {}
        for name in names:
            if options.get(name) is not None:
                words += [f"--{name.replace('_', '-')}", str(options[name])]
    words += ["--out-dir", str(Path(run.root))]
    return printable(shlex.join(words))


def _images(record: Recorded | None, images: int) -> list[str]:
    source = record.source if record is not None else {}
    kind, words = source.get("kind"), []
    if kind == "webdataset" and source.get("shards"):
        words = ["--webdataset", str(source["shards"][0])]
    elif kind == "datasets" and source.get("spec"):
        words = ["--dataset", str(source["spec"])]
    elif kind in ("folder", "imagenet") and source.get("root"):
        words = ["--images", str(source["root"])]
    return [*words, "--max-images", str(images)]
