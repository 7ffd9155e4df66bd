"""Small run folders for tests of the page: real stages on few images, made-up live results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from command_line import run

from xaikit.artifacts.files import write_json
from xaikit.artifacts.records import identity_of
from xaikit.artifacts.results import Intervention

HOSTILE = "<img src=x onerror=document.title='hacked'>"
"""As a name of a file, a cluster or a word."""
TOWARD = "red <b>"
"""As a prompt."""
SHARES = [0.001, 0.01, 0.1, 1.0]


def made_run(folder: Path, *, layers: str = "3", images: int = 24, options: tuple = ()) -> Path:
    """Run every stage but the live one on the demo; add what `intervene` would have found."""
    arguments = ["--max-images", str(images), "--num-clusters", "6", "--num-permutations", "20"]
    arguments += ["--top-k", "30", "--top-n", "4", "--rank", "energy", "--no-intervene"]
    arguments += ["--recipe", "seed", "--holdout", "0.5"]
    arguments += ["--out-dir", str(folder), "--target-layer", layers, "--quiet", *options]
    assert run("run-all", *arguments) == 0
    for circuit in folder.rglob("circuit.json"):
        if circuit.parent == folder or "layer" in circuit.parent.name:
            add_live(circuit.parent)
    return folder


def add_live(folder: Path) -> None:
    """Write an ``intervene.json`` beside a circuit: the shape of the real one, made-up numbers."""
    circuit = orjson.loads((folder / "circuit.json").read_bytes())
    shared = ("format_version", "xaikit_version", "model", "pretrained", "weights_fingerprint")
    shared += ("images_fingerprint", "layer", "next_layer", "parents")
    edges = [
        {
            **{key: path[key] for key in ("cluster_id", "head", "dst_token", "dst_cluster")},
            "support": path["support"],
            "edge_effect": 1.0,
            "edge_pvalue": 0.1,
            "alignment_gain": None,
            "alignment_pvalue": None,
            "live_effect": 0.001 * (at + 1),
            "live_pvalue": 0.02,
            "live_qvalue": 0.04,
        }
        for at, path in enumerate(circuit["paths"][:3])
    ]
    found: dict[str, Any] = {
        **{key: circuit[key] for key in shared},
        "stage": "intervene",
        "options": {},
        "full_effect": {"cosine": 0.2},
        "curves": [_curve("energy", mode, top) for mode, top in (("remove", 0.6), ("keep", 0.4))],
        "random": [_band(mode) for mode in ("remove", "keep")],
        "effects": edges,
        "clusters": [],
        "agreement": {},
        "completeness": {},
        "destination": circuit["destination"],
        "num_images": 12,
        "heldout": True,
    }
    found["identity"] = identity_of(found, Intervention.FILES)
    write_json(folder / "intervene.json", found)


def _curve(ranking: str, mode: str, top: float) -> dict[str, Any]:
    fractions = [0.1, 0.3, top, 1.0]
    return {
        "ranking": ranking,
        "mode": mode,
        "metric": "cosine",
        "shares": SHARES,
        "destination": "token",
        "ablation": "mean",
        "edges": [1, 3, 20, 100],
        "effects": [0.2 * part for part in fractions],
        "fractions": fractions,
        "area_log": 0.4,
        "area_linear": 0.8,
        "cpr": 0.7,
        "cmd": 0.2,
    }


def _band(mode: str) -> dict[str, Any]:
    fractions = [0.001, 0.01, 0.05, 1.0]
    return {
        "ranking": "random",
        "mode": mode,
        "metric": "cosine",
        "shares": SHARES,
        "draws": 20,
        "mean": [0.2 * part for part in fractions],
        "fractions": fractions,
        "low": [0.0, 0.001, 0.005, 0.2],
        "high": [0.001, 0.004, 0.02, 0.2],
        "area_log": 0.1,
        "area_linear": 0.4,
    }
