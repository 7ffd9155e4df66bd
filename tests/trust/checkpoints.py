"""Hostile checkpoints: nothing of them runs, and each is refused in a line or read as it is."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from trust.kit import Ended, ended
from trust.small_runs import small_tower

from xaikit.towers.fitting import load_weights
from xaikit.towers.reading import read_content

_RAN: list[str] = []


class Evil:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_RAN.append, ("it ran",))


def run(cases: int, seed: int) -> tuple[int, list[str]]:
    """Try so many files, of all kinds in turn."""
    rng, failures, tower = random.Random(seed), [], small_tower()
    wanted = {name: tensor.clone() for name, tensor in tower.module.state_dict().items()}
    kinds = [_tree, _tensor, _cut, _changed, _header, _evil, _archive]
    with tempfile.TemporaryDirectory() as name:
        for case in range(cases):
            path, kind = Path(name) / f"{case}", kinds[(seed + case) % len(kinds)]
            path, what = kind(rng, path, dict(wanted))
            _RAN.clear()
            found = ended(lambda: load_weights(tower.module, read_content(path)))  # noqa: B023
            found = _looked_at(found, tower.module, wanted, must=kind in (_tree, _cut, _tensor))
            if found.failure:
                failures.append(f"{what}: {found.failure}")
            tower.module.load_state_dict(wanted)
            path.unlink()
    return cases, failures


def _looked_at(
    found: Ended, module: torch.nn.Module, wanted: dict[str, torch.Tensor], *, must: bool
) -> Ended:
    """What is wrong with how a file was taken: it ran, or gave other or odd weights unsaid."""
    if _RAN:
        return Ended(failure="code of the file ran")
    if found.failure or found.refused:
        return found
    state = module.state_dict()
    odd = [k for k, t in state.items() if not t.is_floating_point() or not t.isfinite().all()]
    if odd:
        return Ended(failure=f"{odd[0]} is not finite")
    if must and any(not torch.equal(state[name], wanted[name]) for name in wanted):
        return Ended(failure="other weights without a word")
    return found


def _deep(depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for _ in range(depth):
        tree = {"model": tree}
    return tree


def _itself() -> dict[str, Any]:
    tree: dict[str, Any] = {"epoch": 1}
    tree["model"] = tree["state_dict"] = tree
    return tree


def _laughs(depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"weight": torch.zeros(1)}
    for _ in range(depth):
        tree = {"a": tree, "b": tree}
    return tree


def _tree(rng: random.Random, path: Path, state: dict[str, Any]) -> tuple[Path, str]:
    """Containers of odd shapes, some with the weights somewhere in them."""
    odd: dict[str, Callable[[], Any]] = {
        "itself": _itself,
        "deep": lambda: _deep(rng.choice((10, 200))),
        "laughs": lambda: _laughs(rng.choice((5, 25))),
        "a list": lambda: [state],
        "nothing": dict,
        "a number": lambda: 3,
        "numbers for names": lambda: dict(enumerate(state.values())),
        "wide": lambda: {f"{'x.' * 50}{i}": torch.zeros(1) for i in range(500)},
        "weights among themselves": lambda: {**state, "model": state, "ema": {"model": state}},
        "in containers": lambda: {"a": {"state_dict": {"module": state}}},
    }
    what = rng.choice(list(odd))
    torch.save(odd[what](), path)
    return path, what


def _tensor(rng: random.Random, path: Path, state: dict[str, Any]) -> tuple[Path, str]:
    """One tensor that is none of a weight."""
    name = rng.choice(list(state))
    shape = state[name].shape
    odd: dict[str, Callable[[], Any]] = {
        "complex": lambda: torch.zeros(shape, dtype=torch.complex64),
        "bool": lambda: torch.ones(shape, dtype=torch.bool),
        "sparse": lambda: torch.sparse_coo_tensor(
            torch.zeros(2, 1, dtype=torch.int64), torch.ones(1), (10**9, 10**9)
        ),
        "sparse of its shape": lambda: torch.zeros(shape).to_sparse(),
        "expanded": lambda: torch.zeros(1).expand(10**12),
        "NaN": lambda: torch.full(shape, float("nan")),
        "infinite": lambda: torch.full(shape, float("inf")),
        "quantised": lambda: torch.quantize_per_tensor(torch.zeros(shape), 0.1, 0, torch.qint8),
        "another shape": lambda: torch.zeros(*shape, 2),
        "empty": lambda: torch.zeros(0),
        "text": lambda: "weights",
        "on no device": lambda: torch.zeros(shape, device="meta"),
    }
    what = rng.choice(list(odd))
    torch.save({**state, name: odd[what]()}, path)
    return path, f"{name} is {what}"


def _written(rng: random.Random, path: Path, state: dict[str, Any]) -> Path:
    if rng.random() < 0.5:
        torch.save(state, path)
        return path
    path = path.with_suffix(".safetensors")
    save_file(state, path)
    return path


def _cut(rng: random.Random, path: Path, state: dict[str, Any]) -> tuple[Path, str]:
    path = _written(rng, path, state)
    data = path.read_bytes()
    at = rng.choice((rng.randrange(200), rng.randrange(len(data)), len(data) - 1))
    path.write_bytes(data[:at])
    return path, f"{path.suffix or 'torch'} file cut at {at} of {len(data)}"


def _changed(rng: random.Random, path: Path, state: dict[str, Any]) -> tuple[Path, str]:
    """Changed bytes; a checkpoint has no checksum, so that its weights may be others."""
    path = _written(rng, path, state)
    data = bytearray(path.read_bytes())
    places = [rng.randrange(len(data)) for _ in range(rng.choice((1, 8, 64)))]
    for at in places:
        data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return path, f"{path.suffix or 'torch'} file changed at {places[:3]}"


def _header(rng: random.Random, path: Path, state: dict[str, Any]) -> tuple[Path, str]:
    """A safetensors header that is not true."""
    path = path.with_suffix(".safetensors")
    save_file(state, path)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    what = rng.choice(("offsets", "shape", "dtype", "missing", "length", "metadata"))
    if what == "offsets":
        entry["data_offsets"] = rng.choice(([0, 10**15], [-4, 0], [8, 4], ["a", "b"], [0]))
    elif what == "shape":
        entry["shape"] = rng.choice(([2**62, 4], [-1], ["x"], None, [0]))
    elif what == "dtype":
        entry["dtype"] = rng.choice(("F8", "C64", 3, None, "BOOL"))
    elif what == "missing":
        del entry["shape"]
    elif what == "metadata":
        header["__metadata__"] = rng.choice(({"a": 1}, 3, {"a": "\x1b" * 10000}))
    made = json.dumps(header).encode()
    size = rng.choice((0, 2**63, 2**64 - 1)) if what == "length" else len(made)
    path.write_bytes(struct.pack("<Q", size) + made + data[8 + length :])
    return path, f"safetensors of a false {what}"


def _evil(rng: random.Random, path: Path, state: dict[str, Any]) -> tuple[Path, str]:
    """Something that runs where it is unpickled."""
    what = rng.choice(("pickle", "torch", "legacy", "beside the weights"))
    if what == "pickle":
        path.write_bytes(pickle.dumps(Evil(), protocol=rng.choice((0, 2, 4))))
    else:
        tree = {**state, "hook": Evil()} if what == "beside the weights" else Evil()
        torch.save(tree, path, _use_new_zipfile_serialization=what != "legacy")
    return path, f"code in a {what} file"


def _archive(rng: random.Random, path: Path, state: dict[str, Any]) -> tuple[Path, str]:
    """An archive of odd records."""
    what = rng.choice(("bomb", "deep pickle", "TorchScript", "evil TorchScript", "names"))
    depth = 100_000
    deep = b"\x80\x02" + b"}X\x01\x00\x00\x00m" * depth + b"}" + b"s" * depth + b"."
    records = {
        "bomb": {"w/data.pkl": bytes(50_000_000), "w/version": b"3\n"},
        "deep pickle": {"w/data.pkl": deep, "w/version": b"3\n"},
        "names": {"../../etc/data.pkl": pickle.dumps({}), "/version": b"3\n"},
    }
    if what in records:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in records[what].items():
                archive.writestr(name, data)
        return path, what
    made = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), made)
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.infolist():
            own = what.startswith("evil") and record.filename.endswith("/data.pkl")
            data = pickle.dumps(Evil(), protocol=2) if own else source.read(record)
            target.writestr(record.filename, data)
    return path, what
