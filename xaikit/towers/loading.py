"""From a name and a source of weights to a tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from xaikit.artifacts.preprocess import Preprocess
from xaikit.errors import UsageError, XaikitError
from xaikit.towers.building import build_module
from xaikit.towers.checkpoints import load_vision_state, read_checkpoint
from xaikit.towers.downloads import downloads
from xaikit.towers.preprocessing import (
    Triple,
    open_clip_preprocess,
    override,
    timm_preprocess,
)
from xaikit.towers.registry import DEMO, ModelSpec, require_supported, resolve
from xaikit.towers.tower import DTYPES, Tower, wrap_tower

RANDOM = "random"
_FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".tar")


def load_tower(
    model: str,
    pretrained: str | Path | None = None,
    *,
    device: str = "cpu",
    precision: str = "float32",
    with_text: bool = False,
    seed: int = 0,
    mean: Triple | None = None,
    std: Triple | None = None,
    resize: int | None = None,
    check: bool = False,
) -> Tower:
    """Load the vision tower of a model.

    Parameters
    ----------
    model : str
        An open_clip name, ``xaikit-demo``, ``timm/NAME``, or an open_clip model config (``.json``).
    pretrained : str or Path, optional
        A tag, a checkpoint (``.safetensors`` or a torch file of plain tensors; a full CLIP or the
        vision tower alone), or ``random``. None: the demo's weights, or ``timm/NAME.TAG``'s.
    device : str
        A torch device.
    precision : str
        ``float32``, ``bfloat16`` or ``float16``; what is handed out is float32 whatever it is.
    with_text : bool
        Also load the text tower and its tokenizer, into ``tower.text``.
    seed : int
        Of random weights.
    mean, std, resize : optional
        Normalisation, and shorter side before the crop in pixels, in place of the model's own.
    check : bool
        Run `self_check` on one image of noise and refuse a tower that fails it.

    Raises
    ------
    UsageError
        If an argument names nothing that exists; the message says what does.
    XaikitError
        If the model is refused, or its weights cannot be had or do not fit.
    """
    if precision not in DTYPES:
        raise UsageError(f"precision {precision!r} is none of {', '.join(DTYPES)}")
    target = _device(device)
    spec = resolve(model)
    require_supported(spec)
    source = _Source(spec, None if pretrained is None else str(pretrained), seed)
    module = source.module()
    tower = wrap_tower(module, model=spec.name, family=spec.family, pretrained=source.name)
    preprocess = source.preprocess(tower.module, tower.info.image_size)
    tower.preprocess = override(preprocess, mean=mean, std=std, resize=resize)
    if with_text:
        from xaikit.towers.text import load_text

        tower.text = load_text(spec, source, tower, target)
    _place(tower, target, precision)
    if check:
        from xaikit.towers.selfcheck import require_check

        require_check(tower)
    return tower


class _Source:
    """Where the weights come from: resolved once, then read by each tower that needs them."""

    def __init__(self, spec: ModelSpec, pretrained: str | None, seed: int) -> None:
        self.spec = spec
        self.seed = seed
        self.tag: dict[str, Any] | None = None
        self.path: Path | None = None
        if pretrained is None and spec.name == DEMO:
            from xaikit import demo

            self.name, self.path = DEMO, demo.WEIGHTS
            return
        self.name = pretrained or spec.tag or ""
        if self.name == RANDOM:
            return
        if not self.name:
            raise UsageError(f"{spec.name} needs weights: {self._choices()}")
        self.tag = _tag_settings(spec, self.name)
        if self.tag is not None:
            return
        if Path(self.name).is_file():
            self.path = Path(self.name)
        elif self.name.endswith(_FILE_ENDINGS):
            raise UsageError(f"checkpoint {self.name} does not exist")
        else:
            raise UsageError(
                f"{self.name!r} is no pretrained tag of {spec.name}: {self._choices()}"
            )

    @property
    def random(self) -> bool:
        return self.name == RANDOM

    @property
    def quick_gelu(self) -> bool | None:
        """The activation that a tag's weights were trained with, which a config may not say."""
        return None if self.tag is None else bool(self.tag.get("quick_gelu", False))

    def _choices(self) -> str:
        tags = _tags(self.spec)
        some = ", ".join(tags[:4]) + (f" and {len(tags) - 4} more" if len(tags) > 4 else "")
        named = f"one of its tags ({some}), " if tags else ""
        return f"pass {named}a local checkpoint, or {RANDOM!r} for seeded random weights"

    def module(self) -> nn.Module:
        """The vision module with its weights."""
        if self.spec.family == "timm" and self.tag is not None:
            return self._timm_pretrained()
        path = None if self.random else self.checkpoint()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module = build_module(self.spec, quick_gelu=self.quick_gelu)
        if path is not None:
            load_vision_state(module, read_checkpoint(path), f"checkpoint {path.name}")
        return module

    def checkpoint(self) -> Path:
        """The checkpoint's file, downloaded where the weights are a tag's."""
        if self.path is None:
            from open_clip.pretrained import download_pretrained

            try:
                with downloads():
                    self.path = Path(download_pretrained(self.tag or {}))
            except Exception as error:
                raise self._unavailable(error) from None
        return self.path

    def _timm_pretrained(self) -> nn.Module:
        import timm

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

    def preprocess(self, module: nn.Module, image_size: tuple[int, int]) -> Preprocess:
        if self.spec.family == "timm":
            return timm_preprocess(module, image_size)
        return open_clip_preprocess(image_size, self.spec.preprocess, self.tag)


def _tags(spec: ModelSpec) -> list[str]:
    if spec.family == "timm":
        import timm

        names = timm.list_pretrained(f"{spec.timm_name}.*")
        return [name.partition(".")[2] for name in names]
    import open_clip

    return open_clip.list_pretrained_tags_by_model(spec.name) if spec.registered else []


def _tag_settings(spec: ModelSpec, tag: str) -> dict[str, Any] | None:
    """Settings of a pretrained tag; None where the model has no such tag."""
    if spec.family == "timm":
        return {} if tag in _tags(spec) else None
    import open_clip

    # open_clip itself reads laion2B-s34B-b79K as laion2b_s34b_b79k.
    settings = open_clip.get_pretrained_cfg(spec.name, tag) if spec.registered else None
    return dict(settings) if settings else None


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} cannot be used: {reason}") from None
    return device


def _place(tower: Tower, device: torch.device, precision: str) -> None:
    tower.precision = precision
    if precision == "float32":
        tower.module.to(device)
        return
    # The fingerprint names the weights, not the precision they are run in.
    tower.fingerprint = tower.weights_fingerprint
    # A rotary table loses its angles in half precision, and the modules cast after applying it.
    tables = {
        id(module): dict(module.named_buffers(recurse=False))
        for name, module in tower.module.named_modules()
        if name.rpartition(".")[2] == "rope"
    }
    tower.module.to(device, tower.dtype)
    for module in tower.module.modules():
        for name, table in tables.get(id(module), {}).items():
            setattr(module, name, table.to(device))
