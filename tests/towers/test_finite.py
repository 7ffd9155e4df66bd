"""Logits that are no numbers are refused by image, layer and head."""

from __future__ import annotations

import pytest
import torch

from xaikit.errors import XaikitError
from xaikit.towers import AttentionCall
from xaikit.towers.finite import require_finite_call, require_finite_logits

SAID = "an attention logit of layer 4 of image image 1, head 2 is not finite: check the weights"


def name(row):
    return f"image {row}"


@pytest.mark.parametrize("part", ["query", "key"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_query_or_a_key_that_is_no_number_is_named(part, value):
    call = AttentionCall(*torch.randn(3, 3, 4, 5, 2))
    require_finite_call(call, 4, name)
    for image, head in ((1, 2), (2, 0)):
        getattr(call, part)[image, head, 3, 1] = value
    with pytest.raises(XaikitError, match=SAID):
        require_finite_call(call, 4, name)


def test_numbers_whose_sum_alone_is_none_are_numbers():
    call = AttentionCall(*torch.full((3, 3, 4, 5, 2), 3e38))
    require_finite_call(call, 4, name)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_the_first_logit_that_is_no_number_is_named(value):
    logits = torch.randn(3, 4, 5, 5)
    require_finite_logits(logits, 4, name)
    for image, head in ((1, 2), (1, 3), (2, 0)):
        logits[image, head, 3, 1] = value
    with pytest.raises(XaikitError, match=SAID):
        require_finite_logits(logits, 4, name)
