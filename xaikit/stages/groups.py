"""A circuit for each group of images, beside the common one, and what each does to the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from xaikit.artifacts.groups import GroupCircuits
from xaikit.artifacts.inputs import require_parts
from xaikit.artifacts.options import all_at_zero, checked, deciding, option
from xaikit.errors import UsageError
from xaikit.interventions import (
    EdgeSet,
    Live,
    LiveOptions,
    Objective,
    check_parts,
    check_shares,
    chosen_objective,
    cover_share,
    entry_counts,
    fractions_of,
    full_patch,
    order_edges,
    sets_patch,
    spread_evenly,
)
from xaikit.interventions.curves import draw_orders
from xaikit.interventions.matching import joint_provenance
from xaikit.progress import Progress, silent
from xaikit.rankings import KEYS, ranking
from xaikit.rankings.live import joint_scores
from xaikit.rankings.selection import joint_edges

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.images import ImageSource
    from xaikit.interventions import Classifier
    from xaikit.towers import Tower

REVISION = 1
Tables = Sequence["Tensor"]


@dataclass(frozen=True, kw_only=True)
class GroupOptions(LiveOptions):
    """Options of circuits for groups, beside those of running the model.

    Attributes
    ----------
    rank : str
    top_k : int
        Edges of each circuit.
    shares : sequence of float
        Of a group's logit entries, that are removed.
    draws : int
        Random edge sets for each group and share.
    score_images, max_images : int, optional
        Of each group, to choose on and to test on, spread evenly.
    """

    rank: str = option("reach", "What edges are ordered by.", choices=KEYS)
    top_k: int = option(50, "Edges of each group's circuit.", least=1)
    shares: Sequence[float] = option((0.01, 0.05, 0.1), "Shares of the logit entries.")
    draws: int = option(3, "Random edge sets.", panel="Statistics", least=0)
    max_images: int | None = option(
        32, "Images of each group to test on; 0 = all.", least=1, parse=all_at_zero
    )
    score_images: int | None = option(
        64, "Images of each group to choose on; 0 = all.", least=1, parse=all_at_zero
    )


@dataclass(frozen=True, kw_only=True)
class _Group:
    name: str
    choose: list[int]
    test: list[int]


def group_circuits(
    tower: Tower,
    source: ImageSource,
    parts: Sequence[tuple[Features, Fit]],
    groups: Mapping[str, Sequence[int]],
    *,
    ids: Sequence[str],
    classifier: Classifier | None = None,
    objective: Objective | None = None,
    options: GroupOptions | None = None,
    progress: Progress = silent,
) -> GroupCircuits:
    """Rank edges for each group of images, and remove each group's edges from all groups.

    Three orders of the edges are measured for each group, chosen on its discovery images:
    ``own``; ``specific``, by how much more they matter to the group than to the mean of the other
    ones; and ``common``, the mean over all groups, each counting alike. Sets of all orders hold
    the same share of the entries of the group's test images.

    Parameters
    ----------
    tower, source, parts, ids, classifier, objective
        As in `intervene_layers`.
    groups : mapping of str to sequence of int
        Rows of ``features.labels`` of each group, two or more.
    options : GroupOptions, optional

    Returns
    -------
    GroupCircuits

    Raises
    ------
    UsageError
        Where fewer than two groups have images to choose on and to test on.
    """
    require_parts(tower, source)
    check_parts(parts)
    o = checked(options or GroupOptions())
    ordered = sorted(parts, key=lambda part: part[1].next_layer)
    features = ordered[0][0]
    found = [_group(name, rows, features, o) for name, rows in groups.items()]
    used = [group for group in found if group.choose and group.test]
    if len(used) < 2:
        raise UsageError("`group=`: fewer than two groups have images to choose on and to test on")
    aim = objective or chosen_objective(tower, o, classifier)
    given: dict[str, Any] = {"ids": ids, "options": o, "objective": aim, "classifier": classifier}
    scores = []
    for place, group in enumerate(used):
        tables = joint_scores([o.rank], tower, source, ordered, images=group.choose, **given)
        scores.append(tables[o.rank])
        progress("groups ranked", place + 1, len(used))
    orders = [_orders(scores, place) for place in range(len(used))]
    tested = sorted({row for group in used for row in group.test})
    live = Live(tower, source, ordered, images=tested, **given)
    records = _measured(live, used, orders, o, progress)
    for record, order in zip(records, orders, strict=True):
        record["paths"] = _paths(live, order["own"], o)
        record["specific_paths"] = _paths(live, order["specific"], o)
    fits = [fit for _, fit in ordered]
    return GroupCircuits(
        provenance=joint_provenance(fits, {**deciding(o), "groups": _listed(used, ids)}),
        rank=o.rank,
        groups=records,
        left_out=[group.name for group in found if group not in used],
        layers=[[fit.layer, fit.next_layer] for fit in fits],
        objective=aim.record(),
        metric=aim.metric,
        ablation=o.ablation,
        destination=live.destination,
        heldout=bool(features.heldout),
    ).identify()


def _group(name: str, rows: Sequence[int], features: Features, o: GroupOptions) -> _Group:
    heldout = set(features.heldout)
    test = [row for row in rows if row in heldout] if heldout else list(rows)
    return _Group(
        name=name,
        choose=spread_evenly([row for row in rows if row not in heldout], o.score_images),
        test=spread_evenly(test, o.max_images),
    )


def _listed(groups: Sequence[_Group], ids: Sequence[str]) -> dict[str, list[str]]:
    return {g.name: [ids[row] for row in sorted({*g.choose, *g.test})] for g in groups}


def _orders(scores: Sequence[Tables], place: int) -> dict[str, list[Tensor]]:
    """Scores of the three orders of one group, a table a layer.

    Scores of a group count in units of their mean size, so that no group drowns the others.
    """
    scaled = [_scaled(tables) for tables in scores]
    own = scaled[place]
    others = [tables for at, tables in enumerate(scaled) if at != place]
    return {
        "own": own,
        "specific": [
            mine - torch.stack(rest).mean(0) for mine, *rest in zip(own, *others, strict=True)
        ],
        "common": [torch.stack(each).mean(0) for each in zip(*scaled, strict=True)],
    }


def _scaled(tables: Tables) -> list[Tensor]:
    size = sum(float(table.abs().sum()) for table in tables)
    return [table / size if size else table for table in tables]


def _paths(live: Live, tables: Tables, o: GroupOptions) -> list[dict[str, Any]]:
    effects = tables if live.objective.signed and ranking(o.rank).signed else None
    edges = joint_edges([site.fit for site in live.sites], tables, o.top_k, effects=effects)
    return [{k: v for k, v in asdict(edge).items() if v is not None} for edge in edges]


@dataclass(frozen=True, kw_only=True)
class _Set:
    """Edges that are removed: of which group and order, and at which share of its entries."""

    group: int
    ranking: str
    share: float
    edges: EdgeSet


def _sets(
    live: Live, groups: Sequence[_Group], orders: Sequence[dict[str, list[Tensor]]], o: GroupOptions
) -> list[_Set]:
    found = []
    for place, group in enumerate(groups):
        counts = _counts(live, group)
        ranked = {
            name: order_edges(name, tables, counts, live.support)
            for name, tables in orders[place].items()
        }
        drawn = draw_orders(live, o.seed, 0, o.draws)
        for share in check_shares(o.shares):
            if share == 1.0:
                continue
            sets = [(name, order.set_of(share)) for name, order in ranked.items()]
            sets += [("random", order.set_of(share)) for order in drawn]
            found += [
                _Set(group=place, ranking=name, share=share, edges=edges) for name, edges in sets
            ]
    return found


def _counts(live: Live, group: _Group) -> list[Tensor]:
    """Entries of one head that each edge covers on a group's test images."""
    wanted = [live.images.index(row) for row in group.test]
    return [
        entry_counts(site.labels[wanted], site.clusters, site.destination) for site in live.sites
    ]


def _measured(
    live: Live,
    groups: Sequence[_Group],
    orders: Sequence[dict[str, list[Tensor]]],
    o: GroupOptions,
    progress: Progress,
) -> list[dict[str, Any]]:
    """One record a group, of one pass over the test images of all groups."""
    sets = _sets(live, groups, orders, o)
    metric = live.objective.metric
    patches = [full_patch(live.shapes), sets_patch([each.edges for each in sets])]
    full, effects = (found[metric] for found in live.measure(patches, progress))
    counts = [_counts(live, group) for group in groups]
    rows = [[live.images.index(row) for row in group.test] for group in groups]
    means = torch.stack([effects[:, own].mean(1) for own in rows], dim=1)
    records = []
    for place, group in enumerate(groups):
        whole = float(full[0, rows[place]].mean())
        figures = []
        for name, share in dict.fromkeys((e.ranking, e.share) for e in sets if e.group == place):
            same = [
                at
                for at, each in enumerate(sets)
                if (each.group, each.ranking, each.share) == (place, name, share)
            ]
            others = [at for at in range(len(groups)) if at != place]
            covers = [cover_share(sets[at].edges, counts[other]) for at in same for other in others]
            effect = float(means[same, place].mean())
            figures.append(
                {
                    "ranking": name,
                    "share": share,
                    "effect": effect,
                    "fraction": fractions_of([effect], whole)[0],
                    "others": float(means[same][:, others].mean()),
                    "others_share": sum(covers) / len(covers),
                }
            )
        records.append(
            {
                "name": group.name,
                "images": len(group.choose),
                "test_images": len(group.test),
                "full_effect": whole,
                "figures": figures,
            }
        )
    return records
