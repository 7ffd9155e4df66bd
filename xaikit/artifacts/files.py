"""Files that are whole or absent: safetensors and JSON, written aside and renamed."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from xaikit.artifacts.finite import require_finite
from xaikit.artifacts.replacing import replacing
from xaikit.artifacts.tensorfile import encode_header, write_whole
from xaikit.errors import UsageError

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


def write_json(path: str | Path, fields: Mapping[str, Any]) -> None:
    """Write `fields` with orjson; numbers that are not finite are refused, not written as null."""
    require_finite(fields)
    data = orjson.dumps(
        dict(fields),
        option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE,
    )
    with replacing(path) as temporary:
        temporary.write_bytes(data)


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


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], fields: Mapping[str, Any]
) -> None:
    """Write one safetensors file with `fields` in its header; equal content gives equal bytes."""
    metadata = encode_header(fields)
    with replacing(path) as temporary:
        write_whole(temporary, tensors, metadata)


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
    fields, _ = read_header(path, stage)
    try:
        return fields, load_file(path)
    except (SafetensorError, KeyError):
        raise UsageError(f"{path} is damaged; run `xaikit {stage}` again") from None
