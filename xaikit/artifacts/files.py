"""Files that are whole or absent: safetensors and JSON, written aside and renamed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from torch import Tensor

from xaikit.artifacts.digests import BLANK, DIGEST, require_seal, sealed
from xaikit.artifacts.finite import require_finite
from xaikit.artifacts.replacing import replacing
from xaikit.artifacts.tensorfile import write_whole
from xaikit.errors import UsageError

FORMAT_VERSION = 2
"""Version of every artefact's layout; a reader refuses any other."""
_JSON_LIMIT = 1 << 29
_DEPTH = 64
_COMMANDS = ("trace", "cluster", "fit", "circuit", "causal", "target-causal", "intervene", "graph")
_STUDIES = ("baselines", "stability", "explain")


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
    """Write `fields` with orjson, under a digest of the file.

    Numbers that are not finite are refused, not written as null.
    """
    require_finite(fields)
    data = orjson.dumps(
        {DIGEST: BLANK, **fields},
        option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE,
    )
    with replacing(path) as temporary:
        temporary.write_bytes(sealed(data)[0])


def read_json(path: str | Path, stage: str) -> dict[str, Any]:
    """Read a JSON artefact of `stage`; it is what was written.

    Raises
    ------
    UsageError
        Where the file is missing, changed, no JSON, or of another stage or format.
    """
    source = existing_file(path, stage)
    try:
        if source.stat().st_size > _JSON_LIMIT:
            raise UsageError(f"{source} is too large for a {stage} file: {again(stage)}")
        data = source.read_bytes()
        fields = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UsageError(
            f"{source} is not valid JSON ({error}); expected a {stage} file: {again(stage)}"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror or error}") from None
    if not isinstance(fields, dict):
        raise UsageError(f"{source} is not a {stage} file")
    require_stage(source, fields, stage)
    require_seal(data, fields, source, again(stage))
    require_depth(source, fields)
    del fields[DIGEST]
    return fields


def again(stage: str) -> str:
    """What to do about a file of a stage that cannot be used."""
    if stage in _COMMANDS:
        return f"make it again with `xaikit {stage}`, or `xaikit run-all`"
    return f"make it again with `xaikit {stage if stage in _STUDIES else 'run-all'}`"


def require_depth(path: object, fields: Any) -> None:
    """Refuse values nested so deeply that nothing wrote them."""
    layer = [fields]
    for _ in range(_DEPTH):
        layer = [
            inner
            for each in layer
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not layer:
            return
    raise UsageError(f"{path} is nested more than {_DEPTH} deep; it was not written by xaikit")


def lies_beside(name: str) -> bool:
    """Whether what a file names lies in the same folder."""
    return Path(name).name == name and name not in ("", "..")


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
    """Refuse an artefact of another stage or of another format."""
    found = fields.get("stage")
    if found != stage:
        raise UsageError(f"{path} is {_article(found)}; expected a {stage} file")
    version = fields.get("format_version")
    if type(version) is not int or version > FORMAT_VERSION:
        raise UsageError(
            f"{path} has format version {version}; this xaikit reads {FORMAT_VERSION}: upgrade "
            "xaikit"
        )
    if version < FORMAT_VERSION:
        raise UsageError(
            f"{path} has format version {version}, which carries no digests; this xaikit reads "
            f"{FORMAT_VERSION}: {again(stage)}"
        )


def _article(found: object) -> str:
    return f"a {found} file" if isinstance(found, str) else "not an xaikit artefact"


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    fields: Mapping[str, Any],
    digests: Mapping[str, list[str]] | None = None,
) -> None:
    """Write one safetensors file with `fields` in its header; equal content gives equal bytes.

    Parameters
    ----------
    digests : mapping, optional
        Of the tensors' blocks, where they are known.
    """
    with replacing(path) as temporary:
        write_whole(temporary, tensors, fields, digests)
