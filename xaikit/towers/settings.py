"""How images are prepared and which activation runs: what is known of the weights, and from where.

A setting is taken from the source that knows most about the weights: what the user says, a
pretrained tag, a config beside the file, what the file itself shows, and then the tags of the
model's name where they agree. Where they disagree or there is nothing, one warning says what is
used and what changes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from xaikit.artifacts.preprocess import Preprocess

Settings = dict[str, Any]
"""Some of mean, std, mode, interpolation, resize, fill, crop, activation and norm_eps."""

ACTIVATIONS = ("gelu", "quick_gelu", "gelu_tanh")
IMAGE_FIELDS = ("mean", "std", "mode", "interpolation", "resize", "fill", "crop")
_WORDS = {
    "mean": "mean",
    "std": "std",
    "mode": "resize mode",
    "interpolation": "interpolation",
    "resize": "resize",
    "activation": "activation",
}
_ARGUMENTS = {
    "mean": "mean",
    "std": "std",
    "mode": "resize_mode",
    "resize": "resize",
    "activation": "quick_gelu",
}
_FLAGS = {"like_tag": "--like-tag TAG", "quick_gelu": "--quick-gelu or --no-quick-gelu"}
_NAMES = {"gelu": "GELU", "quick_gelu": "QuickGELU", "gelu_tanh": "GELU (tanh)"}


def of_open_clip(config: Mapping[str, Any]) -> Settings:
    """Read a pretrained tag's settings, a `preprocess_cfg` or a `model_cfg` of open_clip."""
    found: Settings = {}
    for ours, theirs in (
        ("mean", "mean"),
        ("std", "std"),
        ("mode", "resize_mode"),
        ("interpolation", "interpolation"),
        ("fill", "fill_color"),
    ):
        value = config.get(theirs)
        if value is not None:
            found[ours] = tuple(value) if isinstance(value, (list, tuple)) else value
    if "interpolation" in found:
        found["interpolation"] = _interpolation(found["interpolation"])
    if config.get("quick_gelu") is not None:
        found["activation"] = "quick_gelu" if config["quick_gelu"] else "gelu"
    return found


def open_clip_defaults() -> Settings:
    """What open_clip does where nothing is said."""
    return of_open_clip(merge_preprocess_dict(PreprocessCfg(), {})) | {
        "resize": None,
        "crop": "round",
    }


def of_timm(config: Mapping[str, Any], image_size: tuple[int, int]) -> Settings:
    """Read a `pretrained_cfg` of timm.

    timm resizes the shorter side (where it squashes, both) to ``floor(size / crop_pct)`` before
    the centre crop.
    """
    found: Settings = {}
    for name in ("mean", "std"):
        if config.get(name) is not None:
            found[name] = tuple(float(value) for value in config[name])
    if config.get("interpolation"):
        found["interpolation"] = _interpolation(config["interpolation"])
    if config.get("crop_pct") or config.get("crop_mode"):
        squash = config.get("crop_mode") == "squash"
        resize = math.floor(min(image_size) / (config.get("crop_pct") or 0.875))
        found["mode"] = "squash" if squash else "shortest"
        found["resize"] = None if resize <= min(image_size) else resize
    return found


def to_preprocess(settings: Mapping[str, Any], image_size: tuple[int, int]) -> Preprocess:
    """Make the preprocessing that settings describe; what they leave out is open_clip's."""
    merged = open_clip_defaults() | {
        name: value for name, value in settings.items() if name in IMAGE_FIELDS
    }
    return Preprocess(size=image_size, **{name: merged[name] for name in IMAGE_FIELDS})


def _interpolation(name: str) -> str:
    # timm and open_clip train with random interpolation in places; they evaluate with bicubic.
    return "bicubic" if name == "random" else name


@dataclass
class Decision:
    """Settings with their sources.

    Attributes
    ----------
    values : dict
    sources : dict of str to str
        Where each value is from.
    doubts : list of (str, str)
        What nothing is known of, and why, in words.
    tagged : bool
        Whether the model's name has pretrained tags.
    """

    values: Settings = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    doubts: list[tuple[str, str]] = field(default_factory=list)
    tagged: bool = False

    def take(self, settings: Mapping[str, Any], source: str) -> Decision:
        """Overlay settings: later ones win."""
        for name, value in settings.items():
            self.values[name] = value
            self.sources[name] = source
        return self

    def take_agreed(self, tags: Mapping[str, Settings], known: set[str]) -> None:
        """Overlay what all tags of a name agree on; doubt the rest, unless it is known."""
        self.tagged = True
        names = {name for settings in tags.values() for name in settings} - known
        for name in sorted(names):
            by_value: dict[Any, list[str]] = {}
            for tag, settings in tags.items():
                by_value.setdefault(settings.get(name), []).append(tag)
            if len(by_value) > 1:
                sides = "; ".join(
                    f"{word(name, value)}: {', '.join(names[:2])}" + ", …" * (len(names) > 2)
                    for value, names in by_value.items()
                )
                self.doubts.append((name, f"its tags disagree ({sides})"))
                continue
            value = next(iter(by_value))
            if name == "activation" and self.values.get(name) not in (None, value):
                own = word(name, self.values[name])
                why = f"its tags say {word(name, value)} and its config says {own}"
                self.doubts.append((name, why))
            self.take({name: value}, "all tags of the name")

    def doubt_unknown(self) -> None:
        """Doubt what only a default decides, of what images depend on most."""
        doubted = {name for name, _ in self.doubts}
        names = [n for n in ("mean", "std") if self.sources.get(n) == "default"]
        self.doubts += [(n, "nothing says how it was") for n in names if n not in doubted]

    def warning(self, subject: str, *, arguments: bool = False) -> str | None:
        """One line about all doubts: what is used, and what changes it.

        Parameters
        ----------
        subject : str
            The model and the file.
        arguments : bool
            Name arguments of `xaikit.load_tower` in place of flags of the command line.
        """
        left = [(n, why) for n, why in self.doubts if self.sources.get(n) != "given"]
        if not left:
            return None
        whys = "; ".join(
            f"{', '.join(_WORDS.get(n, n) for n, each in left if each == why)}: {why}"
            for why in dict.fromkeys(why for _, why in left)
        )
        names = list(dict.fromkeys(name for name, _ in left))
        used = ", ".join(f"{_WORDS.get(n, n)} {word(n, self.values.get(n))}" for n in names)
        changes = ["like_tag"] if self.tagged else []
        changes += [_ARGUMENTS[name] for name in names if name in _ARGUMENTS]
        if not arguments:
            changes = [_FLAGS.get(c, f"--{c.replace('_', '-')}") for c in changes]
        return (
            f"{subject}: it is not known how the weights were trained ({whys}). Used: {used}. "
            f"Otherwise pass {', '.join(dict.fromkeys(changes))}"
        )

    def record(self) -> dict[str, Any]:
        """Every setting with its source, as JSON has it."""
        return {
            name: {"value": self.values[name], "from": self.sources[name]}
            for name in sorted(self.values)
        }


def word(name: str, value: Any) -> str:
    """A setting in words."""
    if name == "activation":
        return _NAMES.get(value, str(value))
    if isinstance(value, tuple):
        return ",".join(f"{part:.4g}" for part in value)
    return "none" if value is None else str(value)
