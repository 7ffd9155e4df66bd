"""Reading FFN inputs, FFN gates and attention logits of a tower's own forward pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xaikit.errors import XaikitError
from xaikit.towers.interception import AttentionCall, intercepting

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from xaikit.towers.tower import Tower

FfnTap = Callable[["Float[Tensor, 'batch token width']", "Bool[Tensor, 'batch token ffn']"], None]
"""Called as ``tap(h_l, gate)``: the FFN's input, float32, and where its activation is > 0."""
ResidualTap = Callable[["Float[Tensor, 'batch token width']"], None]
"""Called with the residual stream that enters a block."""
AttentionTap = Callable[[AttentionCall], None]
"""Called as ``tap(call)``, before the attention is computed."""


class _Finished(BaseException):
    """Everything asked for has been read. No Exception, so that no model code can swallow it."""


class _Pending:
    """Which taps have not fired yet."""

    def __init__(self, stop: bool) -> None:
        self.stop = stop
        self.waiting: set[tuple[str, int]] = set()
        self.owner = threading.get_ident()

    def mine(self) -> bool:
        return threading.get_ident() == self.owner

    def fired(self, what: str, layer: int) -> None:
        self.waiting.discard((what, layer))
        if self.stop and not self.waiting:
            raise _Finished


def capture(
    tower: Tower,
    pixels: Float[Tensor, "batch 3 height width"],
    *,
    ffn: Mapping[int, FfnTap] | None = None,
    attention: Mapping[int, AttentionTap] | None = None,
    residual: Mapping[int, ResidualTap] | None = None,
) -> None:
    """Run the model once and hand over what the given layers compute.

    The forward pass ends right after the last tap: later blocks never run, and neither does the
    attention itself where an attention tap is the last.

    Parameters
    ----------
    tower : Tower
    pixels : Tensor
        Normalised images ``[B, 3, height, width]``.
    ffn : mapping of int to callable, optional
        Layer to ``tap(h_l, gate)``: the FFN's input ``[B, N, D_model]`` float32 and, bool
        ``[B, N, D_ffn]``, where the FFN's activation output is > 0 (gated FFNs: the gate branch).
    attention : mapping of int to callable, optional
        Layer to ``tap(call)``; ``call.logits()`` is float32 ``[B, H, N, N]``.
    residual : mapping of int to callable, optional
        Layer to ``tap(stream)``, the block's input ``[B, N, D_model]``.

    Raises
    ------
    UsageError
        If a layer is out of range or the pixels have another shape than the tower takes.
    XaikitError
        If the model ran to its end without reaching a tap.
    """
    if not ffn and not attention and not residual:
        return
    with torch.inference_mode():
        try:
            with tapping(tower, ffn=ffn, attention=attention, residual=residual, stop=True):
                tower.outputs(pixels)
        except _Finished:
            pass


@contextmanager
def tapping(
    tower: Tower,
    *,
    ffn: Mapping[int, FfnTap] | None = None,
    attention: Mapping[int, AttentionTap] | None = None,
    residual: Mapping[int, ResidualTap] | None = None,
    stop: bool = False,
) -> Iterator[None]:
    """Call the taps whenever the tower runs in this thread; its outputs stay bit-identical.

    Parameters
    ----------
    tower, ffn, attention, residual
        As in `capture`.
    stop : bool
        End the pass, with an exception that `capture` absorbs, once every tap has fired.
    """
    pending = _Pending(stop)
    with ExitStack() as stack:
        for layer, residual_tap in (residual or {}).items():
            tower.check_layer(layer)
            pending.waiting.add(("residual", layer))
            _tap_residual(stack, tower, layer, residual_tap, pending)
        for layer, ffn_tap in (ffn or {}).items():
            tower.check_layer(layer)
            pending.waiting.add(("ffn", layer))
            _tap_ffn(stack, tower, layer, ffn_tap, pending)
        for layer, attention_tap in (attention or {}).items():
            tower.check_layer(layer)
            pending.waiting.add(("attention", layer))
            _tap_attention(stack, tower, layer, attention_tap, pending)
        yield
    if pending.waiting:
        missed = ", ".join(f"{what} of layer {layer}" for what, layer in sorted(pending.waiting))
        raise XaikitError(f"{tower.info.model}: the forward pass never reached the {missed}")


def _tap_residual(
    stack: ExitStack, tower: Tower, layer: int, tap: ResidualTap, pending: _Pending
) -> None:
    def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
        if pending.mine():
            tap(args[0])
            pending.fired("residual", layer)

    stack.callback(tower.blocks[layer].block.register_forward_pre_hook(before).remove)


def _tap_ffn(stack: ExitStack, tower: Tower, layer: int, tap: FfnTap, pending: _Pending) -> None:
    parts = tower.blocks[layer]
    inputs: list[Tensor] = []

    def before(_module: nn.Module, args: tuple[Any, ...]) -> None:
        if pending.mine():
            inputs.append(args[0])

    def after(_module: nn.Module, _args: tuple[Any, ...], activation: Tensor) -> None:
        if pending.mine():
            tap(inputs.pop().float(), activation > 0)
            pending.fired("ffn", layer)

    stack.callback(parts.ffn.register_forward_pre_hook(before).remove)
    stack.callback(parts.activation.register_forward_hook(after).remove)


def _tap_attention(
    stack: ExitStack, tower: Tower, layer: int, tap: AttentionTap, pending: _Pending
) -> None:
    module = tower.blocks[layer].attention
    # Adapters hold the module itself, and have changed its weights when they call it.
    inner = next((m for m in module.modules() if isinstance(m, nn.MultiheadAttention)), None)
    if inner is not None:

        def before(
            fused: nn.MultiheadAttention, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> None:
            if pending.mine():
                tap(_multihead_call(fused, *args, **kwargs))
                pending.fired("attention", layer)

        stack.callback(inner.register_forward_pre_hook(before, with_kwargs=True).remove)
        return

    def handler(call: AttentionCall) -> None:
        tap(call)
        pending.fired("attention", layer)

    stack.enter_context(intercepting(module, handler, f"{tower.info.model} layer {layer}"))


def _multihead_call(
    module: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    **_options: Any,
) -> AttentionCall:
    """Read what nn.MultiheadAttention is about to compute.

    The module runs a fused kernel in evaluation mode, and leaving that path would change its
    output's last bits; so its queries and keys are computed beside it, from the same weights.
    """
    if key_padding_mask is not None or attn_mask is not None:
        raise XaikitError("nn.MultiheadAttention with a mask is not read")
    width, heads = module.embed_dim, module.num_heads
    weight, bias = module.in_proj_weight, module.in_proj_bias

    def project(tokens: Tensor, first: int, last: int) -> Tensor:
        rows = slice(first * width, last * width)
        out = F.linear(tokens, weight[rows], None if bias is None else bias[rows])
        split: Tensor = out.unflatten(-1, (last - first, heads, -1))
        return split.permute(2, 0, 3, 1, 4)

    if query is key:
        q, k = project(query, 0, 2)
    else:
        q, k = project(query, 0, 1)[0], project(key, 1, 2)[0]
    return AttentionCall(q, k, lambda: project(value, 2, 3)[0])
