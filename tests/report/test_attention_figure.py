"""The picture of where the class token attends, and of the patches where there is none."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import numpy as np
import pytest

from xaikit.report.attention_figure import _words
from xaikit.report.page.explained import mean_rows


@pytest.mark.parametrize(
    ("kinds", "own", "who"),
    [
        (("class token", "register 1"), 0, "the class token attends"),
        (("register 1", "class token"), 1, "the class token attends"),
        (("register 1",), None, "patches attend, on average"),
        ((), None, "patches attend, on average"),
    ],
)
def test_attention_is_the_class_token_s_or_the_mean_of_the_patches(
    kinds: tuple[str, ...], own: int | None, who: str
) -> None:
    """Registers come before the patches, and are no class token."""
    attention = np.random.default_rng(0).random((2, 3, 6, 6))
    info = Some(prefix_kinds=kinds, prefix_tokens=len(kinds), model="a model")
    found: Any = Some(seen=Some(attention=attention), tower=Some(info=info), name="an image")
    expected = attention[:, :, len(kinds) :].mean(2) if own is None else attention[:, :, own]
    np.testing.assert_allclose(mean_rows(found), expected)
    assert f"where {who}," in _words(found)
