"""Where a run came from: each row is of its own artefact, and what others wrote is text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.made_parts import made_parts, made_run

from xaikit.report.page.pictures import Recorded
from xaikit.report.page.provenance import provenance, size_text
from xaikit.stages.causal import causal
from xaikit.stages.target_causal import target_causal

SLY = "a\x1b[31mb"


def test_fingerprints_and_stages_are_each_of_their_own() -> None:
    parts = made_parts()
    assert parts.trace is not None
    assert parts.circuit is not None
    parts.causal = causal(parts.features, parts.fit, num_permutations=3)
    parts.target = target_causal(
        parts.trace, parts.features, parts.fit, parts.circuit, num_permutations=3
    )
    parts.fit.provenance.options["request"] = "kept for reuse"
    found = provenance(made_run(parts), None)
    rows, origin = dict(found["rows"]), parts.fit.provenance.origin
    assert rows["fingerprint of the weights"] == origin.weights_fingerprint
    assert rows["fingerprint of the images"] == origin.images_fingerprint
    assert (rows["images"], rows["layers"], rows["from"]) == ("12", "2 → 3", "not recorded")
    assert {row["stage"]: row["identity"] for row in found["stages"]} == {
        "trace": parts.trace.identity,
        "cluster": parts.features.identity,
        "fit": parts.fit.identity,
        "circuit": parts.circuit.identity,
        "causal": parts.causal.identity,
        "target-causal": parts.target.identity,
    }
    options = {row["stage"]: row["options"] for row in found["stages"]}
    assert "num_permutations = 3" in options["causal"]
    assert "controls = yes" in options["fit"]
    assert "request" not in options["fit"]


def test_names_from_files_are_text() -> None:
    parts = made_parts()
    p = parts.fit.provenance
    origin = replace(p.origin, model=SLY, pretrained=SLY)
    parts.fit.provenance = replace(p, origin=origin, options={"labels": SLY})
    source = {"kind": "folder", "path": SLY}
    record = Recorded(ids=[], groups=None, source=source, preprocess={}, skipped=0)
    run = made_run(parts)
    run.command = f"xaikit run-all --images {SLY}"
    live: Any = type("Made", (), {"command": SLY, "identity": "i", "provenance": p})()
    parts.intervention = live
    found = provenance(run, record)
    assert not any("\x1b" in text for _, text in found["rows"])
    assert dict(found["rows"])["from"].startswith("folder: path a")
    assert not any("\x1b" in row["options"] for row in found["stages"])
    assert "\x1b" not in found["command"]
    assert found["command"].endswith("--out-dir run")
    ((what, typed),) = found["measured_by"]
    assert (what, "\x1b" in typed) == ("layer 2", False)


def test_files_are_those_of_each_layer_and_of_the_run(tmp_path: Path) -> None:
    parts = made_parts()
    parts.folder = tmp_path / "layer_2"
    parts.folder.mkdir()
    for path in (parts.folder / "fit.safetensors", tmp_path / "graph.json", tmp_path / "other"):
        path.write_bytes(b"x" * 1500)
    run = made_run(parts)
    run.root = tmp_path
    found = provenance(run, None)["files"]
    assert [(row["name"], row["size"]) for row in found] == [
        ("layer_2/fit.safetensors", "1.5 KB"),
        ("graph.json", "1.5 KB"),
    ]


@pytest.mark.parametrize(
    ("size", "shown"),
    [(999, "999 B"), (1000, "1.0 KB"), (2.5e6, "2.5 MB"), (4e12, "4,000.0 GB")],
)
def test_sizes_are_in_the_unit_that_fits(size: float, shown: str) -> None:
    assert size_text(size) == shown
