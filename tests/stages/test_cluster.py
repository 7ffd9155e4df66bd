"""Which images clusters are learnt from."""

from __future__ import annotations

import pytest
import torch
from conftest import make_trace

from xaikit.artifacts.options import checked
from xaikit.errors import UsageError
from xaikit.stages import cluster as module
from xaikit.stages.cluster import ClusterOptions, cluster, half_of


@pytest.mark.parametrize("count", [2, 7, 40])
def test_halves_share_no_image_and_leave_none_out(count: int) -> None:
    images = list(range(3, 3 * count, 3))
    one, other = half_of(images, 5, 0), half_of(images, 5, 1)
    assert not set(one) & set(other)
    assert sorted(one + other) == images
    assert abs(len(one) - len(other)) <= 1
    assert (one, other) == (sorted(one), sorted(other))
    if count == 40:
        assert one != images[::2]
        assert one != half_of(images, 6, 0)


@pytest.mark.parametrize("method", ["kmeans", "guided"])
def test_a_half_is_one_of_the_discovery_images_alone(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    seen: list[list[int]] = []

    class Learnt(Exception):  # noqa: N818
        """What is learnt from is known."""

    def sampled(images, *_args, **_more):
        seen.append([int(image) for image in images])
        raise Learnt

    monkeypatch.setattr(module.SamplePlan, "make", sampled)
    monkeypatch.setattr(
        module, "learn_guided_clusters", lambda _feed, _pairs, images, *a, **k: sampled(images)
    )
    trace = make_trace(torch.zeros(20, 1, 4, 4))
    for half in (None, 0, 1):
        with pytest.raises(Learnt):
            cluster(trace, num_clusters=3, holdout=0.5, half=half, method=method)
    whole, one, other = seen
    assert len(whole) == 10
    assert sorted(one + other) == whole
    assert (len(one), len(other)) == (5, 5)


def test_each_kind_of_prefix_token_is_a_cluster_unless_they_are_mixed() -> None:
    trace = make_trace(torch.zeros(6, 1, 7, 7))
    trace.info.prefix_kinds = ["class token", "register 1", "register 2"]
    own = cluster(trace, num_clusters=5, prefix="own")
    assert own.kinds == ["class token", "register"]
    assert own.labels[:, :3].tolist() == [[3, 4, 4]] * 6
    assert int(own.labels[:, 3:].max()) < 3
    mixed = cluster(trace, num_clusters=5, prefix="mixed")
    assert mixed.kinds == []
    assert len(set(mixed.labels[:, 0].tolist())) > 1


def test_the_sample_and_the_starts_have_a_seed_of_their_own_where_one_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The split keeps the run's seed, and goes by the images' folders."""
    seen: list[tuple] = []

    class Asked(Exception):  # noqa: N818
        """What is asked for is known."""

    def sampled(_images, _tokens, _count, seed, **_more):
        seen.append(("sample", seed))

    def learnt(_feed, _pairs, _plan, _shared, seed, **_more):
        seen.append(("starts", seed))
        raise Asked

    def split(ids, groups, holdout, seed):
        seen.append(("split", groups, holdout, seed))
        return {"discovery": list(range(8)), "heldout": [8, 9]}

    monkeypatch.setattr(module.SamplePlan, "make", sampled)
    monkeypatch.setattr(module, "learn_clusters", learnt)
    monkeypatch.setattr(module, "split_candidates", split)
    folders = ["cat"] * 5 + ["dog"] * 5
    trace = make_trace(torch.zeros(10, 1, 4, 4), groups=folders)
    for start, used in ((None, 3), (7, 7), (0, 0)):
        seen.clear()
        with pytest.raises(Asked):
            cluster(trace, num_clusters=3, holdout=0.2, seed=3, start_seed=start)
        assert seen == [("split", folders, 0.2, 3), ("sample", used), ("starts", used)]


def test_as_many_clusters_as_tokens_and_as_sampled_ones_are_not_too_many() -> None:
    options = ClusterOptions(num_clusters=12, sample_tokens=12)
    checked(options).check_rows(12)
    with pytest.raises(UsageError, match="at most the 11 tokens"):
        options.check_rows(11)
    with pytest.raises(UsageError, match="one token for each of the 12 clusters"):
        checked(ClusterOptions(num_clusters=12, sample_tokens=11))


def test_guided_clusters_ask_the_model_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):  # noqa: N818
        """What is asked is known."""

    def learnt(*_given, measure, **_more):
        raise Asked(measure)

    monkeypatch.setattr(module, "learn_guided_clusters", learnt)
    trace = make_trace(torch.zeros(6, 1, 4, 4))
    with pytest.raises(Asked, match="the model"):
        cluster(trace, num_clusters=3, method="guided", measure="the model")
