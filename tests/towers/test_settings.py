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
