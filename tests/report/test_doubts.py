"""What the page says is wrong with a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace

from xaikit.report.page import doubts as module
from xaikit.report.page.doubts import Doubt, doubts
from xaikit.report.page.parts import LayerParts, RunParts
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit


@pytest.fixture
def parts() -> LayerParts:
    """A layer of twelve images and four clusters."""
    logits, labels = slow.random_case(0, B=12, N=4)
    trace = make_trace(torch.from_numpy(logits))
    features = make_features(trace, torch.from_numpy(labels), 4, [1, 3])
    made = fit(trace, features, num_permutations=3)
    return LayerParts(
        folder=Path("run"), features=features, fit=made, circuit=circuit(made, top_k=8)
    )


def said(found: list[Doubt], words: str) -> list[str]:
    """Levels of the doubts with some words."""
    return [doubt.level for doubt in found if words in doubt.text]


def test_sizes_and_rare_clusters_are_doubted_from_a_limit_on(parts: LayerParts) -> None:
    features = parts.features
    features.cluster_sizes = torch.tensor([5, 5, 0, 0])
    found = module._clusters(parts)
    assert said(found, "one cluster holds") == []
    assert said(found, "2 of 4 clusters are empty.") == ["caution"]
    features.cluster_sizes = torch.tensor([6, 4, 1, 1])
    assert said(module._clusters(parts), "one cluster holds") == []
    features.cluster_sizes = torch.tensor([7, 4, 1, 1])
    assert said(module._clusters(parts), "one cluster holds 54% of tokens.") == ["caution"]
    features.labels[:] = 0
    features.labels[:10, 1], features.labels[:9, 2] = 1, 2
    # Cluster 1 is in ten images, cluster 2 in nine, cluster 3 in none.
    assert said(module._clusters(parts), "1 clusters are found in fewer than 10") == ["caution"]


@pytest.mark.parametrize(
    ("shuffled", "doubted"), [(0.02, []), (0.03, ["serious"]), (-0.03, ["serious"])]
)
def test_clusters_that_add_no_more_than_twice_what_shuffled_ones_do_are_doubted(
    parts: LayerParts, shuffled: float, doubted: list[str]
) -> None:
    parts.fit.heldout_r2 = {}
    parts.fit.r2_position, parts.fit.r2_position_cluster = 0.2, 0.25
    parts.fit.controls = {"shuffled_added": shuffled}
    assert said(module._clusters(parts), "no more than shuffled ones do") == doubted


def test_a_circuit_is_doubted_for_its_ends_and_where_other_images_give_another(
    parts: LayerParts,
) -> None:
    assert parts.circuit is not None
    first = replace(parts.circuit.paths[0], dst_kind="patch")
    special = [replace(first, dst_kind=kind) for kind in ("prefix", "sink", "sink")]
    parts.circuit.paths = [*special[:2], *[first] * 6]
    assert said(module._circuit(parts), "end at class, register or sink") == []
    parts.circuit.paths = [*special, *[first] * 5]
    assert said(module._circuit(parts), "3 of the circuit's 8 edges end at") == ["caution"]
    assert said(module._circuit(parts), "`--bootstrap 50`") == ["caution"]
    for jaccard, levels in ((0.5, []), (0.49, ["serious"])):
        parts.circuit.stability = {"jaccard": jaccard}
        found = module._circuit(parts)
        assert said(found, "share only 49%") == levels
        assert said(found, "--bootstrap") == []
    parts.circuit.paths = []
    assert said(module._circuit(parts), "the circuit is empty") == ["serious"]


def test_clusters_are_unstable_below_a_rand_index_of_their_own_number(parts: LayerParts) -> None:
    run = RunParts(root=Path("run"), layers=[parts])
    same = {"method": parts.features.method, "prefix": parts.features.prefix}
    for ari, levels in ((0.7, []), (0.69, ["serious"]), (None, [])):
        rows = [{"num_clusters": 4, "ari": ari}, {"num_clusters": 9, "ari": 0.1}]
        stability: Any = Some(rows=rows, provenance=Some(options=same))
        run.stability = stability
        assert said(module._unstable(run), "are not stable") == levels
        assert said(module._unstable(run), "nobody checked") == []
    run.stability = None
    assert said(module._unstable(run), "nobody checked") == ["caution"]


def test_a_study_of_other_clusters_says_nothing_of_these(parts: LayerParts) -> None:
    run = RunParts(root=Path("run"), layers=[parts])
    same = {"method": parts.features.method, "prefix": parts.features.prefix}
    for options, clusters in (
        ({**same, "method": "another"}, 4),
        ({**same, "prefix": "another"}, 4),
        (same, 9),
    ):
        rows = [{"num_clusters": clusters, "ari": 0.1}]
        stability: Any = Some(rows=rows, provenance=Some(options=options))
        run.stability = stability
        assert said(module._unstable(run), "nobody checked") == ["caution"]
        assert said(module._unstable(run), "are not stable") == []


def test_a_live_test_is_doubted_for_its_images_its_size_and_its_ranking() -> None:
    live: Any = Some(heldout=True, num_images=50, full_effect={"cosine": 0.01}, completeness={})
    live.objective = {"kind": "embedding"}
    assert module._live(live, "weight") == []
    live.heldout, live.num_images, live.full_effect = False, 49, {"cosine": 0.0099}
    found = module._live(live, "weight")
    assert [doubt.level for doubt in found] == ["serious", "caution", "caution"]
    live.completeness = {"removed": 0.1, "pvalue": 0.06, "random_mean": 0.02, "random_high": 0.2}
    assert said(module._live(live, "weight"), "Rank by `reach` instead.") == ["serious"]
    assert said(module._live(live, "reach"), "Rank by `reach` instead.") == []
    live.completeness["pvalue"] = 0.05
    assert said(module._live(live, "weight"), "the listed circuit") == []


def test_edges_without_a_test_are_serious_where_they_are_most(parts: LayerParts) -> None:
    run = RunParts(root=Path("run"), layers=[parts])
    used = (parts.fit.support[:, None, :].expand(parts.fit.prototypes.shape) > 0).flatten()
    places = used.nonzero().flatten()
    for without, level in ((len(places) // 2, "caution"), (len(places) // 2 + 1, "serious")):
        parts.fit.edge_zscores[:], parts.fit.edge_pvalues[:] = 1.0, 0.5
        parts.fit.edge_zscores.view(-1)[places[:without]] = 0.0
        parts.fit.edge_pvalues.view(-1)[places[:without]] = 1.0
        (found,) = module._tests(run)
        assert found.level == level
        assert found.text.startswith(f"{without:,} of {len(places):,} edges (")


def test_what_is_serious_comes_first(parts: LayerParts) -> None:
    pictures: Any = Some(record=Some(skipped=3), reason="they are gone")
    parts.features.heldout = []
    found = doubts(RunParts(root=Path("run"), layers=[parts]), pictures)
    levels = [doubt.level for doubt in found]
    assert levels == sorted(levels, key=lambda level: level != "serious")
    assert {"serious", "caution"} == set(levels)
    assert said(found, "Nothing was held out") == ["serious"]
    assert said(found, "Only 12 images: rare") == ["serious"]
    assert said(found, "3 images could not be read.") == ["caution"]
    assert said(found, "No image is shown: they are gone.") == ["caution"]


def test_what_is_missing_is_said_of_the_folders_that_lack_it(parts: LayerParts) -> None:
    run = RunParts(root=Path("run"), layers=[parts, parts])
    run.missing = {"causal.json: effects": ["a"], "graph.json: paths": ["a", "b"]}
    run.missing["intervene.json: the live model"] = ["a", "b"]
    found = [doubt.text for doubt in module._missing(run)]
    assert found == ["Missing in a: causal.json: effects.", "Missing: graph.json: paths."]


def test_few_held_out_images_are_doubted_and_a_doubt_names_its_layers(parts: LayerParts) -> None:
    pictures: Any = Some(record=None, reason="")
    lone = RunParts(root=Path("run"), layers=[parts])
    assert said(doubts(lone, pictures), "Only 2 images were held out.") == ["caution"]
    assert said(doubts(lone, pictures), "The live model was not asked") == ["serious"]
    parts.features.heldout = list(range(50))
    assert said(doubts(lone, pictures), "images were held out.") == []
    other = replace(parts, fit=replace(parts.fit, provenance=moved(parts, 5)))
    assert parts.circuit is not None
    other.circuit = replace(parts.circuit, paths=[])
    both = RunParts(root=Path("run"), layers=[parts, other])
    texts = [doubt.text for doubt in doubts(both, pictures)]
    assert "Layer 5: the circuit is empty." in texts
    assert any(text.startswith("Every layer: the live model was not asked") for text in texts)


def moved(parts: LayerParts, layer: int) -> Any:
    return replace(parts.fit.provenance, layer=layer, next_layer=layer + 1)


def test_more_than_all_of_a_few_random_sets_is_no_proof_against_the_ranking() -> None:
    live: Any = Some(heldout=True, num_images=50, full_effect={}, objective={"kind": "embedding"})
    live.completeness = {"removed": 0.3, "pvalue": 0.25, "random_mean": 0.02, "random_high": 0.2}
    assert said(module._live(live, "weight"), "of which too few sets were drawn") == ["caution"]
    live.completeness["random_high"] = 0.3
    assert said(module._live(live, "weight"), "no more than random edges of like") == ["serious"]


def test_of_several_layers_the_one_with_most_edges_without_a_test_is_named(
    parts: LayerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(parts, fit=replace(parts.fit, provenance=moved(parts, 5)))
    counts = {2: (3, 10), 5: (9, 90)}
    monkeypatch.setattr(module, "untestable", lambda each: counts[each.layer])
    (found,) = module._tests(RunParts(root=Path("run"), layers=[parts, other]))
    assert found.text.startswith("12 of 100 edges (12%) are not testable")
    assert found.text.endswith("The largest share is of layer 2 (30%).")


def test_a_doubt_of_layers_and_of_all_together_is_said_once(parts: LayerParts) -> None:
    pictures: Any = Some(record=None, reason="")
    few: Any = Some(heldout=True, num_images=8, full_effect={}, completeness={}, objective={})
    other = replace(parts, fit=replace(parts.fit, provenance=moved(parts, 5)))
    both = RunParts(root=Path("run"), layers=[parts, other], intervention=few)

    def told() -> list[str]:
        return [each.text for each in doubts(both, pictures) if "only 8 images" in each.text]

    words = "effects in the running model are means over only 8 images."
    assert told() == [f"All layers together: {words}"]
    other.intervention = few
    assert told() == [f"Layer 5 and all layers together: {words}"]
    parts.intervention = few
    assert told() == [f"Every layer and all layers together: {words}"]
    both.intervention = None
    assert told() == [f"Every layer: {words}"]
