"""Files of weights, read without running anything that they bring along."""

from __future__ import annotations

import argparse
import json
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from xaikit.errors import UsageError
from xaikit.towers.archive import is_archive, read_archive

INDEX = ".index.json"
"""Ending of the list of shards that transformers writes beside them."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file of weights holds.

    Attributes
    ----------
    file : str
        The file's name, for messages.
    form : str
        ``safetensors``, ``torch checkpoint`` or ``TorchScript archive``.
    tree : object
        Tensors in nested dicts, as they were saved.
    activation : str, optional
        Where the file says it: ``quick_gelu`` or ``gelu``.
    """

    file: str
    form: str
    tree: Any
    activation: str | None = None


def read_content(path: Path) -> Content:
    """Read a safetensors file (or its index of shards), a torch checkpoint or an archive.

    Raises
    ------
    UsageError
        If the file is missing or unreadable, or could only be read by running code.
    """
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist")
    if path.name.endswith(INDEX):
        return _sharded(path)
    if path.suffix == ".safetensors":
        return Content(file=path.name, form="safetensors", tree=_safetensors(path))
    if path.suffix == ".npz":
        raise UsageError(
            f"checkpoint {path} is a JAX archive (.npz), which is not read; pass the timm or "
            "open_clip file of the same weights (.safetensors)"
        )
    if is_archive(path):
        tree, activation = read_archive(path)
        return Content(file=path.name, form="TorchScript archive", tree=tree, activation=activation)
    return Content(file=path.name, form="torch checkpoint", tree=_torch(path))


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"checkpoint {path} is no readable safetensors file: {error}") from None


def _sharded(path: Path) -> Content:
    try:
        shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [path.parent / Path(shard).name for shard in shards]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"checkpoint {path} is no index of shards") from None
    tree: dict[str, Any] = {}
    for file in files:
        found = read_content(file).tree if not file.name.endswith(INDEX) else None
        if not isinstance(found, dict):
            raise UsageError(f"checkpoint {path} names {file.name}, which is no shard of weights")
        tree |= found
    return Content(file=path.name, form=f"{len(files)} shards", tree=tree)


def _torch(path: Path) -> Any:
    mapped = zipfile.is_zipfile(path)
    if mapped and any(record.compress_type for record in _records(path)):
        raise UsageError(f"checkpoint {path} is compressed inside, which torch.save never does")
    try:
        # Training scripts keep their arguments beside the weights; a namespace runs nothing.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception:
        raise UsageError(
            f"checkpoint {path} cannot be read as plain tensors (torch.load, weights_only)"
            f"{_blocked(path)}, and xaikit never unpickles; save its state dict as .safetensors"
        ) from None


def _records(path: Path) -> Iterator[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield from archive.infolist()
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"checkpoint {path} is no readable archive: {error}") from None


def _blocked(path: Path) -> str:
    """Name what the file would have run, where torch can tell without running it."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        return ""
    return f": it names {', '.join(sorted(names)[:3])}" if names else ""
