"""Make the golden set again: ``cd tests && python -m golden.make [FOLDER]``.

Small artefacts of every kind, as this version writes them. They are made again only with a new
`FORMAT_VERSION`; until then every later version has to read these very files.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from made_traces import blank_info, ids_of, made_tensors, write

import xaikit
from xaikit.artifacts import candidates
from xaikit.artifacts.explanation import Explanation
from xaikit.artifacts.files import FORMAT_VERSION, write_json
from xaikit.artifacts.results import EdgeEffect, Intervention
from xaikit.artifacts.storage import Storage
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.distributed import World
from xaikit.passes.checkpoint import Checkpoint
from xaikit.run.reuse import Folder, Request
from xaikit.stages import graph

IMAGES, K = 12, 3
SHARES = [0.1, 1.0]


def made(layer: int, seed: int) -> dict[str, torch.Tensor]:
    """Tensors of a trace, queries and keys among them."""
    tensors = made_tensors(IMAGES, seed)
    generator = torch.Generator().manual_seed(seed)
    for name in ("queries_l1", "keys_l1"):
        tensors[name] = torch.randn(IMAGES, 2, 4, 2, generator=generator)
    return tensors


def layer(root: Path, number: int) -> tuple[Features, xaikit.Circuit]:
    """Every artefact of one pair of layers."""
    folder = root / f"layer_{number}"
    shards = number == 3
    storage = Storage(store_qk=True, shard_images=7 if shards else 0, packed_gates=shards)
    path = folder / ("trace" if shards else "trace.safetensors")
    write(path, made(number, number), storage=storage, info=blank_info(layer=number))
    trace = Trace.load(path)
    method = "kmeans" if shards else "guided"
    features = xaikit.cluster(trace, num_clusters=K, holdout=0.5, method=method, prefix="own")
    features.save(folder / "features.safetensors")
    fit = xaikit.fit(trace, features, destination="cluster", num_permutations=7)
    fit.save(folder / "fit.safetensors")
    circuit = xaikit.circuit(fit, top_k=5, rank="contrast")
    circuit.save(folder / "circuit.json")
    xaikit.causal(features, fit, num_permutations=7).save(folder / "causal.json")
    effects = xaikit.target_causal(trace, features, fit, circuit, top_n=4, num_permutations=7)
    effects.save(folder / "target_causal.json")
    live(fit, circuit).save(folder / "intervene.json")
    return features, circuit


def live(fit: Fit, circuit: xaikit.Circuit) -> Intervention:
    """What ``intervene`` would have found: its shape, made-up numbers."""
    shared = {"destination": "cluster", "ablation": "mean", "mode": "remove", "metric": "cosine"}
    numbers = {"shares": SHARES, "fractions": [0.2, 1.0], "area_linear": 0.5, "area_log": 0.4}
    effects = [
        EdgeEffect(
            **fit.space.fields(edge.key),
            support=edge.support,
            edge_effect=0.5,
            edge_pvalue=0.25,
            alignment_gain=None,
            alignment_pvalue=None,
            live_effect=0.001,
            live_pvalue=0.5,
            live_qvalue=0.75,
        )
        for edge in circuit.paths[:2]
    ]
    return Intervention(
        provenance=circuit.provenance.child({}, circuit=circuit.identity),
        full_effect={"cosine": 0.2},
        curves=[
            {"ranking": "contrast", **shared, **numbers, "edges": [1, 5], "effects": [0.04, 0.2]}
        ],
        random=[
            {
                "ranking": "random",
                "draws": 20,
                **shared,
                **numbers,
                "mean": [0.01, 0.2],
                "low": [0.0, 0.2],
                "high": [0.02, 0.2],
            }
        ],
        effects=effects,
        agreement={"clusters": 3, "ablation": 0.5, "injection": None, "edges": 1.0},
        destination="cluster",
        metrics=["cosine"],
        num_images=6,
        fit_file=str(fit.path),
        circuit_file=str(circuit.path),
    )


def explanation(found: Intervention, circuit: xaikit.Circuit) -> Explanation:
    """What ``explain`` would have found of one image."""
    edges = [
        type(edge)(**{**vars(edge), "layer": 2, "next_layer": 3}) for edge in circuit.paths[:2]
    ]
    return Explanation(
        provenance=circuit.provenance,
        image=ids_of(1)[0],
        rank="reach",
        grid=[1, 3],
        prefix_kinds=["class token"],
        layers=[[2, 3]],
        labels=[[2, 0, 1, 0]],
        edges=edges,
        common_edges=edges[:1],
        effects=found.effects,
        curves=found.curves,
        random=found.random,
        full_effect=found.full_effect,
    )


def beside(root: Path, features: list[Features], circuits: list[xaikit.Circuit]) -> None:
    """What is of all layers, and what a run keeps beside its artefacts."""
    layers = [
        graph.GraphLayer(features=one, circuit=other)
        for one, other in zip(features, circuits, strict=True)
    ]
    graph.graph(layers, out=root / "graph.json")
    found = Intervention.load(root / "layer_2" / "intervene.json")
    explanation(found, circuits[0]).save(root / "explain.json")
    trace = Trace.load(root / "layer_2" / "trace.safetensors")
    xaikit.baselines(trace, features[0], draws=2).save(root / "baselines.json")
    stable = xaikit.stability(trace, num_clusters=[K], seeds=2, resamples=2, top_k=5)
    stable.save(root / "stability.json")
    shared = {"format_version": FORMAT_VERSION, "options": {"seed": 0}}
    pairs = {"pairs": [[2, 3], [3, 4]], "folders": ["layer_2", "layer_3"], "model": "made-up"}
    write_json(root / "run.json", {"stage": "run", **shared, **pairs, "images": {}})
    request = Request(stage="fit", revision=1, inputs={"features": "0" * 16}, options={"seed": 0})
    place = Folder(root / "layer_2")
    place.keep("fit.safetensors", Fit.load(root / "layer_2" / "fit.safetensors"), request)
    kept = Checkpoint(root / "stream-state", "0" * 16, World())
    fields = {"done": 3, "skipped": [["a.png", "no image", 1]]}
    kept.save("sums-2", "0" * 16, {"2-3/0/sums": torch.arange(6.0)}, fields)


def make(root: Path) -> Path:
    """Write the whole set into a folder."""
    # Room for names that are not there would be most of each file.
    candidates._SPARE_BYTES = 0
    both = [layer(root, number) for number in (2, 3)]
    beside(root, [each[0] for each in both], [each[1] for each in both])
    return root


if __name__ == "__main__":
    place = (
        Path(sys.argv[1])
        if len(sys.argv) > 1
        else Path(__file__).parent / f"version-{FORMAT_VERSION}"
    )
    shutil.rmtree(place, ignore_errors=True)
    make(place)
    print(sum(each.stat().st_size for each in place.rglob("*") if each.is_file()), "bytes")
