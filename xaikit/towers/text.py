"""The text tower, and the zero-shot classifier it makes of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.convert import convert_state_dict
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict
from torch import Tensor, nn
from torch.nn import functional as F

from xaikit.errors import UsageError, XaikitError
from xaikit.towers.built import unwrapped
from xaikit.towers.device import move
from xaikit.towers.fingerprints import fingerprint
from xaikit.towers.hf_names import from_transformers
from xaikit.towers.unwrapping import prefixes, state_dicts

if TYPE_CHECKING:
    from jaxtyping import Float

    from xaikit.towers.spec import ModelSpec
    from xaikit.towers.tower import Tower
    from xaikit.towers.weights import Weights

CLIP_WORDS = 49408
"""Vocabulary of CLIP's own tokenizer."""


@dataclass(frozen=True)
class TextSide:
    """A text tower beside a vision tower.

    Attributes
    ----------
    model : nn.Module
        The whole open_clip model; its `visual` is the tower's own module.
    tokenize : callable
        ``tokenize(prompts) -> [C, L]``.
    """

    model: nn.Module
    tokenize: Callable[[list[str]], Tensor]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights beside the vision tower's: they decide what prompts are."""
        state = self.model.state_dict()
        return fingerprint({n: t for n, t in state.items() if not n.startswith("visual.")})


@dataclass(frozen=True)
class ZeroShot:
    """A classifier made of prompts.

    Attributes
    ----------
    prompts : list of str
    features : Tensor
        ``[C, D]`` float32, of unit length.
    scale, bias : float
        ``logits = scale · cos(embedding, feature) + bias``; the bias is 0 unless the model was
        trained with a sigmoid loss.
    """

    prompts: list[str]
    features: Float[Tensor, "prompt dim"]
    scale: float
    bias: float = 0.0

    def __call__(self, embedding: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch prompt"]:
        """Class logits ``[B, C]`` of image embeddings ``[B, D]``, float32."""
        unit = F.normalize(embedding.float(), dim=-1)
        return self.scale * unit @ self.features.to(embedding.device).T + self.bias


def text_features(
    tower: Tower, prompts: Sequence[str], *, batch_size: int = 64
) -> Float[Tensor, "prompt dim"]:
    """Encode prompts.

    Parameters
    ----------
    tower : Tower
        Loaded with ``with_text=True``.
    prompts : sequence of str
    batch_size : int
        Prompts encoded at a time.

    Returns
    -------
    Tensor
        ``[C, D]`` float32, of unit length.

    Raises
    ------
    UsageError
        If the tower has no text side or there is no prompt.
    """
    if tower.text is None:
        raise UsageError(f"{tower.info.model} was loaded without its text tower")
    if not prompts:
        raise UsageError("no prompts were given: one line each, at least one")
    encode: Any = tower.text.model.encode_text
    features = []
    with torch.inference_mode():
        for start in range(0, len(prompts), batch_size):
            tokens = tower.text.tokenize(list(prompts[start : start + batch_size]))
            features.append(encode(tokens.to(tower.device)).float())
    # A clone made outside inference mode, so that gradients may pass through a classifier.
    return F.normalize(torch.cat(features), dim=-1).clone()


def zero_shot(tower: Tower, prompts: Sequence[str]) -> ZeroShot:
    """Make a classifier of prompts, one class each.

    Parameters
    ----------
    tower : Tower
        Loaded with ``with_text=True``.
    prompts : sequence of str

    Raises
    ------
    UsageError
        As `text_features`.
    """
    features = text_features(tower, prompts)
    model: Any = tower.text.model if tower.text else None
    bias = getattr(model, "logit_bias", None)
    return ZeroShot(
        prompts=list(prompts),
        features=features,
        scale=float(model.logit_scale.exp()),
        bias=0.0 if bias is None else float(bias),
    )


def load_text(spec: ModelSpec, weights: Weights, tower: Tower, device: torch.device) -> TextSide:
    """Build the whole model around the tower's vision module, and its tokenizer.

    Raises
    ------
    UsageError
        If the model has no text tower.
    XaikitError
        If the text tower, its tokenizer or its weights cannot be had.
    """
    if spec.family == "timm":
        raise UsageError(f"{spec.name} has no text tower; its classifier head takes its place")
    try:
        model = _whole_model(spec, weights)
        tokenize = _tokenizer(spec)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise XaikitError(f"the text tower of {spec.name} cannot be built: {reason}") from None
    if not weights.random:
        _load_text_state(model, weights)
    model.visual = tower.module
    model.eval().requires_grad_(False)
    move(model, device)
    return TextSide(model=model, tokenize=tokenize)


def text_of(module: Any) -> TextSide:
    """The text side of an open_clip model that is already built, with open_clip's tokenizer.

    Raises
    ------
    UsageError
        If it has none, or its vocabulary is not that of open_clip's own tokenizer.
    """
    model = unwrapped(module)
    text = getattr(model, "text", model)
    if not hasattr(model, "encode_text"):
        raise UsageError(f"{type(model).__name__} has no text tower: pass the whole CLIP model")
    if getattr(text, "vocab_size", None) != CLIP_WORDS:
        raise UsageError(
            f"{type(model).__name__} has a tokenizer of its own, which a built module does not "
            "bring along: load it by name instead"
        )
    model.eval().requires_grad_(False)
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=text.context_length)
    return TextSide(model=model, tokenize=tokenizer)


def _whole_model(spec: ModelSpec, weights: Weights) -> nn.Module:
    config = deepcopy(spec.config)
    if weights.activation is not None:
        config["quick_gelu"] = weights.activation == "quick_gelu"
    config["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    kind: type[nn.Module] = CLIP
    if custom:
        kind = CoCa if "multimodal_cfg" in config else CustomTextCLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed)
        return kind(**config)


def _tokenizer(spec: ModelSpec) -> Callable[[list[str]], Tensor]:
    if spec.registered:
        tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(spec.name)
        return tokenizer
    text = spec.config["text_cfg"]
    length = text.get("context_length", 77)
    if text.get("hf_tokenizer_name"):
        tokenizer = open_clip.tokenizer.HFTokenizer(
            text["hf_tokenizer_name"], context_length=length, **text.get("tokenizer_kwargs", {})
        )
    else:
        tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=length)
    return tokenizer


def _load_text_state(model: nn.Module, weights: Weights) -> None:
    wanted = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("visual.")
    }
    state = _text_state(model, weights)
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in wanted:
            state[name] = state[name].reshape(wanted[name].shape)
    missing = [n for n in wanted if n not in state or state[n].shape != wanted[n].shape]
    if missing:
        raise XaikitError(
            f"checkpoint {weights.checkpoint().name} holds no text tower: missing "
            f"{', '.join(missing[:3])} ({len(missing)} in all)"
        )
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)


def _text_state(model: Any, weights: Weights) -> dict[str, Tensor]:
    """The state dict that gives most of the whole model, under open_clip's names."""
    wanted, best, most = set(model.state_dict()), dict[str, Tensor](), -1
    for found in state_dicts(weights.content().tree):
        renamed = from_transformers(found.state)
        state = convert_state_dict(model, renamed.state if renamed else found.state)
        ranked = prefixes(state, wanted)
        prefix = ranked[0][0] if ranked else ""
        prefix = prefix.removesuffix("visual.")
        own = {n[len(prefix) :]: value for n, value in state.items() if n.startswith(prefix)}
        if "positional_embedding" in own and not hasattr(model, "positional_embedding"):
            own = convert_to_custom_text_state_dict(own)
        count = len(wanted & set(own))
        if count > most:
            best, most = own, count
    return best
