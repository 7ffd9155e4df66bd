"""From a name and a source of weights, or a module that is already built, to a tower."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xaikit.artifacts.preprocess import Preprocess
from xaikit.errors import UsageError, XaikitWarning
from xaikit.towers.built import vision_of
from xaikit.towers.device import AUTO, move, pick_device
from xaikit.towers.known import module_settings
from xaikit.towers.registry import require_supported, resolve
from xaikit.towers.selfcheck import require_check
from xaikit.towers.settings import Decision, Settings, open_clip_defaults, to_preprocess
from xaikit.towers.text import load_text, text_of
from xaikit.towers.tower import DTYPES, Tower, wrap_tower
from xaikit.towers.weights import Weights

Triple = tuple[float, float, float]
MODES = ("shortest", "squash", "longest")


def load_tower(
    model: str | nn.Module,
    pretrained: str | Path | None = None,
    *,
    device: str = AUTO,
    precision: str | None = None,
    with_text: bool = False,
    seed: int = 0,
    like_tag: str | None = None,
    quick_gelu: bool | None = None,
    resize_mode: str | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    resize: int | None = None,
    check: bool = False,
) -> Tower:
    """Load the vision tower of a model.

    Parameters
    ----------
    model : str or nn.Module
        An open_clip name, ``xaikit-demo``, ``timm/NAME``, an open_clip model config (``.json``),
        ``hf-hub:ORG/NAME`` or ``local-dir:PATH``; or a module that is already built: an open_clip
        model or its `visual`, or a timm model, also inside DataParallel, torch.compile or peft.
    pretrained : str or Path, optional
        A tag, a checkpoint (safetensors, a torch file of plain tensors or a TorchScript archive,
        with the names of open_clip, timm or transformers), ``hf-hub:ORG/NAME``,
        ``local-dir:PATH``, or ``random``. None: the demo's weights, ``timm/NAME.TAG``'s, or
        those of the folder. For a built module, a name to record.
    device : str
        A torch device; ``auto`` is CUDA, then MPS, then the CPU, and where a built module is.
    precision : str, optional
        ``float32``, ``bfloat16`` or ``float16``; what is handed out is float32 whatever it is.
        Default: float32, and a built module's own.
    with_text : bool
        Also load the text tower and its tokenizer, into ``tower.text``.
    seed : int
        Of random weights.
    like_tag : str, optional
        A pretrained tag of the name whose preprocessing and activation a local file has.
    quick_gelu : bool, optional
        Whether the activation is QuickGELU, in place of what is known of the weights.
    resize_mode : str, optional
        ``shortest``, ``squash`` or ``longest``.
    mean, std, resize : optional
        Normalisation, and shorter side before the crop in pixels, in place of the model's own.
    check : bool
        Run `self_check` on one image of noise and refuse a tower that fails it.

    Returns
    -------
    Tower
        `loaded` says where weights, preprocessing and activation came from.

    Raises
    ------
    UsageError
        If an argument names nothing that exists; the message says what does.
    XaikitError
        If the model is refused, or its weights cannot be had or do not fit.

    Warns
    -----
    XaikitWarning
        If it is not known how the weights' images were prepared or which activation they have.
    """
    if precision is not None and precision not in DTYPES:
        raise UsageError(f"precision {precision!r} is none of {', '.join(DTYPES)}")
    given = given_settings(
        quick_gelu=quick_gelu, resize_mode=resize_mode, mean=mean, std=std, resize=resize
    )
    if not isinstance(model, str):
        tower = _from_module(model, pretrained, device, precision, with_text, given)
    else:
        target = pick_device(device)
        tower = _from_name(model, pretrained, target, with_text, seed, like_tag, given)
        _place(tower, target, precision or "float32")
    _check_resize(tower.preprocess)
    if check:
        require_check(tower)
    return tower


def _from_name(
    model: str,
    pretrained: str | Path | None,
    device: torch.device,
    with_text: bool,
    seed: int,
    like_tag: str | None,
    given: Settings,
) -> Tower:
    spec = resolve(model)
    require_supported(spec)
    weights = Weights(spec, None if pretrained is None else str(pretrained), seed, like_tag)
    module = weights.module()
    tower = wrap_tower(module, model=spec.name, family=spec.family, pretrained=weights.name)
    decision = weights.decide(module, tower.info.image_size, given)
    # Activations may have been replaced; the blocks hold the new ones.
    tower = wrap_tower(module, model=spec.name, family=spec.family, pretrained=weights.name)
    tower.preprocess = to_preprocess(decision.values, tower.info.image_size)
    if weights.activation is not None:
        tower.computes = (f"activation {weights.activation}",)
    tower.loaded = _record(decision, weights)
    _warn(decision.warning(weights.subject, arguments=True))
    if with_text:
        tower.text = load_text(spec, weights, tower, device)
    weights.forget()
    return tower


def _from_module(
    given: Any,
    pretrained: str | Path | None,
    device: str,
    precision: str | None,
    with_text: bool,
    settings: Settings,
) -> Tower:
    module, family = vision_of(given)
    name = type(module).__name__ if pretrained is None else str(pretrained)
    tower = wrap_tower(given, model=name, family=family, pretrained="module")
    if "activation" in settings:
        raise UsageError("quick_gelu is for files of weights: a built module keeps its own")
    own = module_settings(module, family, tower.info.image_size)
    decision = Decision().take(open_clip_defaults(), "default").take(own, "the module")
    decision.doubt_unknown()
    decision.take(settings, "given")
    tower.preprocess = to_preprocess(decision.values, tower.info.image_size)
    warning = decision.warning(f"a built {type(module).__name__}", arguments=True)
    lines = [warning] if warning else []
    tower.loaded = {"form": "module", "settings": decision.record(), "warnings": lines}
    _warn(warning)
    if with_text:
        tower.text = text_of(given)
    if precision is not None and precision != tower.precision:
        raise UsageError(
            f"the module runs in {tower.precision}: convert it to {precision} before it is passed"
        )
    if device != AUTO:
        move(tower.module, pick_device(device))
    return tower


def given_settings(
    *,
    quick_gelu: bool | None = None,
    resize_mode: str | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    resize: int | None = None,
) -> Settings:
    """Settings that a user decided.

    Raises
    ------
    UsageError
        If mean or std are not three numbers (std above 0), or the mode is unknown.
    """
    given: Settings = {}
    if mean is not None:
        given["mean"] = _triple("mean", mean)
    if std is not None:
        given["std"] = _triple("std", std)
        if min(given["std"]) <= 0:
            raise UsageError(f"`std={_shown(std)}`: expected three numbers above 0")
    if resize_mode is not None:
        if resize_mode not in MODES:
            raise UsageError(f"resize mode {resize_mode!r} is none of {', '.join(MODES)}")
        given["mode"] = resize_mode
        if resize_mode != "shortest":
            given["resize"] = None
    if resize is not None:
        given["resize"] = resize
    if quick_gelu is not None:
        given["activation"] = "quick_gelu" if quick_gelu else "gelu"
    return given


def _shown(values: Triple) -> str:
    return ",".join(f"{value:g}" for value in values)


def _triple(what: str, values: Triple) -> Triple:
    if len(values) != 3:
        raise UsageError(f"`{what}={_shown(values)}`: expected three numbers, one a channel")
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _check_resize(preprocess: Preprocess) -> None:
    if preprocess.resize is not None and preprocess.resize < min(preprocess.size):
        raise UsageError(
            f"resize {preprocess.resize} is smaller than the model's input, "
            f"{min(preprocess.size)} pixels"
        )


def _record(decision: Decision, weights: Weights) -> dict[str, Any]:
    fitted, warning = weights.fitted, decision.warning(weights.subject)
    record: dict[str, Any] = {
        "form": fitted.form if fitted else "random" if weights.random else "tag",
        "settings": decision.record(),
        "warnings": [warning] if warning else [],
        "notes": [],
    }
    if fitted is None:
        return record
    record |= {"file": fitted.file, "where": fitted.where, "names": fitted.names}
    record["left_out"] = fitted.left_out
    found = [f"found under {fitted.where}"] if fitted.where not in ("", "visual.") else []
    found += [f"named as {fitted.names} names them"] if fitted.names else []
    lines = [*found, *fitted.notes]
    record["notes"] = [f"{fitted.file}: {'; '.join(lines)}"] if lines else []
    return record


def _warn(warning: str | None) -> None:
    if warning is not None:
        warnings.warn(warning, XaikitWarning, stacklevel=4)


def _place(tower: Tower, device: torch.device, precision: str) -> None:
    tower.precision = precision
    if precision == "float32":
        move(tower.module, device)
        return
    # The fingerprint names the weights, not the precision they are run in.
    tower.fingerprint = tower.weights_fingerprint
    # A rotary table loses its angles in half precision, and the modules cast after applying it.
    tables = {
        id(module): dict(module.named_buffers(recurse=False))
        for name, module in tower.module.named_modules()
        if name.rpartition(".")[2] == "rope"
    }
    move(tower.module, device)
    tower.module.to(dtype=tower.dtype)
    for module in tower.module.modules():
        for name, table in tables.get(id(module), {}).items():
            setattr(module, name, table.to(device))
