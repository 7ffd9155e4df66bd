"""Settings laid over each other: what is known best wins, and says where it is from."""

from __future__ import annotations

import pytest

from xaikit.towers.settings import (
    Decision,
    of_open_clip,
    of_timm,
    open_clip_defaults,
    to_preprocess,
)


def test_later_settings_win_name_by_name():
    decision = Decision()
    decision.take({"mean": (0.1,) * 3, "std": (0.2,) * 3, "mode": "squash"}, "a config")
    decision.take({"mean": (0.5,) * 3, "resize": 256}, "given")
    assert decision.values == {
        "mean": (0.5,) * 3,
        "std": (0.2,) * 3,
        "mode": "squash",
        "resize": 256,
    }
    assert decision.sources == {
        "mean": "given",
        "std": "a config",
        "mode": "a config",
        "resize": "given",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", (0.5, 0.5, 0.5)),
        ("std", (0.25, 0.25, 0.25)),
        ("mode", "squash"),
        ("interpolation", "nearest"),
        ("resize", 300),
        ("fill", 9),
    ],
)
def test_what_is_known_wins_over_the_defaults(name, value):
    defaults = open_clip_defaults()
    assert defaults[name] != value
    made = to_preprocess({name: value, "activation": "gelu"}, (224, 224))
    assert getattr(made, name) == value
    for other in defaults.keys() - {name, "activation"}:
        assert getattr(made, other) == defaults[other]


def test_configs_are_read():
    found = of_open_clip({"resize_mode": "longest", "fill_color": 3, "interpolation": "random"})
    assert found == {"mode": "longest", "fill": 3, "interpolation": "bicubic"}
    assert of_open_clip({"quick_gelu": False}) == {"activation": "gelu"}
    assert of_timm({"crop_pct": 0.9}, (224, 224)) == {"mode": "shortest", "resize": 248}
    squash = of_timm({"crop_pct": 1.0, "crop_mode": "squash"}, (224, 224))
    assert squash == {"mode": "squash", "resize": None}


def test_a_crop_of_which_only_the_mode_is_said_is_timm_s_default():
    assert of_timm({"crop_mode": "center"}, (224, 224)) == {"mode": "shortest", "resize": 256}
    assert of_timm({"crop_mode": "squash"}, (224, 224)) == {"mode": "squash", "resize": 256}
    assert of_timm({"crop_pct": 0.9}, (224, 448))["resize"] == 248
    assert of_timm({}, (224, 224)) == {}


def test_what_is_known_is_not_asked_of_tags():
    decision = Decision().take({"mean": (0.1,) * 3, "std": (0.2,) * 3}, "a config")
    tags = {"a": {"mean": (0.3,) * 3, "std": (0.4,) * 3}, "b": {"mean": (0.5,) * 3}}
    decision.take_agreed(tags, {"mean", "std"})
    assert decision.doubts == []
    assert decision.values["mean"] == (0.1,) * 3
    decision.take_agreed(tags, {"std"})
    assert [name for name, _ in decision.doubts] == ["mean"]
    assert decision.sources == {"mean": "a config", "std": "a config"}


def test_what_tags_disagree_on_is_doubted_once():
    decision = Decision().take(open_clip_defaults(), "default")
    decision.take_agreed({"a": {"mean": (0.3,) * 3}, "b": {"mean": (0.5,) * 3}}, set())
    decision.doubt_unknown()
    assert [name for name, _ in decision.doubts] == ["mean", "std"]
    said = decision.warning("m with w.pt")
    assert said is not None
    assert said.count("mean: ") == said.count("std: ") == 1
    assert said.endswith("Otherwise pass --like-tag TAG, --mean, --std")
    decision.take({"mean": (0.0,) * 3, "std": (1.0,) * 3}, "given")
    assert decision.warning("m with w.pt") is None
