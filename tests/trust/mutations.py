"""Row of the table: artefacts on disk, changed in some way, are refused or give what they gave.

A case changes one file of a copy of the golden set and reads it through its loader, and for a
share of the cases through the commands that read it. It fails where the end is no result and no
clear line, takes too long or too much, or where the result is another one without a word. What was
written again with digests that go with it is another artefact: it may be read as such.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from trust import mutate
from trust.kit import ended

from xaikit.artifacts.explanation import Explanation
from xaikit.artifacts.files import FORMAT_VERSION, read_json
from xaikit.artifacts.graph import Graph
from xaikit.artifacts.results import Causal, Circuit, Intervention, TargetCausal
from xaikit.artifacts.run_record import read_run
from xaikit.artifacts.schema import require_schema
from xaikit.artifacts.stored import read_tensors
from xaikit.artifacts.studies import Baselines, Stability
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.cli import main
from xaikit.errors import XaikitError

GOLDEN = Path(__file__).parents[1] / "golden" / f"version-{FORMAT_VERSION}"
COMMANDS = 20
"""One case in so many also goes through the commands that read the file."""


def trace_at(path: Path) -> Any:
    """Everything in a trace."""
    found = Trace.load(path)
    rows = torch.arange(len(found)).numpy()
    tensors = [found.h_l, found.ffn_gate_l, found.attn_logits_l1, found.residual_norms_of(rows)]
    return found.info, [*tensors, found.queries_of(rows), found.keys_of(rows)]


def small(stage: str) -> Callable[[Path], Any]:
    """A reader of a file that has no class."""

    def read(path: Path) -> Any:
        found = read_json(path, stage)
        require_schema(path, found, stage)
        return found

    return read


def pass_at(path: Path) -> Any:
    """What an interrupted pass left."""
    header, tensors = read_tensors(path, "pass")
    require_schema(path, header.fields, "pass")
    return header.fields, tensors


@dataclass(frozen=True)
class Kind:
    """A file of the golden set, how it is read, and by which commands."""

    name: str
    read: Callable[[Path], Any]
    loaded: str = ""
    files: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def _kinds() -> Iterator[Kind]:
    for folder, trace in (("layer_2", "trace.safetensors"), ("layer_3", "trace")):
        whole = f"{folder}/{trace}"
        stages = ("cluster", "fit", "target-causal")
        parts = ("index.json", "shard-00000.safetensors", "shard-00001.safetensors")
        for name in [f"{whole}/{part}" for part in parts] if trace == "trace" else [whole]:
            yield Kind(name, trace_at, whole, (), stages)
        after = ("fit", "causal", "target-causal", "export")
        for file, kind, commands in (
            ("features.safetensors", Features, after),
            ("fit.safetensors", Fit, ("circuit", "causal", "target-causal", "export")),
            ("circuit.json", Circuit, ("target-causal", "graph", "export")),
            ("causal.json", Causal, ("export",)),
            ("target_causal.json", TargetCausal, ("export",)),
            ("intervene.json", Intervention, ("export",)),
        ):
            yield Kind(f"{folder}/{file}", kind.load, "", kind.FILES, commands)
    for file, other in (
        ("explain.json", Explanation),
        ("baselines.json", Baselines),
        ("stability.json", Stability),
    ):
        yield Kind(file, other.load, "", other.FILES)
    yield Kind("graph.json", Graph.load)
    yield Kind("run.json", lambda path: read_run(path.parent), commands=("graph",))
    yield Kind("layer_2/manifest.json", small("manifest"))
    yield Kind("stream-state/sums-2-0-of-1.safetensors", pass_at)


KINDS = tuple(_kinds())


def run(cases: int, seed: int) -> tuple[int, list[str]]:
    """Try so many changes; return how many were tried, and a line for each failure."""
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "set"
        shutil.copytree(GOLDEN, place)
        right = Right(place)
        for case in range(cases):
            # Each kind in turn, so that a share has them all.
            kind = KINDS[case % len(KINDS)]
            failure = right.tried(kind, random.Random(f"{seed}-{case}"), case)
            if failure:
                failures.append(f"case {case}: {failure}")
    return cases, failures


class Right:
    """A golden set as it should read, in a folder where one file at a time is spoilt."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.known = {kind.name: frozen(kind.read(self.path(kind))) for kind in KINDS}
        self._outputs: dict[tuple[str, str], str] = {}

    def path(self, kind: Kind) -> Path:
        """What a kind's loader is given."""
        return self.place / (kind.loaded or kind.name)

    def tried(self, kind: Kind, rng: random.Random, turn: int) -> str | None:
        """Spoil a file, read it, and put it back; say what failed."""
        file = self.place / kind.name
        commands = (
            (*kind.commands, "inspect") if (turn + turn // len(KINDS)) % COMMANDS == 0 else ()
        )
        expected = [self.output(kind, each) for each in commands]
        data = file.read_bytes()
        try:
            what, honest = spoilt(rng, file, kind)
            if file.read_bytes() == data:
                return None
            failure = self._read(kind, honest)
            for command, right in zip(commands, expected, strict=True):
                failure = failure or self._command(kind, command, right, honest)
        finally:
            file.write_bytes(data)
        return failure and f"{what} of {kind.name}: {failure}"

    def _read(self, kind: Kind, honest: bool) -> str | None:
        found = ended(lambda: frozen(kind.read(self.path(kind))))
        if found.failure:
            return found.failure
        if found.refused and self.place.name not in found.refused:
            return f"does not name the file: {found.refused}"
        if not found.refused and honest and found.value != self.known[kind.name]:
            return "another result without a word"
        return None

    def _command(self, kind: Kind, command: str, right: str, honest: bool) -> str | None:
        # What is wrong with a file is what this command is there to print.
        honest &= command != "inspect"
        found = ended(lambda: self._run(kind, command))
        if found.failure:
            return f"{command}: {found.failure}"
        if not found.refused and honest and found.value != right:
            return f"{command}: another result without a word"
        return None

    def output(self, kind: Kind, command: str) -> str:
        """What a command writes for the right files."""
        key = (kind.name.partition("/")[0], command)
        if key not in self._outputs:
            self._outputs[key] = self._run(kind, command)
        return self._outputs[key]

    def _run(self, kind: Kind, command: str) -> str:
        layer = kind.name.partition("/")[0] if "/" in kind.name else "layer_2"
        folder, out = self.place / layer, self.place.parent / f"out-{command}"
        trace = folder / ("trace" if (folder / "trace").exists() else "trace.safetensors")
        parts = {
            "--trace": trace,
            "--features": folder / "features.safetensors",
            "--fit": folder / "fit.safetensors",
            "--circuit": folder / "circuit.json",
        }
        given = {
            "cluster": (("--trace",), ("--num-clusters", "3", "--method", "kmeans")),
            "fit": (("--trace", "--features"), ("--num-permutations", "5")),
            "circuit": (("--fit",), ("--rank", "contrast")),
            "causal": (("--features", "--fit"), ("--num-permutations", "5")),
            "target-causal": (tuple(parts), ("--num-permutations", "5")),
        }
        if command == "inspect":
            return cli(command, str(self.place / kind.name), "--json")
        if command == "graph":
            return cli(command, str(self.place), "--json")
        if command == "export":
            shutil.rmtree(out, ignore_errors=True)
            cli(command, str(self.place), "--csv", str(out), "--quiet")
            return "".join(each.read_text() for each in sorted(out.iterdir()))
        names, options = given[command]
        chosen = [word for name in names for word in (name, str(parts[name]))]
        return cli(command, *chosen, *options, "--out", str(out), "--json")


def cli(*arguments: str) -> str:
    """What a command prints; a line on standard error and no traceback where it is refused."""
    printed, said = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
            main(list(arguments))
    except SystemExit as error:
        if error.code:
            line = said.getvalue().strip()
            if "(unexpected;" in line:
                raise AssertionError(line) from None
            raise XaikitError(line) from None
    return printed.getvalue()


def spoilt(rng: random.Random, file: Path, kind: Kind) -> tuple[str, bool]:
    """Change a file; what was done, and whether its digests still are the old ones."""
    data, tensors = file.read_bytes(), file.suffix == ".safetensors"
    way = rng.random()
    if way < 0.45:
        change: mutate.Change = rng.choice(mutate.BYTES)
    elif way < 0.75:
        change = mutate.header if tensors else mutate.text
    elif way < 0.8:
        other = rng.choice([each for each in KINDS if each.name != kind.name])
        file.write_bytes((GOLDEN / other.name).read_bytes())
        # Files of one kind and of other layers are each right in themselves.
        return f"swap for {other.name}", other.read != kind.read
    elif tensors:
        mutate.sealed_tensors(rng, file, kind.files)
        return "sealed change", False
    else:
        file.write_bytes(mutate.sealed_json(rng, data, kind.files))
        return "sealed change", False
    file.write_bytes(change(rng, data))
    return change.__name__, True


def frozen(value: Any) -> Any:
    """A value that can be compared, tensors by their bytes."""
    if isinstance(value, torch.Tensor):
        data = value.detach().contiguous()
        return (
            str(data.dtype),
            tuple(data.shape),
            data.reshape(-1).view(torch.uint8).numpy().tobytes(),
        )
    if isinstance(value, dict):
        return {key: frozen(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [frozen(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {each.name: frozen(getattr(value, each.name)) for each in fields(value)}
    return value
