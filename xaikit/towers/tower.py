"""A vision tower: the original module, and where its parts are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xaikit.artifacts.preprocess import Preprocess
from xaikit.errors import UsageError
from xaikit.towers.built import compiled, running_eagerly, vision_of
from xaikit.towers.families import FAMILIES, BlockParts, Outputs
from xaikit.towers.fingerprints import fingerprint
from xaikit.towers.info import TowerInfo, tower_info
from xaikit.towers.known import module_settings
from xaikit.towers.settings import to_preprocess

if TYPE_CHECKING:
    from jaxtyping import Float

    from xaikit.towers.text import TextSide

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precisions a tower can run in."""


@dataclass(kw_only=True, repr=False)
class Tower:
    """A vision transformer that xaikit can read and edit.

    The module is the one that open_clip or timm built: nothing in it is replaced. It is in
    evaluation mode and none of its parameters asks for a gradient, so gradients flow only from
    what an edit introduces.

    Attributes
    ----------
    info : TowerInfo
    module : nn.Module
        The vision module (an open_clip `visual`, or a timm model with its head).
    blocks : list of BlockParts
        Block, attention, FFN and FFN activation of every layer.
    preprocess : Preprocess
        How pixels become the module's input.
    pretrained : str
        Where the weights come from, as given.
    precision : str
        ``float32``, ``bfloat16`` or ``float16``.
    text : TextSide, optional
        The text tower, where it was asked for.
    computes : tuple of str
        What the tower computes otherwise than its model's config says; part of the fingerprint.
    loaded : dict
        Where the weights, the preprocessing and the activation came from, as JSON has it; empty
        for a tower that was not loaded.
    eager : bool
        Whether compiled parts of the module have to run as plain Python.
    checked : dict, optional
        What `xaikit.towers.believe` found.
    """

    info: TowerInfo
    module: nn.Module
    blocks: list[BlockParts]
    preprocess: Preprocess
    pretrained: str = "unnamed"
    precision: str = "float32"
    text: TextSide | None = None
    fingerprint: str | None = field(default=None, repr=False)
    computes: tuple[str, ...] = ()
    loaded: dict[str, Any] = field(default_factory=dict, repr=False)
    eager: bool = False
    checked: dict[str, Any] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        """Say what it is in one line; the module has hundreds."""
        info = self.info
        return (
            f"<Tower {info.model} ({self.pretrained}): {info.layers} layers, {info.heads} heads, "
            f"{info.tokens} tokens, width {info.width}, {self.precision} on {self.device}>"
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format the module computes in."""
        return DTYPES[self.precision]

    @property
    def weights_fingerprint(self) -> str:
        """Hash of the vision module's weights as they were loaded, before any cast."""
        if self.fingerprint is None:
            self.fingerprint = fingerprint(self.module.state_dict(), *self.computes)
        return self.fingerprint

    def outputs(self, pixels: Float[Tensor, "batch 3 height width"]) -> Outputs:
        """Run the module once.

        Parameters
        ----------
        pixels : Tensor
            Normalised images ``[B, 3, height, width]``, on any device.

        Returns
        -------
        Outputs
            `embedding` ``[B, D]`` float32 (a timm model: the features before its head) and
            `class_logits` ``[B, C]`` float32, or None where there is no classifier head.
        """
        self.check_pixels(pixels)
        pixels = pixels.to(self.device, self.dtype)
        with running_eagerly(self.eager):
            return FAMILIES[self.info.family].outputs(self.module, pixels)

    def encode(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Image embeddings ``[B, D]``, float32, not normalised."""
        return self.outputs(pixels).embedding

    def classifier(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Class logits ``[B, C]`` of the model's own head.

        Raises
        ------
        UsageError
            If the model has no classifier head.
        """
        logits = self.outputs(pixels).class_logits
        if logits is None:
            raise UsageError(
                f"{self.info.model} has no classifier head; pass prompts for a zero-shot "
                "classifier instead"
            )
        return logits

    def check_layer(self, layer: int, what: str = "layer") -> None:
        """Raise a UsageError unless `layer` is one of this tower's."""
        if not 0 <= layer < self.info.layers:
            raise UsageError(
                f"{what} {layer} is out of range: {self.info.model} has layers 0 to "
                f"{self.info.layers - 1}"
            )

    def check_pixels(self, pixels: Tensor) -> None:
        """Raise a UsageError unless `pixels` has the shape this tower takes."""
        expected = (3, *self.info.image_size)
        if tuple(pixels.shape[1:]) != expected:
            raise UsageError(
                f"{self.info.model} takes pixels of shape [B, {', '.join(map(str, expected))}], "
                f"not {list(pixels.shape)}"
            )


def wrap_tower(
    module: nn.Module,
    *,
    model: str,
    family: str | None = None,
    preprocess: Preprocess | None = None,
    pretrained: str = "unnamed",
) -> Tower:
    """Make a tower of a vision module that is already built.

    Parameters
    ----------
    module : nn.Module
        An open_clip model or its `visual`, or a timm model; also inside DataParallel,
        torch.compile or peft.
    model : str
        Name to record and to use in messages.
    family : str, optional
        ``open_clip`` or ``timm``; default: what the module is of.
    preprocess : Preprocess, optional
        Default: what the module carries (open_clip's `preprocess_cfg`, timm's data config), and
        else its input size with mean and standard deviation 0.5.

    Returns
    -------
    Tower
        Around the vision module itself, which is put into evaluation mode with frozen parameters.

    Raises
    ------
    UsageError
        If the family is unknown or not the module's; the message says what to pass.
    XaikitError
        If the module is no plain vision transformer; the message says why.
    """
    if family is not None and family not in FAMILIES:
        raise UsageError(f"family {family!r} is none of {', '.join(FAMILIES)}")
    part: Any
    part, found = vision_of(module)
    if family not in (None, found):
        raise UsageError(f"{type(part).__name__} is of family {found!r}, not {family!r}")
    blocks = FAMILIES[found].blocks(part, model)
    part.eval().requires_grad_(False)
    for inner in part.modules():
        # TIMM_FUSED_ATTN=0 would have the modules write out the attention, out of xaikit's sight.
        if getattr(inner, "fused_attn", True) is False:
            inner.fused_attn = True
    info = tower_info(part, blocks, model=model, family=found)
    if preprocess is None:
        own = module_settings(part, found, info.image_size)
        half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        preprocess = to_preprocess(own or half, info.image_size)
    return Tower(
        info=info,
        module=part,
        blocks=blocks,
        preprocess=preprocess,
        pretrained=pretrained,
        precision=_precision(part, model),
        eager=compiled(part),
    )


def _precision(module: nn.Module, model: str) -> str:
    dtype = next(p.dtype for p in module.parameters() if p.is_floating_point())
    for name, known in DTYPES.items():
        if known == dtype:
            return name
    raise UsageError(
        f"{model} has weights of {str(dtype).removeprefix('torch.')}: convert it to one of "
        f"{', '.join(DTYPES)}"
    )
