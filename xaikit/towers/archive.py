"""Tensors of a TorchScript archive, such as OpenAI's CLIP files, without running its code.

`torch.jit.load` compiles and may run what an archive brings along. Beside that code an archive
holds what `torch.save` writes, a pickle of tensors, in which every module is an object of a class
of the archive's own. It is read by torch's weights-only reader, with those classes replaced by
one that only keeps what it is given.
"""

from __future__ import annotations

import io
import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xaikit.errors import UsageError

_CODE = ("code/", "constants.pkl", "constants/")
_LISTS = tuple(
    f"torch.jit._pickle.build_{kind}list" for kind in ("int", "double", "bool", "tensor")
)
"""How archives write a list of one type: a function that returns its argument."""
_LIMIT = 1 << 26
"""Bytes of the pickle that lists the tensors; OpenAI's largest has 300 kB."""
_DEPTH = 64


class _Module:
    """A module of the archive: its attributes, and none of its code."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = dict(state) if isinstance(state, dict) else {}


def _kept(values: Any) -> Any:
    return values


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return "constants.pkl" in names and "data.pkl" in names


def read_archive(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read the tensors of a TorchScript archive under the names of its modules.

    Returns
    -------
    state : dict of Tensor
    activation : str, optional
        ``quick_gelu`` or ``gelu``, where the archive has modules of that class alone.

    Raises
    ------
    UsageError
        If the archive is damaged, or its tensors cannot be had without its code.
    """
    try:
        plain, classes = _without_code(path)
        allowed: list[Any] = [(_Module, name) for name in classes]
        allowed += [(_kept, name) for name in _LISTS]
        with warnings.catch_warnings(), torch.serialization.safe_globals(allowed):
            warnings.simplefilter("ignore")
            root = torch.load(plain, map_location="cpu", weights_only=True)
        return _tensors(root), _activation(classes)
    except Exception:
        raise UsageError(
            f"checkpoint {path} is a TorchScript archive whose tensors cannot be read without "
            "running its code, and xaikit never does; save its state dict as .safetensors"
        ) from None


def _without_code(path: Path) -> tuple[io.BytesIO, set[str]]:
    """Copy the archive's tensors and their pickle; return the archive's own classes as well."""
    plain = io.BytesIO()
    classes: set[str] = set()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(plain, "w") as copy:
        for record in archive.infolist():
            name = record.filename.partition("/")[2]
            if name.startswith(_CODE):
                continue
            if record.compress_type != zipfile.ZIP_STORED:
                raise ValueError("compressed")
            if name == "data.pkl":
                classes = _own_classes(archive.read(record) if record.file_size < _LIMIT else b"")
            with archive.open(record) as source, copy.open(f"plain/{name}", "w") as target:
                while piece := source.read(1 << 20):
                    target.write(piece)
    plain.seek(0)
    return plain, classes


def _own_classes(pickled: bytes) -> set[str]:
    names = (argument for code, argument, _ in pickletools.genops(pickled) if code.name == "GLOBAL")
    dotted = {str(name).replace(" ", ".", 1) for name in names}
    return {name for name in dotted if name.startswith("__torch__.")}


def _tensors(root: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    waiting = [("", root, 0)]
    while waiting:
        prefix, module, depth = waiting.pop()
        if depth > _DEPTH:
            raise ValueError("too deep")
        for name, value in module.attributes.items():
            if isinstance(value, Tensor):
                found[prefix + name] = value.detach()
            elif isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value, depth + 1))
    return found


def _activation(classes: set[str]) -> str | None:
    last = {name.rpartition(".")[2] for name in classes}
    quick, plain = "QuickGELU" in last, "GELU" in last
    if quick == plain:
        return None
    return "quick_gelu" if quick else "gelu"
