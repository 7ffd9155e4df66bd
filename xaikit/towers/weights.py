"""Where the weights of a model come from: a tag, a file, a folder, or a seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from open_clip.pretrained import download_pretrained
from torch import nn

from xaikit import demo
from xaikit.errors import UsageError, XaikitError
from xaikit.towers.activations import activation_of, set_activation, set_norm_eps
from xaikit.towers.building import build_module
from xaikit.towers.downloads import downloads
from xaikit.towers.fitting import Fitted, load_weights
from xaikit.towers.folders import folder_of
from xaikit.towers.hf_configs import model_settings
from xaikit.towers.hf_processors import processor_settings
from xaikit.towers.known import beside, tag_config, tag_settings, tags_of
from xaikit.towers.reading import Content, read_content
from xaikit.towers.settings import Decision, Settings, of_open_clip, of_timm, open_clip_defaults
from xaikit.towers.spec import DEMO, ModelSpec

RANDOM = "random"
_FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".tar")


class Weights:
    """Where the weights come from: resolved once, then read by each tower that needs them.

    Attributes
    ----------
    name : str
        As given.
    tag : dict, optional
        The library's settings of a pretrained tag.
    path : Path, optional
        The file, once it is known.
    fitted : Fitted, optional
        How the file's weights were put into the module.
    activation : str, optional
        What took the place of the activation of the model's config.
    """

    def __init__(
        self, spec: ModelSpec, pretrained: str | None, seed: int, like_tag: str | None = None
    ) -> None:
        self.spec = spec
        self.seed = seed
        self.like_tag = like_tag
        self.tag: dict[str, Any] | None = None
        self.path: Path | None = None
        self.fitted: Fitted | None = None
        self.activation: str | None = None
        self._content: Content | None = None
        if pretrained is None and spec.name == DEMO:
            self.name, self.path = DEMO, demo.WEIGHTS
            return
        self.name = pretrained or spec.tag or (spec.folder.name if spec.folder else "")
        if self.name == RANDOM:
            return
        if not self.name:
            raise UsageError(f"{spec.name} needs weights: {self._choices()}")
        self.tag = tag_config(spec, self.name)
        if self.tag is None:
            self.path = self._file()

    @property
    def random(self) -> bool:
        """Whether there are none, but those the constructor draws."""
        return self.name == RANDOM

    def _file(self) -> Path:
        own = self.spec.folder
        folder = own if own is not None and own.name == self.name else folder_of(self.name)
        if folder is not None:
            return folder.weights()
        if Path(self.name).is_file():
            return Path(self.name)
        if self.name.endswith(_FILE_ENDINGS):
            raise UsageError(f"checkpoint {self.name} does not exist")
        raise UsageError(
            f"{self.name!r} is no pretrained tag of {self.spec.name}: {self._choices()}"
        )

    def _choices(self) -> str:
        tags = tags_of(self.spec)
        some = ", ".join(tags[:4]) + (f" and {len(tags) - 4} more" if len(tags) > 4 else "")
        named = f"one of its tags ({some}), " if tags else ""
        return (
            f"pass {named}a local checkpoint, hf-hub:ORG/NAME, local-dir:PATH, or {RANDOM!r} for "
            "seeded random weights"
        )

    def module(self) -> nn.Module:
        """The vision module with its weights, and with the activation of its config."""
        if self.spec.family == "timm" and self.tag is not None:
            return self._timm_pretrained()
        content = None if self.random else self.content()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module = build_module(self.spec)
        if content is not None:
            self.fitted = load_weights(module, content)
        return module

    def content(self) -> Content:
        """What the file holds, downloaded where the weights are a tag's."""
        if self._content is None:
            self._content = read_content(self.checkpoint())
        return self._content

    def checkpoint(self) -> Path:
        """The file itself."""
        if self.path is None:
            try:
                with downloads():
                    self.path = Path(download_pretrained(self.tag or {}))
            except Exception as error:
                raise self._unavailable(error) from None
        return self.path

    def forget(self) -> None:
        """Let go of the file's tensors."""
        self._content = None

    def _timm_pretrained(self) -> nn.Module:
        try:
            with downloads():
                return timm.create_model(f"{self.spec.timm_name}.{self.name}", pretrained=True)
        except Exception as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> XaikitError:
        return XaikitError(
            f"the weights {self.name!r} of {self.spec.name} are not cached here and cannot be "
            f"downloaded ({type(error).__name__}); pass a local checkpoint, or {RANDOM!r} for "
            "seeded random weights"
        )

    def decide(self, module: nn.Module, image_size: tuple[int, int], given: Settings) -> Decision:
        """Choose preprocessing and activation, and put the activation into the module.

        Parameters
        ----------
        module : nn.Module
        image_size : tuple of int
        given : dict
            What the user decided.
        """
        decision = self._defaults(module, image_size)
        local = self.tag is None and not self.random and self.name != DEMO
        if self.like_tag is not None:
            like = tag_settings(self.spec, self.like_tag, image_size)
            decision.take(like, f"--like-tag {self.like_tag}")
        elif local:
            self._take_known(decision, module, image_size)
        decision.take(given, "given")
        self._apply(decision, module)
        return decision

    @property
    def subject(self) -> str:
        """The model and its file, in words."""
        return f"{self.spec.name} with {self.path.name if self.path else self.name}"

    def _defaults(self, module: Any, image_size: tuple[int, int]) -> Decision:
        spec, decision = self.spec, Decision()
        decision.take(open_clip_defaults(), "default")
        decision.take({"activation": _own_activation(module)}, f"the config of {spec.name}")
        if spec.family == "timm" and spec.registered:
            config = self.tag or (tag_config(spec, spec.tag) if spec.tag else None)
            named = f"tag {self.name if self.tag else spec.tag}" if config else "default"
            own: Mapping[str, Any] = config or getattr(module, "pretrained_cfg", None) or {}
            return decision.take(of_timm(own, image_size), named)
        decision.take(_config_settings(spec, image_size), f"the config of {spec.name}")
        if self.tag is not None:
            settings = of_open_clip(self.tag)
            if spec.timm_name is not None or not self.tag.get("quick_gelu"):
                # open_clip's tags say "no QuickGELU" where they say nothing.
                settings.pop("activation", None)
            decision.take(settings, f"tag {self.name}")
        return decision

    def _take_known(
        self, decision: Decision, module: nn.Module, image_size: tuple[int, int]
    ) -> None:
        """What is known of a file: from configs beside it, from itself, from the name's tags."""
        known = {name for name, source in decision.sources.items() if source.startswith("tag ")}
        fitted = self.fitted
        if fitted is not None:
            seen: Settings = {}
            if fitted.activation and decision.values.get("activation"):
                seen["activation"] = fitted.activation
            if fitted.norm_eps:
                seen["norm_eps"] = fitted.norm_eps
            decision.take(seen, fitted.names or fitted.form)
            known |= set(seen)
        for config in beside(self.checkpoint(), image_size):
            if not _same_sizes(module, config.sizes):
                continue
            decision.take(config.settings, config.file)
            known |= set(config.settings)
            break
        tags = {tag: tag_settings(self.spec, tag, image_size) for tag in tags_of(self.spec)}
        if tags:
            decision.take_agreed(tags, known)
        decision.doubt_unknown()

    def _apply(self, decision: Decision, module: nn.Module) -> None:
        activation = decision.values.get("activation")
        if activation is not None and set_activation(module, activation):
            self.activation = activation
        if "norm_eps" in decision.values:
            set_norm_eps(module, decision.values["norm_eps"])


def _own_activation(module: nn.Module) -> str | None:
    found = (activation_of(part) for part in module.modules())
    return next((name for name in found if name is not None), None)


def _config_settings(spec: ModelSpec, image_size: tuple[int, int]) -> Settings:
    if spec.dialect == "transformers":
        config, processor = spec.preprocess["config"], spec.preprocess["processor"]
        return model_settings(config) | processor_settings(processor, image_size)
    if spec.dialect == "timm":
        return of_timm(spec.preprocess, image_size)
    return of_open_clip(spec.preprocess)


def _same_sizes(module: Any, sizes: Mapping[str, int]) -> bool:
    core: Any = getattr(module, "trunk", module)
    blocks = getattr(core, "blocks", None) or getattr(core, "transformer", core)
    layers = len(getattr(blocks, "resblocks", blocks))
    return sizes.get("layers", layers) == layers
