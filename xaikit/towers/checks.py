"""What a file of weights may not hold, and where it does not fit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from xaikit.errors import UsageError
from xaikit.towers.unwrapping import Found


def require_tensors(found: Found) -> None:
    """Refuse what no module is made of, before anything is computed from it.

    Raises
    ------
    UsageError
        Naming the tensor: an adapter, a sparse one, or one that repeats few numbers.
    """
    for name, value in found.state.items():
        if ".lora_A." in name or ".lora_B." in name:
            raise UsageError(
                f"the file holds LoRA adapters ({name[:80]}), which are no weights by themselves: "
                "merge them (peft: model.merge_and_unload()) and save the state dict of that"
            )
        if value.layout != torch.strided:
            raise UsageError(f"the file's {name[:80]} is sparse; weights have to be dense")
        if value.is_meta:
            raise UsageError(f"the file's {name[:80]} has a shape and no values; save it with them")
        if value.is_quantized:
            continue
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UsageError(
                f"the file's {name[:80]} repeats few numbers {list(value.shape)} times; "
                "weights have to be stored in full"
            )


def check_values(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> None:
    for name, value in state.items():
        if name not in wanted or not wanted[name].is_floating_point():
            continue
        if not value.is_floating_point() or value.is_quantized:
            kind = str(value.dtype).removeprefix("torch.")
            why = "quantised" if "int" in kind else "not real numbers"
            raise UsageError(
                f"{source} holds {kind} values in {name}: {why}, so they are no weights by "
                "themselves; pass the file that was made before that"
            )
        if value.shape == wanted[name].shape and not bool(torch.isfinite(value.float()).all()):
            raise UsageError(f"{source} holds numbers that are not finite in {name}")


def problems_of(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    shapes = [
        f"{name} {list(found[name].shape)} (expected {list(wanted[name].shape)})"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    kinds = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "wrong shape": shapes,
    }
    return [_first(kind, names) for kind, names in kinds.items() if names]


def _first(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{kind} {', '.join(names[:3])}{more}"
