"""Changing attention logits inside the real forward pass, and repeating only what follows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xaikit.errors import XaikitError
from xaikit.towers.families import Outputs
from xaikit.towers.interception import AttentionCall, intercepting, overriding_forward

if TYPE_CHECKING:
    from jaxtyping import Float

    from xaikit.towers.tower import Tower

Edit = Callable[
    [AttentionCall, "Float[Tensor, 'batch head token token']"],
    "Float[Tensor, 'batch head token token']",
]
"""``edit(call, logits)`` returns the logits ``[B, H, N, N]`` to use instead; it may write into
`logits`, which is its own copy, and gradients flow through what it returns."""


@contextmanager
def editing(tower: Tower, layer: int, edit: Edit) -> Iterator[None]:
    """Run the model with the logits of one layer's attention passed through `edit`.

    Everything before and after the softmax of that layer is the model's own. Scopes nest: those of
    several layers, and those of one layer, where the one opened last applies first. The memory of
    one batch's logits is all that is held.

    Parameters
    ----------
    tower : Tower
    layer : int
        Layer whose attention is edited.
    edit : callable
        ``edit(call, logits)``, with float32 logits ``[B, H, N, N]``.

    Raises
    ------
    UsageError
        If the layer is out of range.
    """
    tower.check_layer(layer)

    def handler(call: AttentionCall) -> None:
        call.edited = edit(call, call.logits() if call.edited is None else call.edited)

    name = f"{tower.info.model} layer {layer}"
    with intercepting(tower.blocks[layer].attention, handler, name):
        yield


class _Reached(BaseException):
    """The block whose input is wanted has been reached."""


class BlockCache:
    """The input of one block for a batch, so that many edits of it share the blocks before.

    Parameters
    ----------
    tower : Tower
    layer : int
        First block that runs again; edits apply to its attention.

    Examples
    --------
    >>> cache = BlockCache(tower, 7).fill(pixels)
    >>> clean = cache.outputs()
    >>> edited = cache.outputs(lambda call, logits: logits.masked_fill(mask, 0.0))
    """

    def __init__(self, tower: Tower, layer: int) -> None:
        tower.check_layer(layer)
        self.tower = tower
        self.layer = layer
        self._pixels: Tensor | None = None
        self._hidden: Tensor | None = None

    def fill(self, pixels: Float[Tensor, "batch 3 height width"]) -> BlockCache:
        """Run the blocks before `layer` once, without gradients, and keep what they return."""
        owner = threading.get_ident()
        reached: list[Tensor] = []

        def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
            if threading.get_ident() == owner:
                reached.append(args[0])
                raise _Reached

        block = self.tower.blocks[self.layer].block
        hook = block.register_forward_pre_hook(before)
        # No inference mode: a tensor made under it could not be part of a gradient later.
        try:
            with torch.inference_mode(False), torch.no_grad():
                self.tower.outputs(pixels)
        except _Reached:
            pass
        finally:
            hook.remove()
        self._pixels, self._hidden = pixels, reached[0]
        return self

    def outputs(self, edit: Edit | Mapping[int, Edit] | None = None) -> Outputs:
        """Run block `layer` and what follows, with `edit` applied to that block's attention.

        Parameters
        ----------
        edit : callable or mapping of int to callable, optional
            As in `editing`, for the attention of `layer`, or of each layer that is a key (none
            below `layer`); without it the outputs equal ``tower.outputs(pixels)``.

        Returns
        -------
        Outputs

        Raises
        ------
        XaikitError
            If `fill` has not been called, or a layer is to be edited that does not run again.
        """
        if self._pixels is None:
            raise XaikitError("BlockCache.outputs was called before fill")
        edits = edit if isinstance(edit, Mapping) else {self.layer: edit} if edit else {}
        if any(layer < self.layer for layer in edits):
            raise XaikitError(f"BlockCache runs again from layer {self.layer} on, not {min(edits)}")
        with ExitStack() as stack:
            for parts in self.tower.blocks[: self.layer]:
                stack.enter_context(overriding_forward(parts.block, _pass_through))
            # Outside the scope of `edit`: where the block itself makes the attention call, the
            # edit wraps the forward that the resumed block then runs.
            for layer, one in edits.items():
                stack.enter_context(editing(self.tower, layer, one))
            block = self.tower.blocks[self.layer].block
            stack.enter_context(overriding_forward(block, self._resume(block.forward)))
            return self.tower.outputs(self._pixels)

    def _resume(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def resumed(_hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            return forward(self._hidden, *args, **kwargs)

        return resumed


def _pass_through(hidden: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
    return hidden
