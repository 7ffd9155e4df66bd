"""Ways to spoil a file: in its bytes, in its header or JSON, and as one that was written so.

A *sealed* change is written again with digests and identity that go with it, as a writer with a
fault would have: nothing but the schema stands between it and a stage.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors.torch import load

from xaikit.artifacts.digests import BLANK, BLOCKS, DIGEST, sealed
from xaikit.artifacts.records import identity_of
from xaikit.artifacts.tensorfile import digests_of, write_whole

Change = Callable[[random.Random, bytes], bytes]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**30, -(2**70), 0.5, 1.5, -0.25, 1e308),
    *("", "text", "../..", "\x1b[31m", "a" * 300, [], [[]], {}, {"a": 1}, [None], [1, "two", 3.0]),
)


def flip(rng: random.Random, data: bytes) -> bytes:
    """Another bit."""
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def zeros(rng: random.Random, data: bytes) -> bytes:
    """A stretch of zeros."""
    at, length = rng.randrange(len(data)), rng.randint(1, 600)
    part = data[at : at + length]
    return data[:at] + bytes(len(part)) + data[at + length :]


def noise(rng: random.Random, data: bytes) -> bytes:
    """A stretch of noise."""
    at, length = rng.randrange(len(data)), rng.randint(1, 300)
    part = data[at : at + length]
    return data[:at] + rng.randbytes(len(part)) + data[at + length :]


def cut(rng: random.Random, data: bytes) -> bytes:
    """An end that is missing."""
    return data[: rng.randrange(len(data))]


def longer(rng: random.Random, data: bytes) -> bytes:
    """Bytes beyond the end."""
    return data + rng.randbytes(rng.choice([1, 8, 4096]))


def without(rng: random.Random, data: bytes) -> bytes:
    """Bytes missing in the middle."""
    at, length = rng.randrange(len(data)), rng.randint(1, 64)
    return data[:at] + data[at + length :]


def twice(rng: random.Random, data: bytes) -> bytes:
    """A stretch there two times."""
    at, length = rng.randrange(len(data)), rng.randint(1, 64)
    return data[: at + length] + data[at:]


def moved(rng: random.Random, data: bytes) -> bytes:
    """Two stretches in each other's place."""
    length = rng.randint(1, max(1, min(64, len(data) // 4)))
    one = rng.randrange(max(1, len(data) // 2 - length))
    two = rng.randrange(len(data) // 2, max(len(data) // 2 + 1, len(data) - length))
    a, b = data[one : one + length], data[two : two + length]
    return data[:one] + b + data[one + length : two] + a + data[two + length :]


def digit(rng: random.Random, data: bytes) -> bytes:
    """Another digit of a number in the text."""
    places = [at for at, each in enumerate(data[:100_000]) if 48 <= each <= 57]
    at = rng.choice(places)
    new = rng.choice([each for each in range(48, 58) if each != data[at]])
    return data[:at] + bytes([new]) + data[at + 1 :]


BYTES: tuple[Change, ...] = (flip, zeros, noise, cut, longer, without, twice, moved, digit)


def edited(rng: random.Random, value: Any) -> Any:
    """A JSON value with one change somewhere: a key gone, another name, type, number or depth."""
    at, where = value, []
    while isinstance(at, dict | list) and at:
        where.append(at)
        step = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
        if not isinstance(at[step], dict | list) or not at[step] or rng.random() < 0.25:
            _change(rng, at, step)
            break
        at = at[step]
    return value


def _change(rng: random.Random, holder: Any, key: Any) -> None:
    kind = rng.randrange(6)
    old = holder[key]
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif kind == 2:
        deep: Any = old
        for _ in range(rng.choice([1, 3, 70, 300])):
            deep = [deep]
        holder[key] = deep
    elif kind == 3 and type(old) in (int, float):
        holder[key] = rng.choice([old + 1, -old - 1, old * 1000 + 7, old + 0.5, str(old)])
    elif kind == 4 and isinstance(old, list) and old:
        holder[key] = rng.choice([old[:-1], old + old[:1], old[::-1] + old[:1], old[0]])
    else:
        holder[key] = rng.choice([each for each in VALUES if each != old])


def json_text(value: Any) -> bytes:
    """JSON of any value, deep ones and large numbers among them."""
    return json.dumps(value, allow_nan=True).encode()


def split(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Fields, table and tensors' bytes of a safetensors file."""
    end = 8 + int.from_bytes(data[:8], "little")
    table = orjson.loads(data[8:end])
    fields = {key: orjson.loads(each) for key, each in table.pop("__metadata__").items()}
    return fields, table, data[end:]


def joined(fields: dict[str, Any], table: dict[str, Any], body: bytes) -> bytes:
    """Put a safetensors file together."""
    metadata = {key: json_text(each).decode() for key, each in fields.items()}
    header = json_text({"__metadata__": metadata, **table})
    return len(header).to_bytes(8, "little") + header + body


def header(rng: random.Random, data: bytes) -> bytes:
    """A change of a header's table or fields, under the old digests."""
    fields, table, body = split(data)
    kind = rng.randrange(6)
    name = rng.choice(list(table))
    entry = table[name]
    if kind == 0:
        entry["dtype"] = rng.choice(["F64", "F16", "I8", "BOOL", "U64", "F99", 3, "I32", "BF16"])
    elif kind == 1:
        rng.shuffle(entry["shape"])
        entry["shape"] = rng.choice([entry["shape"][::-1], [2**62, 2**62], [-1], [], "x", [1.5]])
    elif kind == 2:
        entry["data_offsets"] = rng.choice([[0, 2**63], [5, 1], [-4, 4], [0], [0, 0], None])
    elif kind == 3:
        table[f"{name}x"] = table.pop(name)
    elif kind == 4:
        del table[name]
    else:
        fields = edited(rng, fields)
    length = rng.random()
    made = joined(fields, table, body)
    if length < 0.1:
        made = rng.choice([0, 2**31, 2**63, 2**64 - 1]).to_bytes(8, "little") + made[8:]
    return made


def text(rng: random.Random, data: bytes) -> bytes:
    """A change of a JSON file under its old digest."""
    if rng.random() < 0.1:
        return rng.choice([b"[", b'{"a":']) * rng.choice([10, 2000, 100_000]) + data
    if rng.random() < 0.1:
        literal = rng.choice([b"NaN", b"Infinity", b"1e999", b"'", b"//"])
        at = rng.choice([at for at, each in enumerate(data) if 48 <= each <= 57])
        return data[:at] + literal + data[at + 1 :]
    return json_text(edited(rng, orjson.loads(data)))


def sealed_json(rng: random.Random, data: bytes, hints: tuple[str, ...]) -> bytes:
    """A change of a JSON file with a digest and an identity that go with it."""
    fields = edited(rng, orjson.loads(data))
    if DIGEST in fields:
        fields = {DIGEST: BLANK, **{key: each for key, each in fields.items() if key != DIGEST}}
    if "identity" in fields and "layer" in fields:
        # It is too deep, or a number is one that JSON has no room for.
        with contextlib.suppress(TypeError):
            fields["identity"] = identity_of(
                {key: each for key, each in fields.items() if key != DIGEST}, hints
            )
    return sealed(json_text(fields))[0]


def sealed_tensors(rng: random.Random, path: Path, hints: tuple[str, ...]) -> None:
    """A change of a safetensors file's fields or tensors, written as if it were right."""
    data = path.read_bytes()
    fields, _, _ = split(data)
    tensors = load(data)
    fields = {key: each for key, each in fields.items() if key not in (DIGEST, BLOCKS)}
    if rng.random() < 0.4:
        fields = edited(rng, fields)
    else:
        spoil(rng, tensors)
    digests = digests_of(tensors)
    if fields.get("stage") in ("cluster", "fit"):
        with contextlib.suppress(TypeError):
            fields["identity"] = identity_of(fields, hints, digests)
    try:
        write_whole(path, tensors, fields, digests)
    except Exception:
        # What the writer itself refuses is not on any disk.
        path.write_bytes(flip(rng, data))


def spoil(rng: random.Random, tensors: dict[str, torch.Tensor]) -> None:
    """Another number, type, shape or name of a tensor."""
    name = rng.choice(list(tensors))
    tensor = tensors[name]
    kind = rng.randrange(7)
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[f"{name}x"] = tensors.pop(name)
    elif kind == 2:
        other = rng.choice([torch.float64, torch.float16, torch.int32, torch.uint8, torch.bool])
        tensors[name] = torch.nan_to_num(tensor.float()).to(other)
    elif kind == 3:
        tensors[name] = rng.choice([tensor[:-1], torch.cat([tensor, tensor[:1]]), tensor[None]])
    elif kind == 4 and tensor.ndim > 1:
        tensors[name] = tensor.transpose(0, 1).contiguous()
    elif tensor.numel():
        flat = tensor.clone().reshape(-1)
        numbers = [2, 99, -1] if not tensor.is_floating_point() else [float("nan"), 1e30, -2.0]
        value = rng.choice([*numbers, float("inf")] if tensor.is_floating_point() else numbers)
        if tensor.dtype == torch.uint8:
            value = abs(value)
        flat[rng.randrange(len(flat))] = value
        tensors[name] = flat.view(tensor.shape)
