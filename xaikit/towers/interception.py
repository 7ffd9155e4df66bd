"""Seeing, and replacing, the one attention call of a module while it runs.

Every supported attention module hands its queries, keys and values to
`torch.nn.functional.scaled_dot_product_attention`, after everything the model itself does to them
(q/k norm, rotary embedding, expanded key heads) and with its bias as the mask. Reading that call
therefore gives the model's own logits, with no second implementation of any module.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from xaikit.errors import XaikitError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


class AttentionCall:
    """The arguments of one attention call.

    Attributes
    ----------
    query, key : Tensor
        ``[B, H, N, d]``, as the model computed them.
    bias : Tensor, optional
        Additive, broadcastable to ``[B, H, N, N]``; −inf where the model masks.
    scale : float
        Factor of ``query @ key.T``.
    edited : Tensor, optional
        Logits ``[B, H, N, N]`` that take the place of the model's own, where a handler set them.
    silent : Tensor, optional
        ``[B, H, N]``, the rows that attend to nothing; see `silence`.
    """

    def __init__(
        self,
        query: Float[Tensor, "batch head token dim"],
        key: Float[Tensor, "batch head token dim"],
        value: Tensor | Callable[[], Tensor],
        bias: Tensor | None = None,
        scale: float | None = None,
    ) -> None:
        self.query = query
        self.key = key
        self.bias = bias
        self.scale = query.shape[-1] ** -0.5 if scale is None else scale
        self.edited: Tensor | None = None
        self.silent: Tensor | None = None
        self._value = value

    @property
    def value(self) -> Float[Tensor, "batch head token dim"]:
        """Values ``[B, H, N, d]``; computed on first use where the capture did not need them."""
        if not isinstance(self._value, Tensor):
            self._value = self._value()
        return self._value

    def logits(self) -> Float[Tensor, "batch head token token"]:
        """Attention logits ``[B, H, N, N]``, float32, after scale and bias, before softmax."""
        scaled = self.query.float() * self.scale
        logits = scaled @ self.key.float().transpose(-2, -1)
        return logits if self.bias is None else logits + self.bias.float()

    def logits_of(self, images: slice, heads: slice) -> Float[Tensor, "head image token token"]:
        """Logits of some heads of some images, head by head, without computing the others'."""
        query = self.query[images, heads].transpose(0, 1).float() * self.scale
        key = self.key[images, heads].transpose(0, 1).float()
        logits = query @ key.transpose(-2, -1)
        if self.bias is None:
            return logits
        shape = (self.query.shape[0], self.query.shape[1], *logits.shape[-2:])
        return logits + self.bias.float().expand(shape)[images, heads].transpose(0, 1)

    def attend(
        self, logits: Float[Tensor, "batch head token token"]
    ) -> Float[Tensor, "batch head token dim"]:
        """Return ``softmax(logits) @ value`` in the model's number format."""
        out = logits.float().softmax(dim=-1).to(self.value.dtype) @ self.value
        return out if self.silent is None else out.masked_fill(self.silent.unsqueeze(-1), 0.0)

    def silence(self, rows: Bool[Tensor, "batch head token"]) -> None:
        """Let rows attend to nothing: their head's output is zero, which no logits can say."""
        self.silent = rows if self.silent is None else self.silent | rows

    @classmethod
    def from_arguments(
        cls,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> AttentionCall:
        """Read the arguments of `scaled_dot_product_attention`."""
        if dropout_p:
            raise XaikitError("attention dropout is on: put the model into evaluation mode")
        if enable_gqa:
            key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
            value = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
        if is_causal:
            attn_mask = query.new_ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=torch.float32).masked_fill(
                ~attn_mask, -torch.inf
            )
        return cls(query, key, value, attn_mask, scale)


Handler = Callable[[AttentionCall], None]
"""Called with the call before it is computed; it may read it, set `edited`, or raise."""


class _Watch:
    """One module's forward pass in progress: who handles its call, and how many there were."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.calls = 0


class _Stack(threading.local):
    def __init__(self) -> None:
        self.watches: list[_Watch] = []


_stack = _Stack()
_lock = threading.Lock()
_open_scopes = 0
_functional: Any = torch.nn.functional
_before: Any = None


def _make_dispatch(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def scaled_dot_product_attention(*args: Any, **kwargs: Any) -> Tensor:
        watches = _stack.watches
        if not watches:
            return original(*args, **kwargs)
        call = AttentionCall.from_arguments(*args, **kwargs)
        # What a handler itself computes with this function is its own business.
        _stack.watches = []
        try:
            for watch in watches:
                watch.calls += 1
                watch.handler(call)
        finally:
            _stack.watches = watches
        return original(*args, **kwargs) if call.edited is None else call.attend(call.edited)

    return scaled_dot_product_attention


@contextmanager
def _patched() -> Iterator[None]:
    global _open_scopes, _before
    with _lock:
        if _open_scopes == 0:
            _before = _functional.scaled_dot_product_attention
            _functional.scaled_dot_product_attention = _make_dispatch(_before)
        _open_scopes += 1
    try:
        yield
    finally:
        with _lock:
            _open_scopes -= 1
            if _open_scopes == 0:
                _functional.scaled_dot_product_attention = _before
                _before = None


class _PythonPath(TorchFunctionMode):
    """Keeps nn.MultiheadAttention off its fused path, in this thread only.

    The module leaves the fused path whenever a torch function mode is active, and then reaches
    the attention call through `multi_head_attention_forward`.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextmanager
def overriding_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Run `forward` in place of the module's own while open; hooks still fire around it."""
    previous = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if previous is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = previous


@contextmanager
def intercepting(module: nn.Module, handler: Handler, name: str) -> Iterator[None]:
    """Hand the attention call of `module` to `handler` whenever this thread runs the module.

    Parameters
    ----------
    module : nn.Module
        An attention module.
    handler : Handler
    name : str
        For the message if the module does not make exactly one attention call.
    """
    owner = threading.get_ident()
    inner = module.forward
    # Adapters put the module that has the fused path inside one of their own.
    fused = any(isinstance(part, nn.MultiheadAttention) for part in module.modules())

    def forward(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != owner:
            return inner(*args, **kwargs)
        watch = _Watch(handler)
        _stack.watches.append(watch)
        try:
            if fused:
                with _PythonPath():
                    out = inner(*args, **kwargs)
            else:
                out = inner(*args, **kwargs)
        finally:
            _stack.watches.remove(watch)
        if watch.calls != 1:
            raise XaikitError(
                f"{name}: {type(module).__name__} calls scaled_dot_product_attention "
                f"{watch.calls} times, and xaikit needs exactly one call to read its logits"
            )
        return out

    with _patched(), overriding_forward(module, forward):
        yield
