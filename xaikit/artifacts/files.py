"""Files that are whole or absent: safetensors and JSON, written aside and renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import numbers
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from xaikit.errors import UsageError, XaikitError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
"""Version of every artefact's layout; a reader refuses a higher one."""


def fingerprint(*parts: object) -> str:
    """Hash JSON-able values, or bytes, into 16 hexadecimal digits (SHA-256)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes | bytearray | memoryview):
            data = bytes(part)
        else:
            data = orjson.dumps(part, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` and rename it to `path` on success.

    Raises
    ------
    UsageError
        Where the folder cannot be written to, or `path` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target} is a folder; pass a file name to write to")
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{target.name}.", suffix=".partial", dir=target.parent
        )
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, fields: Mapping[str, Any]) -> None:
    """Write `fields` with orjson; numbers that are not finite are refused, not written as null."""
    _require_finite(fields, "")
    data = orjson.dumps(
        dict(fields),
        option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE,
    )
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _require_finite(value: Any, where: str) -> None:
    if isinstance(value, numbers.Real) and not math.isfinite(value):
        raise XaikitError(f"a result is not finite ({where or 'value'} = {value})")
    if hasattr(value, "tolist"):
        # orjson would write the NaN of an array as null.
        value = value.tolist()
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_finite(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _require_finite(item, f"{where}[{index}]")


def read_json(path: str | Path, stage: str) -> dict[str, Any]:
    """Read a JSON artefact of `stage`.

    Raises
    ------
    UsageError
        Where the file is missing, no JSON, or of another stage or a later format.
    """
    source = existing_file(path, stage)
    try:
        fields = orjson.loads(source.read_bytes())
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{source} is not valid JSON ({error}); expected a {stage} file") from None
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror or error}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"{source} is not a {stage} file")
    require_stage(source, fields, stage)
    return fields


def existing_file(path: str | Path, stage: str) -> Path:
    """Check that `path` is a file, in one line that names it."""
    source = Path(path)
    if not source.exists():
        raise UsageError(
            f"no {stage} file at {source}; run `xaikit {stage}` first or check the path"
        )
    if source.is_dir():
        raise UsageError(f"{source} is a folder; expected a {stage} file")
    return source


def require_stage(path: Path, fields: Mapping[str, Any], stage: str) -> None:
    """Refuse an artefact of another stage or of a later format."""
    found = fields.get("stage")
    if found != stage:
        raise UsageError(f"{path} is {_article(found)}; expected a {stage} file")
    version = fields.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UsageError(
            f"{path} has format version {version}; this xaikit reads up to "
            f"{FORMAT_VERSION}: upgrade xaikit"
        )


def _article(found: object) -> str:
    return f"a {found} file" if isinstance(found, str) else "not an xaikit artefact"


def encode_header(fields: Mapping[str, Any]) -> dict[str, str]:
    """JSON-encode each value, since a safetensors header holds only strings."""
    _require_finite(fields, "")
    return {
        key: orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
        for key, value in fields.items()
    }


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]
) -> None:
    """Write one safetensors file with `fields` in its header."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
            temporary,
            metadata=encode_header(fields),
        )


def read_header(path: str | Path, stage: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the fields and the tensors' table (dtype, shape, data_offsets) of a safetensors file.

    Raises
    ------
    UsageError
        Where the file is missing, truncated, no safetensors, or of another stage.
    """
    source = existing_file(path, stage)
    size = source.stat().st_size
    try:
        with source.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, 100_000_000):
                raise ValueError("header length")
            header = json.loads(file.read(length))
        encoded = header.pop("__metadata__", {})
        fields = {key: orjson.loads(value) for key, value in encoded.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, struct.error):
        raise UsageError(f"{source} is not a safetensors file; expected a {stage} file") from None
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror or error}") from None
    if size != 8 + length + end:
        raise UsageError(f"{source} is truncated or damaged; run `xaikit {stage}` again")
    require_stage(source, fields, stage)
    return fields, header


def read_tensors(path: str | Path, stage: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a whole small safetensors artefact: its fields and its tensors."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    fields, _ = read_header(path, stage)
    try:
        return fields, load_file(path)
    except (SafetensorError, KeyError):
        raise UsageError(f"{path} is damaged; run `xaikit {stage}` again") from None
