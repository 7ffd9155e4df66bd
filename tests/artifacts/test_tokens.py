"""Words for tokens."""

from __future__ import annotations

from xaikit.artifacts.tokens import (
    cluster_kind,
    cluster_names,
    prefix_groups,
    short_names,
    token_name,
)

KINDS = ("class token", "distillation token", "register 1", "register 2")


def test_a_token_is_a_prefix_token_or_a_place_in_the_grid():
    assert [token_name(token, KINDS, (2, 3)) for token in (0, 3, 4, 9)] == [
        "class token",
        "register 2",
        "patch (0, 0)",
        "patch (1, 2)",
    ]
    assert token_name(0, (), (2, 3)) == "patch (0, 0)"
    assert token_name(4, KINDS, ()) == "token 4"


def test_registers_are_one_kind():
    assert prefix_groups(KINDS) == [
        ("class token", [0]),
        ("distillation token", [1]),
        ("register", [2, 3]),
    ]
    assert prefix_groups(()) == []


def test_short_names_for_axes():
    assert short_names(KINDS) == ["CLS", "DIST", "R1", "R2"]
    assert short_names(("register 1",)) == ["R1"]
    assert short_names(("class token", "register")) == ["CLS", "REG"]


def test_the_last_clusters_are_called_by_the_prefix_tokens_that_they_are():
    kinds = ["class token", "register"]
    assert cluster_names(4, kinds) == ["cluster 0", "cluster 1", "class token", "register"]
    assert [cluster_kind(k, 4, kinds) for k in range(4)] == ["", "", *kinds]
    assert cluster_names(2, []) == ["cluster 0", "cluster 1"]
