"""Putting the tensors of a file into a vision module: all, or one line that says why not."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from timm.models.vision_transformer_hybrid import checkpoint_filter_fn as _mobileclip_names
from torch import Tensor, nn

from xaikit.errors import UsageError, XaikitError
from xaikit.towers.checks import check_values, problems_of, require_tensors
from xaikit.towers.heads import fit_head
from xaikit.towers.hf_names import from_transformers
from xaikit.towers.rasters import as_transformers_does, grids_of, resized
from xaikit.towers.reading import Content
from xaikit.towers.unwrapping import Found, State, preference, prefixes, state_dicts

_IGNORED = ("mask_token", "n_averaged", "logit_scale", "logit_bias", "initted", "step")
_IGNORED_ENDINGS = ("total_ops", "total_params", "position_ids")
"""What training leaves beside the weights of a tower."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read a file as the weights of a module.

    Attributes
    ----------
    state : dict of Tensor
        Under the module's names.
    found : Found
    prefix : str
        What stood before the module's names in the file.
    names : str
        Whose names the file has, where they are not the module's own.
    matches : tuple of int
        Names, and shapes, that are the module's.
    others : tuple of str
        Prefixes under which the file holds as much again.
    grids : mapping of str to int
        Side of the file's raster of patches and of a patch, before anything was interpolated.
    resized_by : str
        Whose interpolation a raster of another size went through.
    activation, norm_eps : optional
        What the names say of the model.
    note : str
        What of the file could not be had.
    """

    state: State
    found: Found
    prefix: str = ""
    names: str = ""
    matches: tuple[int, int] = (0, 0)
    others: tuple[str, ...] = ()
    grids: Mapping[str, int] = field(default_factory=dict)
    resized_by: str = "timm"
    activation: str | None = None
    norm_eps: float | None = None
    note: str = ""

    @property
    def where(self) -> str:
        """Place in the file: keys, wrappers and prefix."""
        return " › ".join([*self.found.path, *([self.prefix] if self.prefix else [])])


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a file's weights were put into a module.

    Attributes
    ----------
    file, form : str
    where : str
        Keys, wrappers and prefix that led to the weights.
    names : str
        Whose names they had, where not the module's own.
    notes : list of str
        What a user should know: a head of another size, interpolated positions, a choice.
    left_out : int
        Tensors of the same state dict that are not the tower's.
    activation, norm_eps : optional
        What the file says of the model.
    """

    file: str
    form: str
    where: str
    names: str
    notes: list[str] = field(default_factory=list)
    left_out: int = 0
    activation: str | None = None
    norm_eps: float | None = None


def load_weights(module: nn.Module, content: Content) -> Fitted:
    """Load a vision module from a full CLIP, a vision-only, a timm or a transformers file.

    Parameters
    ----------
    module : nn.Module
        The vision module; its classifier head is made to be the file's.
    content : Content

    Raises
    ------
    UsageError
        If the file holds quantised, complex or sparse values, adapters, or no weights at all.
    XaikitError
        If names or shapes differ; the message names the first few.
    """
    reading, tied = _best(module, content)
    source = _source(content, reading)
    notes = [f"weights of {reading.where}, of which the file also holds {tied}"] if tied else []
    notes += [reading.note] if reading.note else []
    state = resized(module, reading.state, reading.grids, reading.resized_by, notes)
    dropped = [name for name in state if _ignored(name, module)]
    state = {name: value for name, value in state.items() if name not in dropped}
    state = fit_head(module, state, notes)
    wanted = module.state_dict()
    check_values(state, wanted, source)
    problems = problems_of(wanted, state)
    if problems:
        raise XaikitError(f"{source} does not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(state, strict=True)
    return Fitted(
        file=content.file,
        form=content.form,
        where=reading.where,
        names=reading.names,
        notes=notes,
        left_out=max(len(reading.found.state) - len(state), 0),
        activation=reading.activation or content.activation,
        norm_eps=reading.norm_eps,
    )


def _best(module: nn.Module, content: Content) -> tuple[Reading, str]:
    """The reading that gives most of the module, and what else gives as much."""
    found = list(state_dicts(content.tree))
    if not found:
        raise UsageError(f"checkpoint {content.file} holds no state dict of tensors")
    wanted = {name: value.shape for name, value in module.state_dict().items()}
    best: Reading | None = None
    tied: list[str] = []
    for each in found:
        for reading in _readings(module, each):
            reading = replace(reading, matches=_matches(reading.state, wanted))
            if best is None or _order(reading) > _order(best):
                best = reading
            if reading.matches == (len(wanted), len(wanted)):
                # Whatever else these names could be read as.
                break
    if best is None or best.matches[0] == 0:
        names = ", ".join(list(found[0].state)[:3])
        raise UsageError(
            f"checkpoint {content.file} ({content.form}) holds none of the weights of "
            f"{type(module).__name__}: its names are {names[:120]}, …"
        )
    for each in found:
        ranked = prefixes(each.state, wanted) if each is not best.found else []
        if ranked and ranked[0][1] >= best.matches[0]:
            tied.append(" › ".join([*each.path, *([ranked[0][0]] if ranked[0][0] else [])]))
    return best, " and ".join([*best.others, *tied])


def _order(reading: Reading) -> tuple[int, ...]:
    return (*reading.matches, -preference(reading.where))


def _matches(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> tuple[int, int]:
    named = [name for name in wanted if name in state]
    return len(named), sum(state[name].shape == wanted[name] for name in named)


def _readings(module: Any, found: Found) -> Iterator[Reading]:
    """Ways to read a state dict: as it is, renamed from transformers, renamed as timm does."""
    require_tensors(found)
    renamed = from_transformers(found.state)
    if renamed is None:
        yield from _under_prefixes(module, found, _mobileclip(module, found.state))
        return
    positions = as_transformers_does(module, renamed)
    for reading in _under_prefixes(module, found, renamed.state | positions):
        yield replace(
            reading,
            names=f"transformers' {renamed.kind}",
            prefix=renamed.prefix,
            grids=grids_of(renamed.state),
            resized_by="transformers" if positions else reading.resized_by,
            activation=renamed.activation,
            norm_eps=renamed.norm_eps,
            note=renamed.note,
        )


def _under_prefixes(module: Any, found: Found, state: State) -> Iterator[Reading]:
    wanted = set(module.state_dict())
    trunk = "trunk." if hasattr(module, "trunk") else ""
    inner = {name.removeprefix(trunk) for name in wanted if name.startswith(trunk)}
    bases: list[State] = [state]
    for add, names in {"": wanted, trunk: inner}.items():
        ranked = prefixes(state, names)
        if not ranked:
            continue
        prefix, count = ranked[0]
        own = {n[len(prefix) :]: value for n, value in state.items() if n.startswith(prefix)}
        bases.append(own)
        yield Reading(
            state={add + name: value for name, value in own.items()},
            found=found,
            prefix=prefix,
            grids=grids_of(own),
            others=tuple(other for other, votes in ranked[1:] if votes == count),
        )
    # timm keeps a filter beside each model that renames the original authors' checkpoints.
    core = getattr(module, "trunk", module)
    rename: Any = getattr(sys.modules[type(core).__module__], "checkpoint_filter_fn", None)
    for base in bases if rename is not None else []:
        try:
            filtered = rename(dict(base), core)
        except Exception:
            # A filter of another model's names; what is missing is said in the end.
            continue
        heads = {n: v for n, v in base.items() if trunk and n.startswith("head.")}
        named = {trunk + name: value for name, value in filtered.items()} | heads
        yield Reading(state=named, found=found, grids=grids_of(base))


def _mobileclip(module: Any, state: State) -> State:
    """Names of Apple's own MobileCLIP-B files, converted as open_clip converts them."""
    marker = "image_encoder.model.patch_emb.0.block.conv.weight"
    if marker not in state or not hasattr(module, "trunk"):
        return state
    trunk = _mobileclip_names(dict(state), module.trunk)
    return {f"visual.trunk.{name}": value for name, value in trunk.items()}


def _ignored(name: str, module: nn.Module) -> bool:
    if name in module.state_dict():
        return False
    return name in _IGNORED or name.endswith(_IGNORED_ENDINGS) or name.startswith("pre_logits.")


def _source(content: Content, reading: Reading) -> str:
    about = [content.form] if content.form == "TorchScript archive" else []
    about += [f"{reading.names} names"] if reading.names else []
    return f"checkpoint {content.file}" + (f" ({', '.join(about)})" if about else "")
