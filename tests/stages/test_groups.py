"""A circuit for each group of images, and what it does to the other groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
import torch

from xaikit.artifacts.edges import Edge
from xaikit.artifacts.groups import GroupCircuits
from xaikit.artifacts.tables import tables
from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource
from xaikit.interventions import (
    Classifier,
    Live,
    LiveOptions,
    Objective,
    full_patch,
    order_edges,
    random_order,
    sets_patch,
)
from xaikit.interventions.covers import cover_share, entry_counts
from xaikit.interventions.groups import image_groups
from xaikit.rankings.live import joint_scores
from xaikit.stages import groups as module
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.groups import GroupOptions, _orders, group_circuits
from xaikit.stages.trace import trace_layers
from xaikit.towers import load_tower

OPTIONS = GroupOptions(shares=(0.1,), draws=1, top_k=4, batch_size=8)


@pytest.fixture(scope="module")
def run():
    tower, source = load_tower("xaikit-demo"), SceneSource(24, 0)
    parts = []
    for traced in trace_layers(tower, source, [(0, 1), (2, 3)]):
        features = cluster(traced, num_clusters=4, sample_tokens=0, holdout=0.5)
        found = fit(traced, features, destination="cluster", num_permutations=2, controls=False)
        parts.append((features, found))
    colours = source.factors().colour[:, 0]
    groups = {"warm": [], "cold": []}
    for row, colour in enumerate(colours.tolist()):
        groups["warm" if colour in (0, 3, 4) else "cold"].append(row)
    return tower, source, parts, groups


@pytest.fixture(scope="module")
def found(run) -> GroupCircuits:
    tower, source, parts, groups = run
    # A group that has nothing to test on is left out, and said to be.
    few = {"few": parts[0][0].discovery[:3], "late": parts[0][0].heldout[:3]}
    given = {"ids": source.ids, "options": OPTIONS}
    return group_circuits(tower, source, parts[::-1], groups | few, **given)


def test_figures_are_of_the_groups_own_test_images_and_of_the_others(run, found) -> None:
    tower, source, parts, groups = run
    heldout = set(parts[0][0].heldout)
    choose = [row for row in groups["cold"] if row not in heldout]
    test = [row for row in groups["cold"] if row in heldout]
    others = [row for row in groups["warm"] if row in heldout]
    assert choose
    assert test
    given = {"ids": source.ids, "options": LiveOptions(batch_size=8)}
    tables = joint_scores(["reach"], tower, source, parts, images=choose, **given)["reach"]
    counts = [entry_counts(features.labels[test], 4, "cluster") for features, _ in parts]
    edges = order_edges("own", tables, counts).set_of(0.1)
    # The slow definition: the two groups by themselves. Which rows of the edge at the boundary
    # are taken depends on the images that are run together.
    measured = {}
    for name, rows in (("own", test), ("others", others)):
        live = Live(tower, source, parts, images=rows, **given)
        patches = [full_patch(live.shapes), sets_patch([edges])]
        measured[name] = [float(each["cosine"].mean()) for each in live.measure(patches)]
    record = next(each for each in found.groups if each["name"] == "cold")
    figure = next(each for each in record["figures"] if each["ranking"] == "own")
    assert record["full_effect"] == pytest.approx(measured["own"][0], rel=1e-5)
    assert figure["effect"] == pytest.approx(measured["own"][1], rel=0.05)
    assert figure["others"] == pytest.approx(measured["others"][1], rel=0.05)
    assert (record["images"], record["test_images"]) == (len(choose), len(test))
    # The share is of the group's own entries, and of the others' entries what it then is.
    theirs = [entry_counts(features.labels[others], 4, "cluster") for features, _ in parts]
    assert figure["others_share"] == pytest.approx(cover_share(edges, theirs), rel=1e-6)
    assert figure["others_share"] != pytest.approx(cover_share(edges, counts), rel=1e-3)
    assert figure["fraction"] == pytest.approx(figure["effect"] / record["full_effect"])


def test_a_group_without_images_to_test_on_is_left_out(run, found) -> None:
    tower, source, parts, groups = run
    assert (found.left_out, found.heldout) == (["few", "late"], True)
    # Lowest layer first, in whatever order they are given.
    assert found.layers == [[0, 1], [2, 3]]
    rows = found.provenance.options["groups"]
    assert set(rows) == {"warm", "cold"}
    assert rows["cold"] == [source.ids[row] for row in sorted(groups["cold"])]
    few = {"few": parts[0][0].discovery[:3]}
    with pytest.raises(UsageError, match="fewer than two groups have images"):
        group_circuits(tower, source, parts, {"warm": groups["warm"]} | few, ids=source.ids)


def test_without_a_holdout_groups_are_tested_on_the_images_that_chose_and_say_so(run) -> None:
    tower, source, parts, groups = run
    every = list(range(len(source)))
    parts = [(replace(features, discovery=every, heldout=[]), fitted) for features, fitted in parts]
    small = {name: rows[:2] for name, rows in groups.items()}
    options = replace(OPTIONS, draws=0, shares=(0.5,))
    found = group_circuits(tower, source, parts[:1], small, ids=source.ids, options=options)
    assert not found.heldout
    assert [(each["images"], each["test_images"]) for each in found.groups] == [(2, 2), (2, 2)]


def test_every_group_has_its_circuit_and_reads_back(found, tmp_path: Path) -> None:
    assert [each["name"] for each in found.groups] == ["warm", "cold"]
    for record in found.groups:
        assert len(record["paths"]) == len(record["specific_paths"]) == 4
        assert record["paths"] != record["specific_paths"]
        assert {figure["ranking"] for figure in record["figures"]} == {
            "own",
            "specific",
            "common",
            "random",
        }
    rows = tables(found)
    assert rows["groups"]["name"] == ["warm"] * 4 + ["cold"] * 4
    assert len(rows["paths"]["head"]) == 8
    assert "circuits of 2 groups" in repr(found)
    found.save(tmp_path / "groups.json")
    assert GroupCircuits.load(tmp_path / "groups.json").groups == found.groups


def test_groups_are_folders_or_what_a_file_says(tmp_path: Path) -> None:
    ids, folders = ["a/1", "a/2", "b/1", "c/1"], ["a", "a", "b", "c"]
    assert image_groups("folder", ids, folders) == {"a": [0, 1], "b": [2], "c": [3]}
    file = tmp_path / "groups.json"
    file.write_text('{"a": "one", "b": "two", "a/2": "two"}')
    assert image_groups(str(file), ids, folders) == {"one": [0], "two": [1, 2]}
    table = tmp_path / "groups.csv"
    table.write_text("image,group\na/1,one\nc/1,two\n")
    assert image_groups(str(table), ids, None) == {"one": [0], "two": [3]}
    table.write_text("a/9,one\n")
    with pytest.raises(UsageError, match="line 1: a/9 is no image"):
        image_groups(str(table), ids, folders)
    with pytest.raises(UsageError, match="no folders"):
        image_groups("folder", ids, None)


def test_specific_edges_matter_more_to_the_group_than_to_the_mean_of_the_others() -> None:
    # Three groups, one layer, edges in order: common to all, the first group's, the others'.
    tables = [torch.tensor(row).reshape(1, 1, 3) for row in ([5.0, 3, 0], [9.0, 0, 3], [5.0, 0, 3])]
    orders = _orders([[table] for table in tables], 0)
    assert orders["own"][0].flatten().argsort(descending=True).tolist() == [0, 1, 2]
    assert int(orders["specific"][0].argmax()) == 1
    expected = [5 / 8 - (9 / 12 + 5 / 8) / 2, 3 / 8, -(3 / 12 + 3 / 8) / 2]
    assert torch.allclose(orders["specific"][0].flatten(), torch.tensor(expected))
    assert int(orders["common"][0].argmax()) == 0
    # Effects with a sign count by their size.
    signed = _orders([[torch.tensor([[[3.0, -4, -1]]])], [torch.ones(1, 1, 3)]], 0)["own"][0]
    assert torch.allclose(signed.flatten(), torch.tensor([3.0, -4, -1]) / 8)


def test_images_to_choose_on_and_to_test_on_have_limits_of_their_own() -> None:
    features: Any = Some(heldout=[1, 3, 5, 7, 9])
    options = GroupOptions(score_images=3, max_images=2)
    found = module._group("a", range(10), features, options)
    assert (found.choose, found.test) == ([0, 4, 8], [1, 9])
    found = module._group("a", range(10), features, GroupOptions(score_images=None))
    assert (found.choose, found.test) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])
    features.heldout = []
    found = module._group("a", [4, 2], features, options)
    assert (found.choose, found.test) == ([2, 4], [2, 4])


def test_a_group_to_which_no_edge_matters_has_scores_of_zero() -> None:
    nothing = [torch.zeros(1, 1, 3)]
    orders = _orders([nothing, [torch.tensor([[[2.0, 1, 1]]])]], 0)
    assert orders["own"][0].tolist() == [[[0.0, 0.0, 0.0]]]
    assert orders["common"][0].tolist() == [[[0.25, 0.125, 0.125]]]


@pytest.mark.parametrize(
    ("signed", "rank", "sides"),
    [(True, "attribution", True), (True, "reach", False), (False, "attribution", False)],
)
def test_a_group_s_paths_have_sides_where_their_ranking_has_a_sign(
    monkeypatch: pytest.MonkeyPatch, signed: bool, rank: str, sides: bool
) -> None:
    asked: list[Any] = []

    def joint(fits: Any, tables: Any, count: int, *, effects: Any) -> list[Edge]:
        asked.append((fits, tables, count, effects))
        return [Edge(cluster_id=1, head=0, dst_token=None, dst_cluster=2, weight=0.5, support=3)]

    monkeypatch.setattr(module, "joint_edges", joint)
    live: Any = Some(objective=Some(signed=signed), sites=[Some(fit="fit")])
    tables = [torch.ones(1, 1, 1)]
    (record,) = module._paths(live, tables, GroupOptions(rank=rank, top_k=7))
    assert asked == [(["fit"], tables, 7, tables if sides else None)]
    assert record["dst_cluster"] == 2
    assert None not in record.values()


K, TOKENS = 3, 4
"""Clusters, and tokens of an image, of the live run below: one layer, one head."""


class Told:
    """A live run of one layer whose effects are given."""

    images = (10, 11, 12, 13, 14)

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(0, K, (len(self.images), TOKENS), generator=generator)
        self.sites = [Some(labels=labels, clusters=K, destination="cluster")]
        self.shapes, self.objective = ((K, 1, K),), Some(metric="toward")
        self.counts = (entry_counts(labels, K, "cluster"),)
        self.support = (torch.ones(K, K),)
        self.full = torch.rand(1, len(self.images), generator=generator).double()
        self.effects = torch.rand(99, len(self.images), generator=generator).double()

    def measure(self, patches: Any, _progress: Any) -> list[dict[str, torch.Tensor]]:
        assert patches[0].size == 1
        found = self.effects[: patches[1].size]
        return [{"cosine": each / 9, "toward": each} for each in (self.full, found)]


GROUPS = [
    module._Group(name="a", choose=[0], test=[10, 12, 14]),
    module._Group(name="b", choose=[1], test=[11]),
    module._Group(name="c", choose=[2], test=[13]),
]
TWO_DRAWS = GroupOptions(shares=(0.5, 1.0), draws=2, seed=7)


def told_orders() -> list[dict[str, list[torch.Tensor]]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {name: [torch.rand(K, 1, K, generator=generator)] for name in ("own", "common")}
        for _ in GROUPS
    ]


def test_sets_are_the_group_s_share_of_each_order_and_of_random_ones() -> None:
    live: Any = Told()
    # An edge that no fit has rows behind comes last, whatever its score.
    live.support = (torch.tensor([[0.0, 1, 1], [1, 1, 1], [1, 1, 1]]),)
    orders = told_orders()
    orders[0]["own"][0][0, 0, 0] = 9.0
    sets = module._sets(live, GROUPS, orders, TWO_DRAWS)
    names = ["own", "common", "random", "random"]
    assert [(each.group, each.ranking) for each in sets] == [
        (group, name) for group in range(3) for name in names
    ]
    # Everything is no set: that is the full effect.
    assert {each.share for each in sets} == {0.5}
    assert not sets[0].edges.tables[0][0, 0, 0]
    for each in sets[:2]:
        counts = [entry_counts(live.sites[0].labels[[0, 2, 4]], K, "cluster")]
        order = order_edges("x", orders[0][each.ranking], counts, live.support)
        expected = order.set_of(0.5)
        assert torch.equal(each.edges.tables[0], expected.tables[0])
        # The share is of the group's own entries, to the last row.
        assert (each.edges.boundary, each.edges.part) == (expected.boundary, expected.part)
    drawn = [random_order(live.counts, live.shapes, [7, 13, draw]).set_of(0.5) for draw in (0, 1)]
    for group in range(3):
        for at, order in enumerate(drawn):
            own = sets[4 * group + 2 + at].edges
            assert torch.equal(own.tables[0], order.tables[0])


def test_figures_are_means_over_sets_images_and_other_groups() -> None:
    live: Any = Told()
    orders = told_orders()
    sets = module._sets(live, GROUPS, orders, TWO_DRAWS)
    records = module._measured(live, GROUPS, orders, TWO_DRAWS, lambda *_: None)
    rows = [[0, 2, 4], [1], [3]]
    for place, record in enumerate(records):
        assert record["name"] == GROUPS[place].name
        assert (record["images"], record["test_images"]) == (1, len(rows[place]))
        assert record["full_effect"] == pytest.approx(float(live.full[0, rows[place]].mean()))
        assert [each["ranking"] for each in record["figures"]] == ["own", "common", "random"]
        for figure in record["figures"]:
            own = [
                at
                for at, each in enumerate(sets)
                if (each.group, each.ranking) == (place, figure["ranking"])
            ]
            others = [at for at in range(3) if at != place]
            effect = float(live.effects[own][:, rows[place]].mean())
            assert figure["effect"] == pytest.approx(effect)
            assert figure["fraction"] == pytest.approx(effect / record["full_effect"])
            means = [live.effects[own][:, rows[at]].mean(1) for at in others]
            assert figure["others"] == pytest.approx(float(torch.stack(means).mean()))
            labels = live.sites[0].labels
            covers = [
                cover_share(sets[at].edges, [entry_counts(labels[rows[other]], K, "cluster")])
                for at in own
                for other in others
            ]
            assert figure["others_share"] == pytest.approx(sum(covers) / len(covers))


def test_what_groups_were_made_with_is_handed_on_and_said(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, source, parts, groups = run
    asked: dict[str, Any] = {"scores": []}

    def scores(ranks: Any, *_: Any, **given: Any) -> dict[str, Any]:
        asked["scores"].append((ranks, given))
        at = float(len(asked["scores"]))
        return {ranks[0]: [torch.tensor([[[at, 1.0]]]), torch.tensor([[[2.0, 5.0]]])]}

    def measured(live: Any, used: Any, orders: Any, *_: Any) -> list[dict[str, Any]]:
        asked["live"], asked["orders"] = live, orders
        return [{"name": group.name} for group in used]

    monkeypatch.setattr(module, "joint_scores", scores)
    monkeypatch.setattr(module, "_measured", measured)
    monkeypatch.setattr(module, "_paths", lambda _live, tables, _o: [{"x": tables[0].tolist()}])
    aim = Objective(kind="toward", toward="red", value=lambda out, *_: out.embedding[:, 0])
    options = GroupOptions(ablation="zero", rank="attribution", score_images=2, max_images=2)
    classes = Classifier(name="a", logits=lambda out: out.embedding)
    given = {"ids": source.ids, "options": options, "objective": aim, "classifier": classes}
    monkeypatch.setattr(Live, "destination", property(lambda _: "token"))
    # One that is left out is not run.
    late = {"late": sorted(parts[0][0].heldout)[5:7]}
    found = group_circuits(tower, source, parts, groups | late, **given)
    heldout = set(parts[0][0].heldout)
    for (ranks, seen), rows in zip(asked["scores"], groups.values(), strict=True):
        assert ranks == ["attribution"]
        assert (seen["objective"], seen["options"]) == (aim, options)
        assert seen["classifier"] is classes
        assert len(seen["images"]) == 2
        assert set(seen["images"]) <= set(rows) - heldout
    assert asked["live"].classifier is classes
    assert len(asked["live"].images) == 4
    assert set(asked["live"].images) <= heldout
    assert (found.ablation, found.metric, found.rank) == ("zero", aim.metric, "attribution")
    assert (found.objective, found.destination) == (aim.record(), "token")
    said = found.provenance.options
    assert (said["ablation"], said["rank"]) == ("zero", "attribution")
    assert {name: len(each) for name, each in said["groups"].items()} == {"warm": 4, "cold": 4}
    for record, orders in zip(found.groups, asked["orders"], strict=True):
        assert record["paths"] == [{"x": orders["own"][0].tolist()}]
        assert record["specific_paths"] == [{"x": orders["specific"][0].tolist()}]


def test_what_does_not_belong_together_or_is_out_of_range_is_refused(run) -> None:
    tower, source, parts, groups = run
    given = {"ids": source.ids}
    with pytest.raises(UsageError, match="a model is expected as a tower, not as str"):
        group_circuits("a model", source, parts, groups, **given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="max_images=0"):
        group_circuits(tower, source, parts, groups, options=GroupOptions(max_images=0), **given)
    with pytest.raises(UsageError, match="fit file was not made from this features file"):
        group_circuits(tower, source, [(parts[0][0], parts[1][1])], groups, **given)
    with pytest.raises(UsageError, match="no layers to intervene on"):
        group_circuits(tower, source, [], groups, **given)


def test_the_margin_is_that_of_the_given_classifier(run, monkeypatch: pytest.MonkeyPatch) -> None:
    tower, source, parts, groups = run
    asked: list[Any] = []

    def chosen(*args: Any) -> None:
        asked.extend(args)
        raise LookupError

    monkeypatch.setattr(module, "chosen_objective", chosen)
    classes = Classifier(name="a", logits=lambda out: out.embedding)
    options = GroupOptions(objective="margin")
    with pytest.raises(LookupError):
        group_circuits(
            tower, source, parts, groups, ids=source.ids, classifier=classes, options=options
        )
    assert asked[0] is tower
    assert asked[1].objective == "margin"
    assert asked[2] is classes
