"""Prefix tokens in clusters of their own."""

import pytest
import torch

from xaikit.errors import UsageError
from xaikit.statistics.prefix import prefix_clusters

NAMES = ("class token", "register 1", "register 2", "distillation token")


def test_each_kind_has_a_cluster_numbered_last() -> None:
    shared = prefix_clusters(16, NAMES)
    assert shared.kinds == ("class token", "register", "distillation token")
    assert shared.patch_clusters == 13
    assert shared.labels.tolist() == [13, 14, 14, 15]
    assert prefix_clusters(16, ("reg_1", "reg_2")).kinds == ("reg",)


def test_labels_of_prefix_tokens_come_before_those_of_the_patches() -> None:
    joined = prefix_clusters(5, ("class token",)).join(torch.tensor([[0, 3], [2, 1]]))
    assert joined.tolist() == [[4, 0, 3], [4, 2, 1]]


@pytest.mark.parametrize(("names", "prefix"), [((), "own"), (NAMES, "mixed")])
def test_without_prefix_tokens_own_is_mixed(names: tuple[str, ...], prefix: str) -> None:
    shared = prefix_clusters(3, names, prefix)
    assert (shared.patch_clusters, shared.tokens, shared.kinds) == (3, 0, ())
    assert shared.join(torch.tensor([[2, 0]])).tolist() == [[2, 0]]


def test_too_few_clusters_say_how_many_are_needed() -> None:
    with pytest.raises(UsageError, match=r"`num_clusters=3` .*class token, register.*pass 4"):
        prefix_clusters(3, NAMES)
    assert prefix_clusters(4, NAMES).patch_clusters == 1


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(UsageError, match="`prefix=other`: expected one of own, mixed"):
        prefix_clusters(8, NAMES, "other")
