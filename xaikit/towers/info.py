"""What there is to know about a tower without running it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from xaikit.artifacts.tokens import token_name
from xaikit.towers.families import FAMILIES, BlockParts


@dataclass(frozen=True, kw_only=True)
class TowerInfo:
    """What there is to know about a tower without running it.

    Attributes
    ----------
    model : str
        Name as given: an open_clip name, ``xaikit-demo``, ``timm/NAME`` or a config's file name.
    family : str
        ``open_clip`` or ``timm``.
    architecture : str
        Class of the vision module and of its blocks.
    layers, heads, tokens : int
        Blocks, attention heads of a block, and tokens of an image.
    prefix_kinds : tuple of str
        What each token before the patches is: ``class token``, ``distillation token``,
        ``register 1``, ``register 2``, …
    width, ffn_width : int
        `D_model` and `D_ffn`: the width of the residual stream and of the FFN's activation.
    image_size, grid : tuple of int
        (height, width) of the input in pixels, and of the patch raster.
    classes : int
        Outputs of the classifier head; 0 where there is none.
    """

    model: str
    family: str
    architecture: str
    layers: int
    heads: int
    tokens: int
    prefix_kinds: tuple[str, ...]
    width: int
    ffn_width: int
    image_size: tuple[int, int]
    grid: tuple[int, int]
    classes: int = 0

    @property
    def prefix_tokens(self) -> int:
        """How many tokens come before the patches."""
        return len(self.prefix_kinds)

    def token_name(self, token: int) -> str:
        """Say in words which token an index is: ``class token``, ``register 2``, ``patch (3, 4)``.

        Parameters
        ----------
        token : int
            Index into the tokens of an image.
        """
        return token_name(token, self.prefix_kinds, self.grid)


def tower_info(
    module: nn.Module, blocks: list[BlockParts], *, model: str, family: str
) -> TowerInfo:
    """Sizes of a vision module, read from the module; it may be on the meta device."""
    adapter = FAMILIES[family]
    layout: dict[str, Any] = adapter.layout(module)
    first = blocks[0]
    return TowerInfo(
        model=model,
        family=family,
        architecture=f"{adapter.core(module).__class__.__name__} of {type(first.block).__name__}",
        layers=len(blocks),
        heads=first.heads,
        tokens=len(layout["prefix_kinds"]) + math.prod(layout["grid"]),
        width=first.width,
        ffn_width=first.ffn_width,
        **layout,
    )
