"""Guided clusters learnt from a trace: what they hold, what they promise, what they refuse."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_trace
from torch import Tensor

from xaikit.artifacts.storage import Storage
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import QUERIES_KEYS, Trace
from xaikit.distributed import World
from xaikit.errors import UsageError, XaikitError
from xaikit.images.scenes import SceneSource
from xaikit.passes import guided
from xaikit.passes.feed import SeenBlock, StoredFeed, chunks
from xaikit.passes.feed import _StoredAttention as StoredAttention
from xaikit.passes.guided import learn_guided_clusters, learning_images
from xaikit.passes.guided_visitors import MomentSums
from xaikit.passes.plan import own_blocks
from xaikit.run.measure import model_measure
from xaikit.run.options import Options
from xaikit.run.run_all import run_all
from xaikit.run.subject import Subject
from xaikit.stages import trace as recording
from xaikit.stages.causal import causal
from xaikit.stages.circuit import circuit
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal
from xaikit.statistics.prefix import prefix_clusters
from xaikit.towers import load_tower

IMAGES, HEADS, TOKENS, DIM, FFN = 40, 2, 9, 4, 24


def planted(seed: int = 0, images: int = IMAGES, *, position_only: bool = False) -> Trace:
    """Three kinds of patches that open their own gates and have their own queries and keys.

    With `position_only`, kinds sit at the same places in every image and no query or key depends
    on what an image shows there.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, (images, TOKENS))
    if position_only:
        kinds = np.tile(np.arange(TOKENS) % 3, (images, 1))
    rates = np.full((3, FFN), 0.3)
    for kind in range(3):
        rates[kind, kind * 3 : kind * 3 + 3] = 0.95
    gates = (rng.random((images, TOKENS, FFN)) < rates[kinds]).astype(np.uint8)
    parts = []
    for _ in QUERIES_KEYS:
        own = 2.0 * rng.normal(size=(3, HEADS, DIM))
        place = rng.normal(size=(TOKENS, HEADS, DIM))
        noise = 0.0 if position_only else 0.2 * rng.normal(size=(images, TOKENS, HEADS, DIM))
        found = own[kinds] + place + noise
        parts.append(torch.from_numpy(found).transpose(1, 2).half())
    query, key = (part.float() for part in parts)
    trace = make_trace(query @ key.transpose(2, 3), torch.from_numpy(gates))
    tensors = dict(zip(QUERIES_KEYS, parts, strict=True))
    whole = {
        "h_l": trace.h_l,
        "ffn_gate_l": trace.ffn_gate_l,
        "attn_logits_l1": trace.attn_logits_l1,
        "residual_norms_l1": torch.ones(images, TOKENS),
    }
    return Trace.from_tensors(trace.info, whole | tensors)


def learnt(trace: Trace, **options: object) -> Features:
    return cluster(trace, num_clusters=4, method="guided", **options)  # type: ignore[arg-type]


def purity(labels: Tensor, gates: Tensor) -> float:
    """Share of patches whose three own gates say what their cluster's majority says."""
    kinds = gates[..., :9].unflatten(-1, (3, 3)).sum(-1).argmax(-1).flatten()
    flat = labels.flatten()
    return float(
        sum(torch.bincount(kinds[flat == k], minlength=3).max() for k in flat.unique().tolist())
        / len(flat)
    )


def test_clusters_follow_what_gates_predict_of_attention() -> None:
    trace = planted()
    found = learnt(trace)
    assert purity(found.labels[:, 1:], trace.ffn_gate_l[:, 1:]) > 0.9
    assert found.kinds == ["class token"]
    assert set(found.labels[:, 0].tolist()) == {3}
    assert set(found.labels[:, 1:].flatten().tolist()) == {0, 1, 2}
    sizes = torch.bincount(found.labels.flatten(), minlength=4)
    assert torch.equal(sizes, found.cluster_sizes)


def test_centroids_are_the_mean_gates_of_the_learning_tokens() -> None:
    trace = planted()
    found = learnt(trace, holdout=0.25)
    labels, gates = found.labels[found.discovery], trace.ffn_gate_l[found.discovery].float()
    for k in range(4):
        torch.testing.assert_close(found.centroids[k], gates[labels == k].mean(0))


def test_labels_follow_from_the_file_alone(tmp_path: Path) -> None:
    trace = planted()
    found = learnt(trace)
    found.save(tmp_path / "features.safetensors")
    again = Features.load(tmp_path / "features.safetensors")
    assert again.identity == found.identity
    assert again.projection is not None
    assert again.projection.shape == (FFN, 4)
    z = trace.ffn_gate_l[:, 1:].double() @ again.projection.double() - again.offset.double()
    nearest = (z.unsqueeze(-2) - again.leaf_means.double()).square().sum(-1).argmin(-1)
    assert torch.equal(nearest, found.labels[:, 1:])


def test_no_seed_enters() -> None:
    trace = planted()
    assert torch.equal(learnt(trace).labels, learnt(trace, start_seed=7).labels)
    assert torch.equal(learnt(trace).labels, learnt(trace, seed=7).labels)


def test_mixed_clusters_the_class_token_like_a_patch() -> None:
    found = learnt(planted(), prefix="mixed")
    assert found.kinds == []
    assert len(set(found.labels[:, 0].tolist())) > 1


def test_a_trace_without_queries_and_keys_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no queries and keys.*`store_qk=True`"):
        learnt(make_trace(torch.randn(6, 2, 5, 5)))


def test_too_few_clusters_for_the_prefix_are_refused() -> None:
    with pytest.raises(UsageError, match="`num_clusters=1` leaves none for the patches"):
        cluster(planted(), num_clusters=1)


def test_many_images_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided, "LEARNING_IMAGES", 5)
    assert learning_images(range(0, 42, 2)) == [0, 10, 20, 30, 40]
    assert learning_images([3, 1]) == [1, 3]
    assert purity(learnt(planted()).labels[:, 1:], planted().ffn_gate_l[:, 1:]) > 0.8


def test_gates_that_predict_attention_through_position_alone_do_not_fool_it() -> None:
    trace = planted(position_only=True)
    found = learnt(trace)
    assert not found.projection.any()  # type: ignore[union-attr]
    assert set(found.labels[:, 1:].flatten().tolist()) == {0}


def test_without_held_out_images_no_test_is_given(tmp_path: Path) -> None:
    trace = planted()
    features = learnt(trace)
    found = fit(trace, features)
    assert not found.testable
    for table in (found.edge_zscores, found.edge_pvalues, found.edge_qvalues):
        assert torch.isnan(table).all()
    found.save(tmp_path / "fit.safetensors")
    assert not Fit.load(tmp_path / "fit.safetensors").testable
    edges = circuit(found, top_k=5)
    assert edges.significant is None
    assert all(e.pvalue is None and e.qvalue is None and e.zscore is None for e in edges.paths)
    effects = causal(features, found).effects
    assert all(e.ablation_pvalue is None and e.injection_qvalue is None for e in effects)
    tested = target_causal(trace, features, found, edges).effects
    assert all(e.edge_pvalue is None and e.alignment_pvalue is None for e in tested)
    for name, artifact in (("circuit", edges), ("causal", causal(features, found))):
        artifact.save(tmp_path / f"{name}.json")
    assert '"pvalue":null' in (tmp_path / "circuit.json").read_text().replace(" ", "")


def test_with_held_out_images_tests_are_given_and_prefix_edges_cannot_be_tested() -> None:
    trace = planted()
    features = learnt(trace, holdout=0.5)
    found = fit(trace, features)
    assert found.testable
    assert (found.edge_pvalues <= 0.01).any()
    # The class token's cluster sits at the same token in every image.
    assert found.untestable[3].all()
    assert not found.untestable[:3].any()
    edges = circuit(found, top_k=1000).paths
    assert all(edge.testable == (edge.cluster_id != 3) for edge in edges)
    effects = {e.cluster_id: e for e in causal(features, found).effects}
    assert not effects[3].ablation_testable
    assert effects[0].ablation_testable
    to_clusters = fit(trace, features, destination="cluster")
    assert to_clusters.untestable[3, :, 3].all()
    assert not to_clusters.untestable[3, :, :3].any()


def test_a_filter_by_discovery_tests_is_refused() -> None:
    trace = planted()
    found = fit(trace, learnt(trace, holdout=0.5))
    with pytest.raises(UsageError, match="`max_qvalue=` filters by tests on the images"):
        circuit(found, max_qvalue=0.05)


@pytest.mark.parametrize("prefix", ["own", "mixed"])
def test_kmeans_gives_prefix_tokens_clusters_by_position(prefix: str) -> None:
    trace = planted()
    found = cluster(trace, num_clusters=5, prefix=prefix, sample_tokens=100)
    own = prefix == "own"
    assert (set(found.labels[:, 0].tolist()) == {4}) == own
    assert (4 in found.labels[:, 1:].unique().tolist()) != own
    if own:
        assert torch.equal(
            (found.labels[:, 1:].unsqueeze(-1) == torch.arange(5)).sum((0, 1))[:4],
            found.cluster_sizes[:4],
        )
        assert float(found.centroids[4].sum()) > 0


def test_blocks_of_one_forward_pass_show_their_gates_first() -> None:
    trace = planted(images=6)
    shared = prefix_clusters(4, ("class token",))
    one, two = (MomentSums(range(6), shared) for _ in range(2))
    blocks = [SeenBlock(each, each.images) for each in chunks(np.arange(6), 2)]

    def show(visitor: MomentSums, block: SeenBlock) -> None:
        rows = block.images
        visitor.attention(block, StoredAttention(trace, rows))

    for block in blocks:
        one.gates(block, trace.gates_of(block.images))
        show(one, block)
        two.gates(block, trace.gates_of(block.images))
    for block in blocks:
        show(two, block)
    assert one.sums is not None
    assert two.sums is not None
    for name, total in one.sums.totals.items():
        assert torch.equal(total, two.sums.totals[name])


def test_moments_go_on_after_an_interruption() -> None:
    trace = planted(images=6)
    shared = prefix_clusters(4, ("class token",))
    blocks = [SeenBlock(each, each.images) for each in chunks(np.arange(6), 2)]
    whole, first, second = (MomentSums(range(6), shared) for _ in range(3))
    second.load(first.state())
    assert second.sums is None

    def show(visitor: MomentSums, block: SeenBlock) -> None:
        visitor.gates(block, trace.gates_of(block.images))
        visitor.attention(block, StoredAttention(trace, block.images))

    for block in blocks:
        show(whole, block)
    show(first, blocks[0])
    second.load({name: each.clone() for name, each in first.state().items()})
    for block in blocks[1:]:
        show(second, block)
    assert whole.sums is not None
    assert second.sums is not None
    for name, total in whole.sums.totals.items():
        assert torch.equal(total, second.sums.totals[name]), name
    # Nothing of a block is kept once it was seen.
    assert whole._held == []


def test_inertia_is_the_mean_squared_distance_of_gates_to_their_cluster_s_mean() -> None:
    trace = planted()
    found = learnt(trace)
    gates, labels = trace.ffn_gate_l[:, 1:].double(), found.labels[:, 1:]
    means = torch.stack([gates[labels == k].mean(0) for k in range(3)])
    squared = (gates - means[labels]).square().sum(-1).mean()
    assert found.inertia == pytest.approx(float(squared), rel=1e-6)
    assert found.distinct_points == len(found.leaf_means)  # type: ignore[arg-type]


def test_queries_that_are_no_numbers_in_half_precision_are_refused() -> None:
    trace = planted(images=6)
    shard = trace._shards[0]
    assert shard.tensors is not None
    shard.tensors["queries_l1"][3, 0, 4, 1] = torch.inf
    with pytest.raises(XaikitError, match="queries or keys of layer 3 are not finite in half"):
        learnt(trace)


@pytest.mark.parametrize("stream", [False, True])
def test_stored_and_streamed_runs_of_any_batch_size_give_the_same_features(
    tmp_path: Path, stream: bool
) -> None:
    tower, source = load_tower("xaikit-demo", None), SceneSource(24, 0)
    shared = {"num_clusters": 6, "rank": "energy", "intervene": False, "num_permutations": 9}
    stored = run_all(tower, source, out_dir=tmp_path / "a", layers=[1], options=Options(**shared))
    options = Options(**shared, stream=stream, batch_size=7, null_block=4)
    other = run_all(tower, source, out_dir=tmp_path / "b", layers=[1], options=options)
    one, two = stored[0].features, other[0].features
    assert one.method == "guided"
    assert one.provenance.options["measured"]
    for name in ("labels", "projection", "offset", "leaf_means", "centroids"):
        assert torch.equal(getattr(one, name), getattr(two, name)), name


def test_asking_the_model_gives_equal_clusters_for_any_number_of_threads() -> None:
    tower, source = load_tower("xaikit-demo", None), SceneSource(20, 0)
    made = recording.trace(tower, source, target_layer=1, storage=Storage(store_qk=True))
    measure = model_measure(Subject(tower=tower, source=source, options=Options().settled()))
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(cluster(made, num_clusters=6, method="guided", measure=measure))
    finally:
        torch.set_num_threads(threads)
    for name in ("labels", "projection", "offset", "leaf_means", "centroids"):
        assert torch.equal(getattr(found[0], name), getattr(found[1], name)), name


class _Meeting:
    """Where two processes' messages meet, the processes being threads here."""

    def __init__(self) -> None:
        self.barrier, self.slots = threading.Barrier(2, timeout=60), [{}, {}]


class _Half(World):
    """One of two processes."""

    def __init__(self, rank: int, meeting: _Meeting) -> None:
        super().__init__(rank=rank, size=2)
        object.__setattr__(self, "meeting", meeting)

    def _exchange(self, mine: object) -> list:
        self.meeting.slots[self.rank] = mine
        self.meeting.barrier.wait()
        found = list(self.meeting.slots)
        self.meeting.barrier.wait()
        return found

    def gather(self, tensors):
        found = self._exchange({k: v.clone() for k, v in tensors.items()})
        return found if self.leads else []

    def broadcast(self, tensors):
        return self._exchange(tensors)[0]


class _SharedFeed(StoredFeed):
    """A trace whose blocks two processes share out as they do those of a running model."""

    def __init__(self, trace: Trace, world: World) -> None:
        super().__init__(trace)
        self.world = world

    def visit(self, blocks, visitors, **more):
        super().visit(own_blocks(blocks, self.world), visitors)


@pytest.mark.parametrize("images", [IMAGES, 3])
def test_two_processes_learn_what_one_does(images: int) -> None:
    trace = planted(images=images)
    pair, shared = (trace.layer, trace.next_layer), prefix_clusters(4, ("class token",))
    meeting, found = _Meeting(), {}
    blocks = [replace(each, group=each.number) for each in chunks(np.arange(images), 7)]

    def learn(rank: int, world: World) -> None:
        feed = _SharedFeed(trace, world)
        clusters, means = learn_guided_clusters(feed, [pair], range(images), shared, blocks=blocks)
        found[rank] = {**clusters[pair].tensors(), "means": means[pair]}

    learn(2, World())
    threads = [threading.Thread(target=learn, args=(r, _Half(r, meeting))) for r in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, tensor in found[2].items():
        assert torch.equal(found[0][name], tensor), name
        assert torch.equal(found[1][name], tensor), name


def test_strengths_of_several_processes_are_put_in_the_order_of_images() -> None:
    def strengths(*images: int) -> dict[int, Tensor]:
        return {image: torch.full((2, 3), float(image)) for image in images}

    class Shared(World):
        def gather(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
            nothing = {"images": torch.zeros(0, dtype=torch.int64)}
            other = {
                "images": torch.tensor([0, 5]),
                "strengths": torch.stack(list(strengths(0, 5).values())),
            }
            return [tensors, nothing, other]

    found = guided._gathered(strengths(7, 2), Shared(0, 3))
    assert found[:, 0].tolist() == [0, 0, 2, 2, 5, 5, 7, 7]
