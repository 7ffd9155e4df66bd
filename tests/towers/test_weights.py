"""What is known of weights: from the file itself, from beside it, from the tags of its name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
import torch
from torch import nn

from xaikit.towers import fitting as fits
from xaikit.towers import weights as module
from xaikit.towers.fitting import Fitted, Reading, load_weights
from xaikit.towers.known import Beside
from xaikit.towers.reading import Content
from xaikit.towers.settings import Decision
from xaikit.towers.unwrapping import Found
from xaikit.towers.weights import Weights

SIZE = (16, 16)
FITTED = Fitted(file="w.pt", form="torch checkpoint", where="", names="transformers' SiglipModel")


def weights_of(monkeypatch: pytest.MonkeyPatch, *beside: Beside, **tags: dict[str, Any]) -> Any:
    """A file with configs beside it, of a name that has tags."""
    monkeypatch.setattr(module, "tags_of", lambda spec: list(tags))
    monkeypatch.setattr(module, "tag_settings", lambda spec, tag, size: tags[tag])
    monkeypatch.setattr(module, "beside", lambda path, size: list(beside))
    found: Any = Weights.__new__(Weights)
    found.spec = Some(name="m", family="open_clip", timm_name=None, registered=True, tag=None)
    found.path, found.fitted, found.tag = Path("w.pt"), None, None
    return found


def known(weights: Any, layers: int = 3, **values: Any) -> Decision:
    """What is decided once all that is known of the file was taken."""
    decision = Decision().take({"mean": 0, "std": 0, "activation": "gelu", **values}, "default")
    blocks: Any = Some(blocks=[None] * layers)
    weights._take_known(decision, blocks, SIZE)
    return decision


def test_what_the_file_shows_is_not_asked_of_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"mean": 1, "std": 1}
    weights = weights_of(
        monkeypatch, a=tags | {"activation": "gelu"}, b=tags | {"activation": "quick_gelu"}
    )
    assert [name for name, _ in known(weights).doubts] == ["activation"]
    weights.fitted = Fitted(**{**vars(FITTED), "activation": "gelu_tanh", "norm_eps": 1e-6})
    decision = known(weights)
    assert decision.doubts == []
    assert (decision.values["activation"], decision.values["norm_eps"]) == ("gelu_tanh", 1e-6)
    assert decision.sources["activation"] == "transformers' SiglipModel"
    assert decision.sources["mean"] == "all tags of the name"
    # A module whose activation is none that is known keeps it.
    assert known(weights, activation=None).values["activation"] is None


def test_the_first_config_of_the_same_sizes_is_believed_before_any_tag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Beside(file="config.json", settings={"mean": 9}, sizes={"layers": 12})
    own = Beside(file="open_clip_config.json", settings={"mean": 5}, sizes={"layers": 3})
    later = Beside(file="later.json", settings={"mean": 7, "std": 7})
    weights = weights_of(monkeypatch, other, own, later, a={"mean": 1, "std": 2}, b={"mean": 3})
    decision = known(weights)
    assert (decision.values["mean"], decision.sources["mean"]) == (5, "open_clip_config.json")
    assert [name for name, _ in decision.doubts] == ["std"]


@pytest.mark.parametrize(
    ("own", "tag", "trunk", "found"),
    [
        ("quick_gelu", {"quick_gelu": False}, None, "quick_gelu"),
        ("gelu", {"quick_gelu": True}, None, "quick_gelu"),
        ("gelu", {"quick_gelu": True}, "vit_tiny", "gelu"),
        ("gelu", {}, None, "gelu"),
    ],
)
def test_a_tag_says_quickgelu_or_nothing(
    monkeypatch: pytest.MonkeyPatch, own: str, tag: dict[str, bool], trunk: str | None, found: str
) -> None:
    monkeypatch.setattr(module, "_own_activation", lambda _module: own)
    weights = weights_of(monkeypatch)
    weights.spec = Some(
        name="m", family="open_clip", timm_name=trunk, registered=True, dialect="", preprocess={}
    )
    weights.tag, weights.name = {"mean": (0.5,) * 3, **tag}, "a tag"
    decision = weights._defaults(None, SIZE)
    assert decision.values["activation"] == found
    assert (decision.values["mean"], decision.sources["mean"]) == ((0.5,) * 3, "tag a tag")


def test_activation_and_norm_are_put_into_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(module, "set_activation", lambda _m, name: done.append(name) or True)
    monkeypatch.setattr(module, "set_norm_eps", lambda _m, eps: done.append(eps))
    weights = weights_of(monkeypatch)
    weights.activation = None
    empty: Any = None
    weights._apply(Decision(values={"activation": "gelu_tanh", "norm_eps": 1e-6}), empty)
    assert done == ["gelu_tanh", 1e-6]
    assert weights.activation == "gelu_tanh"
    weights._apply(Decision(values={"activation": None}), empty)
    assert done == ["gelu_tanh", 1e-6]


@pytest.mark.parametrize(
    ("named", "archived", "found"),
    [("gelu_tanh", "quick_gelu", "gelu_tanh"), (None, "quick_gelu", "quick_gelu")],
)
def test_what_names_say_of_the_model_wins_over_the_file_s_classes(
    monkeypatch: pytest.MonkeyPatch, named: str | None, archived: str, found: str
) -> None:
    linear = nn.Linear(2, 2)
    state = {name: value.detach().clone() for name, value in linear.state_dict().items()}
    reading = Reading(
        state=state,
        found=Found(state=state, path=("model",)),
        prefix="visual.",
        activation=named,
        norm_eps=1e-6,
        note="a note",
    )
    monkeypatch.setattr(fits, "_best", lambda _module, _content: (reading, ""))
    content = Content(file="w.pt", form="torch checkpoint", tree={}, activation=archived)
    fitted = load_weights(linear, content)
    assert (fitted.activation, fitted.norm_eps) == (found, 1e-6)
    assert (fitted.where, fitted.notes, fitted.left_out) == ("model › visual.", ["a note"], 0)


def test_apple_s_own_names_become_those_of_the_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "_mobileclip_names", lambda state, trunk: {"blocks.0.x": state[MARK]})
    wrapped, plain = Some(trunk=Some()), Some()
    state = {MARK: torch.ones(1)}
    assert fits._mobileclip(wrapped, state) == {"visual.trunk.blocks.0.x": state[MARK]}
    assert fits._mobileclip(plain, state) is state
    other = {"visual.conv1.weight": torch.ones(1)}
    assert fits._mobileclip(wrapped, other) is other


MARK = "image_encoder.model.patch_emb.0.block.conv.weight"
