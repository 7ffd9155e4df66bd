"""Clusterings compared: what their edges do in the live model and explain, and how they agree.

``python tests/benchmarks/study_clusters.py --model timm/NAME --pretrained FILE --images DIR
--layers 6,9 --cells FOLDER`` (without a model: the demo) measures a file a pair of layers, draw of
images and way, leaves those that are there as they are, and prints the table of all. Draws are of
different images. ``--table`` measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xaikit.artifacts.storage import Storage
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.images import ImageSource, open_images
from xaikit.images.scenes import SceneSource
from xaikit.interventions import Live, LiveOptions, order_edges
from xaikit.interventions.batch import LiveBatch
from xaikit.interventions.covers import EdgeSet
from xaikit.interventions.metrics import changes
from xaikit.rankings.gradients import HALF_WAY, edge_sums, image_directions, moves, per_entry
from xaikit.rankings.reach import backward_passes, mean_norm
from xaikit.run.measure import model_measure
from xaikit.run.options import Options
from xaikit.run.subject import Subject
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.trace import trace
from xaikit.statistics.agreement import adjusted_rand_index, match_clusters
from xaikit.statistics.stability import jaccard, top_edges
from xaikit.towers import Outputs, Tower, load_tower

BATCH, CLUSTERS, TOP = 16, 16, 50
SHARES = (0.01, 0.1)
ENDS = ("token", "cluster")
WAYS: dict[str, dict[str, Any]] = {
    "kmeans, mixed": {"method": "kmeans", "prefix": "mixed"},
    "kmeans, own": {"method": "kmeans", "prefix": "own"},
    "guided, own": {"method": "guided", "prefix": "own"},
    "guided, own, model": {"method": "guided", "prefix": "own", "model": True},
}
FACTORS = ("patch_object", "patch_colour", "patch_shape", "patch_texture", "patch_quadrant")


class Some:
    """Some images of a source."""

    groups = None

    def __init__(self, source: ImageSource, chosen: list[int]) -> None:
        self.ids = [source.ids[i] for i in chosen]
        self._source, self._chosen = source, chosen

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, i: int) -> Any:
        """Image `i` of those chosen."""
        return self._source.load(self._chosen[i])

    def digest(self, i: int) -> str:
        """Of image `i` of those chosen."""
        return self._source.digest(self._chosen[i])

    def describe(self) -> dict[str, Any]:
        """What they are of."""
        return {"kind": "some", "of": self._source.describe()}


def drawn(images: str | None, draw: int, count: int) -> ImageSource:
    """`count` images; those of another draw are others."""
    if images is None:
        return SceneSource(count, seed=100 + draw)
    whole = open_images(images=images, max_images=None)
    order = np.random.default_rng(0).permutation(len(whole))
    chosen = sorted(order[draw * count : (draw + 1) * count].tolist())
    if len(chosen) < count:
        raise SystemExit(f"{len(whole)} images are too few for draw {draw} of {count}")
    return Some(whole, chosen)


def normalised_information(one: np.ndarray, other: np.ndarray) -> float:
    """Mutual information of two labellings over the mean of their entropies."""
    table = np.zeros((int(one.max()) + 1, int(other.max()) + 1))
    np.add.at(table, (one, other), 1.0)
    joint = table / table.sum()
    rows, columns = joint.sum(1), joint.sum(0)
    expected = np.outer(rows, columns)
    seen = joint > 0
    shared = float((joint[seen] * np.log(joint[seen] / expected[seen])).sum())
    entropies = [-float((p[p > 0] * np.log(p[p > 0])).sum()) for p in (rows, columns)]
    return shared / max(sum(entropies) / 2, 1e-12)


@dataclass
class Run:
    """One clustering, fitted to one kind of destination.

    Attributes
    ----------
    kind : str
        ``seed-0`` and so on, or ``half-0`` and ``half-1``.
    reach : Tensor
    shares : list of float
        Of the full effect, of whole clusterings.
    """

    kind: str
    end: str
    features: Features
    fit: Fit
    reach: Tensor = field(default_factory=lambda: torch.empty(0))
    shares: list[float] = field(default_factory=list)

    @property
    def added(self) -> float:
        """Held-out R² that clusters add to position."""
        scores = self.fit.heldout_r2
        return scores["r2_position_cluster"] - scores["r2_position"]

    def table(self, rank: str) -> list[Tensor]:
        """Scores of all edges, and which may be chosen."""
        scores = self.reach if rank == "reach" else self.fit.prototypes.abs()
        return [scores, (self.fit.support > 0)[:, None, :].expand_as(scores)]


@dataclass
class Study:
    """One pair of layers on one draw of images."""

    tower: Tower
    source: ImageSource
    trace: Trace
    holdout: float
    seeds: int

    def __post_init__(self) -> None:
        self.subject = Subject(
            tower=self.tower, source=self.source, options=Options(workers=1).settled()
        )

    def learnt(self, way: dict[str, Any], **more: Any) -> Features:
        """Clusters of one way."""
        chosen = {key: value for key, value in way.items() if key != "model"}
        measure = model_measure(self.subject) if way.get("model") else None
        return cluster(
            self.trace,
            num_clusters=CLUSTERS,
            holdout=self.holdout,
            measure=measure,
            **chosen,
            **more,
        )

    def clusterings(self, way: str) -> dict[str, Features]:
        """All of one way: ``seed-0`` …, ``half-0`` and ``half-1``."""
        # No seed enters guided clusters.
        seeds = self.seeds if WAYS[way]["method"] == "kmeans" else 1
        found = {f"seed-{seed}": self.learnt(WAYS[way], start_seed=seed) for seed in range(seeds)}
        return found | {f"half-{half}": self.learnt(WAYS[way], half=half) for half in (0, 1)}

    def live(self, features: Features, found: Fit, images: list[int]) -> Live:
        """The model on some of the images."""
        options = LiveOptions(batch_size=BATCH, workers=1)
        parts = [(features, found)]
        return Live(
            self.tower, self.source, parts, ids=self.trace.images, images=images, options=options
        )

    def fitted(self, features: Features, destination: str) -> Fit:
        """A fit without more tests than it must have."""
        more: dict[str, Any] = {"num_permutations": 1, "null": "moments", "controls": False}
        return fit(self.trace, features, destination=destination, **more)

    def batches(self, lives: list[Live]) -> Iterator[tuple[LiveBatch, list[LiveBatch]]]:
        """Each batch of the first one's images, and the same with every one's clusters."""
        done = 0
        for batch in lives[0].batches():
            rows = slice(done, done + len(batch.images))
            done = rows.stop
            parts = [live.sites[0].part(rows, self.tower.device) for live in lives]
            yield (
                batch,
                [
                    replace(batch, live=live, sites=[part])
                    for live, part in zip(lives, parts, strict=True)
                ],
            )

    def reach(self, lives: list[Live]) -> list[Tensor]:
        """Scores of all clusterings from the same backward passes (see `rankings.reach`)."""
        count = int(backward_passes(lives[0]))
        totals = [torch.zeros(live.shapes[0], dtype=torch.float64) for live in lives]
        for batch, every in self.batches(lives):

            def draw(shape: torch.Size, images: list[int] = batch.images) -> Tensor:
                return image_directions(images, count, shape[-1], 0)

            squares: list[Tensor] = []
            for (values,) in moves(batch, HALF_WAY, draw):
                found = [edge_sums(values, one.sites[0]).square() for one in every]
                squares = [a + b for a, b in zip(squares, found, strict=True)] if squares else found
            for total, square in zip(totals, squares, strict=True):
                total += (square.sqrt() / mean_norm(count)).double().sum(0)
        return [per_entry([t], live)[0] for t, live in zip(totals, lives, strict=True)]

    def effects(self, lives: list[Live], scores: list[Tensor]) -> list[list[float]]:
        """Shares of the full effect that the first edges of each clustering reach."""
        orders = [
            order_edges("reach", [table], live.counts, live.support)
            for live, table in zip(lives, scores, strict=True)
        ]
        full, parts = 0.0, np.zeros((len(lives), len(SHARES)))
        for batch, every in self.batches(lives):

            def effect(one: LiveBatch, edges: EdgeSet, clean: Outputs = batch.clean) -> float:
                edited = one.cache.outputs(one.ablation(edges))
                return float(changes(clean, edited)["cosine"].sum())

            with torch.no_grad():
                full += effect(batch, orders[0].set_of(1.0))
                for at, (one, order) in enumerate(zip(every, orders, strict=True)):
                    parts[at] += [effect(one, order.set_of(share)) for share in SHARES]
        return (parts / full).tolist()

    def measured(self, way: str) -> dict[str, Any]:
        """Figures of one way."""
        runs = [
            Run(kind, end, features, self.fitted(features, end))
            for kind, features in self.clusterings(way).items()
            for end in ENDS
        ]
        lives = [self.live(run.features, run.fit, run.features.discovery) for run in runs]
        for run, scores in zip(runs, self.reach(lives), strict=True):
            run.reach = scores
        whole = [run for run in runs if run.kind.startswith("seed")]
        tested = [self.live(run.features, run.fit, run.features.heldout) for run in whole]
        for run, shares in zip(
            whole, self.effects(tested, [run.reach for run in whole]), strict=True
        ):
            run.shares = shares
        row = {"way": way, **_agreement(runs), **self._information(runs)}
        row["images"], row["tested"] = (
            len(part) for part in (runs[0].features.discovery, runs[0].features.heldout)
        )
        for end in ENDS:
            ended = [run for run in whole if run.end == end]
            one, ten = np.mean([run.shares for run in ended], axis=0).tolist()
            row[end] = {"one": one, "ten": ten, "added": _mean([run.added for run in ended])}
        return row

    def _information(self, runs: list[Run]) -> dict[str, Any]:
        """Of held-out patches' clusters and the scenes' known factors."""
        if not isinstance(self.source, SceneSource):
            return {}
        facts, found = self.source.factors(), {}
        whole = [run for run in runs if run.kind.startswith("seed") and run.end == ENDS[0]]
        for name in FACTORS:
            known = np.asarray(getattr(facts, name))
            found[name] = _mean(
                [
                    normalised_information(
                        _patches(run.features),
                        known[run.features.heldout].astype(np.int64).ravel() + 1,
                    )
                    for run in whole
                ]
            )
        return found


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _patches(features: Features) -> np.ndarray:
    return features.labels[features.heldout, features.info.prefix_tokens :].numpy().ravel()


def _agreement(runs: list[Run]) -> dict[str, Any]:
    """Rand index and Jaccard indices over seeds and over halves."""
    found: dict[str, Any] = {}
    for over in ("seed", "half"):
        for end in ENDS:
            pairs = list(
                combinations([run for run in runs if run.end == end and run.kind[:4] == over], 2)
            )
            rand = [
                adjusted_rand_index(*(_patches(run.features) for run in pair)) for pair in pairs
            ]
            found[f"ari_{over}"] = _mean(rand)
            for rank in ("reach", "weight"):
                shared = [_overlap(*pair, rank) for pair in pairs]
                found[f"{end}_{rank}_{over}"] = _mean([one for one, _ in shared])
                found[f"{end}_{rank}_{over}_patches"] = _mean([two for _, two in shared])
    return found


def _overlap(one: Run, other: Run, rank: str) -> tuple[float, float]:
    """Jaccard index of the first edges, and of the first between patches."""
    first, second = (run.features.labels.numpy().ravel() for run in (one, other))
    match = torch.from_numpy(match_clusters(first, second, CLUSTERS))
    mine, theirs = one.table(rank), [table[match] for table in other.table(rank)]
    if one.end == "cluster":
        theirs = [table[:, :, match] for table in theirs]
    own = len(one.features.kinds)
    kept = torch.ones_like(mine[1])
    kept[CLUSTERS - own :] = False
    if one.end == "token":
        kept[:, :, : one.features.info.prefix_tokens] = False
    else:
        kept[:, :, CLUSTERS - own :] = False
    all_edges, patches = (
        jaccard(top_edges(mine[0], mine[1] & k, TOP), top_edges(theirs[0], theirs[1] & k, TOP))
        for k in (torch.ones_like(kept), kept)
    )
    return all_edges, patches


def table(cells: list[dict[str, Any]]) -> str:
    """The cells' means over draws, and the standard deviation of shares and R²."""
    lines: list[str] = []
    for layer in sorted({cell["layer"] for cell in cells}):
        mine = [cell for cell in cells if cell["layer"] == layer]
        first, draws = mine[0]["row"], len({cell["draw"] for cell in mine})
        lines.append(
            f"\n**{layer}→{layer + 1}**, {draws} draws of {first['images']} + "
            f"{first['tested']} images\n"
        )
        lines += _part(mine, ("share → token", "share → cluster", "R² added"), _shares)
        lines += _part(
            mine,
            (
                "Rand index",
                "→ token, `reach`",
                "→ cluster, `reach`",
                "→ token, `weight`",
                "→ cluster, `weight`",
            ),
            _agreements,
        )
        if FACTORS[0] in first:
            lines += _part(
                mine,
                tuple(name.removeprefix("patch_") for name in FACTORS),
                lambda rows: [_spread(rows, (name,)) for name in FACTORS],
            )
    return "\n".join(lines)


def _part(cells: list[dict[str, Any]], heads: tuple[str, ...], fill: Any) -> list[str]:
    lines = ["| clusters | " + " | ".join(heads) + " |", "| --- " * (1 + len(heads)) + "|"]
    for name in WAYS:
        rows = [cell["row"] for cell in cells if cell["row"]["way"] == name]
        if not rows:
            continue
        lines.append(f"| {name} | " + " | ".join(fill(rows)) + " |")
    return [*lines, ""]


def _shares(rows: list[dict[str, Any]]) -> list[str]:
    pairs = [f"{_spread(rows, (end, 'one'))} / {_spread(rows, (end, 'ten'))}" for end in ENDS]
    return [*pairs, " / ".join(_spread(rows, (end, "added")) for end in ENDS)]


def _agreements(rows: list[dict[str, Any]]) -> list[str]:
    found = [f"{_spread(rows, ('ari_seed',))} / {_spread(rows, ('ari_half',))}"]
    for rank in ("reach", "weight"):
        for end in ENDS:
            key = f"{end}_{rank}"
            cells = [_spread(rows, (f"{key}_seed",)), _spread(rows, (f"{key}_half",))]
            found.append(f"{cells[0]} / {cells[1]} ({_spread(rows, (f'{key}_half_patches',))})")
    return found


def _spread(rows: list[dict[str, Any]], path: tuple[str, ...]) -> str:
    values = []
    for row in rows:
        found: Any = row
        for key in path:
            found = found[key]
        values.append(found)
    if any(value is None for value in values):
        return "1 by definition"
    error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{error}"


def numbers(text: str) -> list[int]:
    """A list of numbers."""
    return [int(part) for part in text.split(",")]


def traced(tower: Tower, source: ImageSource, layer: int, goal: Path) -> Trace:
    """The trace, where it is not there already."""
    if goal.exists():
        return Trace.load(goal)
    storage = Storage(store_qk=True)
    more: dict[str, Any] = {"batch_size": BATCH, "workers": 1}
    return trace(tower, source, target_layer=layer, out=goal, storage=storage, **more)


def measure(given: argparse.Namespace, draw: int, layer: int) -> None:
    """Write the cells of one pair of layers and one draw that are not there."""
    goals = {
        way: given.cells / f"{layer}-{draw}-{at}.json"
        for at, way in enumerate(WAYS)
        if given.way is None or way in given.way
    }
    missing = {way: goal for way, goal in goals.items() if not goal.exists()}
    if not missing:
        return
    tower = load_tower(given.model or "xaikit-demo", given.pretrained)
    source = drawn(given.images, draw, given.count)
    made = traced(tower, source, layer, given.cells / f"trace-{layer}-{draw}.safetensors")
    study = Study(tower, source, made, given.holdout, given.seeds)
    for way, goal in missing.items():
        cell = {"layer": layer, "draw": draw, "row": study.measured(way)}
        partly = goal.with_suffix(f".{os.getpid()}")
        partly.write_text(json.dumps(cell, indent=1))
        partly.rename(goal)
        print(goal, flush=True)


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--model", "--pretrained", "--images"):
        parser.add_argument(name)
    parser.add_argument("--layers", default="1,2,3")
    parser.add_argument("--draws", default="0,1,2")
    parser.add_argument("--seeds", type=int, default=3, help="k-means seeds of a draw")
    parser.add_argument("--count", type=int, default=176)
    parser.add_argument("--holdout", type=float, default=48 / 176)
    parser.add_argument("--way", choices=WAYS, action="append", help="default: all")
    parser.add_argument("--cells", type=Path, required=True, help="folder of what was measured")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    given = parser.parse_args()
    given.cells.mkdir(parents=True, exist_ok=True)
    for draw, layer in product(numbers(given.draws), numbers(given.layers)):
        if not given.table:
            measure(given, draw, layer)
    print(table([json.loads(file.read_text()) for file in sorted(given.cells.glob("*.json"))]))


if __name__ == "__main__":
    main()
