"""What may stand in a file, by the name and the kind of each field."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import pytest

from xaikit.artifacts.schema import require_schema
from xaikit.errors import UsageError


class Made(TypedDict):
    """A record with fields of every kind of rule."""

    pvalue: float
    size: int
    mode: str
    shares: list[float]
    effects: list[float]
    dst_token: int | None
    dst_cluster: int | None
    note: NotRequired[str]


RIGHT: dict[str, Any] = {
    "pvalue": 1.0,
    "size": 0,
    "mode": "keep",
    "shares": [0.1, 1.0],
    "effects": [3.0, -2.0],
    "dst_token": 0,
    "dst_cluster": None,
}


def test_what_is_right_is_read() -> None:
    require_schema("f", RIGHT, "fit", Made, whole=False)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pvalue": 1.1}, "pvalue is 1.1, expected a number in"),
        ({"pvalue": "1"}, "pvalue is '1', expected a number"),
        ({"size": -1}, "size is -1, expected a whole number of 0 or more"),
        ({"size": 2**63}, "size is .*, expected a whole number"),
        ({"size": True}, "size is True, expected a whole number"),
        ({"mode": "both"}, "mode is 'both', expected remove or keep"),
        ({"shares": [0.1, 1.5]}, r"shares\[1\] is 1.5, expected a number in"),
        ({"effects": [3.0]}, "effects has not one number for each of its shares"),
        ({"dst_cluster": 1}, "expected either a dst_token or a dst_cluster"),
        ({"dst_token": None}, "expected either a dst_token or a dst_cluster"),
        ({"note": 3}, "note is 3, expected a text"),
    ],
)
def test_what_a_field_cannot_be_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        require_schema("f", {**RIGHT, **changed}, "fit", Made, whole=False)


def test_attention_is_of_a_layer_after_that_of_the_gates() -> None:
    text = dict.fromkeys(
        ("identity", "xaikit_version", "model", "pretrained", "weights_fingerprint"), "x"
    )
    shared = {**text, "images_fingerprint": "x", "layer": 2, "options": {}, "parents": {}}
    require_schema("f", {**RIGHT, **shared, "next_layer": 3}, "fit", Made)
    with pytest.raises(UsageError, match="next_layer is 2, expected one after layer 2"):
        require_schema("f", {**RIGHT, **shared, "next_layer": 2}, "fit", Made)
