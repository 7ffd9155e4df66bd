"""Images in the middle of the model: their names, and numbers that are none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from planted_run import planted_run

from xaikit.errors import XaikitError
from xaikit.interventions import Live, Patch, live
from xaikit.interventions.batch import LiveBatch
from xaikit.towers import Outputs


def batch(embedding: torch.Tensor) -> LiveBatch:
    """Images 4 and 2 of a run, without edited layers."""
    own: Any = SimpleNamespace(ids=list("abcdef"))
    cache: Any = SimpleNamespace(outputs=lambda: Outputs(embedding=embedding, class_logits=None))
    return LiveBatch(live=own, images=[4, 2], sites=[], cache=cache)


def test_a_number_that_is_none_is_refused_by_the_name_of_its_image() -> None:
    found = batch(torch.tensor([[1.0, 2.0], [3.0, torch.nan]]))
    found.__dict__["calls"] = []
    assert [found.name(row) for row in (0, 1)] == ["e", "c"]
    with pytest.raises(XaikitError, match="the embedding of image c is not finite"):
        _ = found.clean
    assert batch(torch.ones(2, 2)).clean.embedding.tolist() == [[1, 1], [1, 1]]


def test_an_effect_that_is_no_number_is_refused_with_its_metric() -> None:
    seen = batch(torch.ones(2, 2))
    seen.__dict__["calls"] = []
    object.__setattr__(seen, "cache", SimpleNamespace(outputs=lambda edit: edit))
    own: Any = SimpleNamespace(
        images=[4, 2],
        metrics=("cosine", "kl"),
        batches=lambda: [seen],
        _changes=lambda _batch, edited: {"cosine": torch.zeros(2).double(), "kl": edited},
    )

    def measured(*kl: torch.Tensor) -> Any:
        return Live.measure(own, [Patch(size=len(kl), edits=lambda _batch: list(kl))])

    fine = torch.tensor([0.5, 0.25]).double()
    assert measured(fine, 2 * fine)[0]["kl"].tolist() == [[0.5, 0.25], [1.0, 0.5]]
    with pytest.raises(XaikitError, match="the kl of an edit of image c is not finite"):
        measured(fine, torch.tensor([0.5, torch.inf]).double())


def test_an_image_that_can_no_longer_be_read_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out, it would shift the effects of all images after it."""
    asked: dict[str, Any] = {}

    def batches(*_: Any, **given: Any) -> list[Any]:
        asked.update(given)
        return []

    monkeypatch.setattr(live, "iter_batches", batches)
    run = planted_run("token", images=16)
    assert list(run.live([3, 1], batch_size=5).batches()) == []
    assert (asked["strict"], asked["indices"], asked["batch_size"]) == (True, [3, 1], 5)


def test_the_partners_logits_of_all_edited_layers_share_the_room() -> None:
    sites = [SimpleNamespace(shape=(3, heads, 5), labels=torch.zeros(2, 10)) for heads in (4, 12)]
    options = SimpleNamespace(batch_size=10**6)
    own: Any = SimpleNamespace(_partners=[1], options=options, sites=sites)
    room: Any = Live.batch_size.fget  # type: ignore[attr-defined]
    assert room(own) == live.PARTNER_BYTES // (4 * (4 + 12) * 10**2)
    own._partners = []
    assert room(own) == 10**6
