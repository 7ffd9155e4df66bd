"""One run of all layers: what is there is kept, the rest is made in as few passes as it takes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from xaikit.artifacts.file_names import FEATURES, FIT, TARGET_CAUSAL, TRACE, TRACE_SHARDS
from xaikit.artifacts.results import Circuit, TargetCausal
from xaikit.artifacts.storage import require_room
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.distributed import World
from xaikit.errors import XaikitError
from xaikit.passes.feed import LayerPair, StoredFeed, Visitor, chunks
from xaikit.passes.memory import budget
from xaikit.progress import named
from xaikit.run.forecast import disk_bytes
from xaikit.run.groups import run_groups
from xaikit.run.layer import LayerRun, LayerStages
from xaikit.run.live import run_live
from xaikit.run.record import write_run
from xaikit.run.reuse import Folder
from xaikit.run.stream import stream
from xaikit.run.subject import Subject
from xaikit.run.whole import Runs, run_whole
from xaikit.stages.target_causal import EdgeTests
from xaikit.stages.trace import trace_layers

if TYPE_CHECKING:
    import numpy as np

    from xaikit.towers import Tower

_CHUNK = 32


class AllLayers:
    """One run of all layers: `stored` or `streamed`, then the `rest`."""

    def __init__(
        self, subject: Subject, pairs: list[LayerPair], root: Path, force: bool, command: str
    ) -> None:
        self.subject, self.pairs, self.root, self.force = subject, pairs, root, force
        self.command = command
        folders = [root if len(pairs) == 1 else root / f"layer_{pair[0]}" for pair in pairs]
        self.stages = [
            LayerStages(subject, pair, Folder(folder, force))
            for pair, folder in zip(pairs, folders, strict=True)
        ]
        self.traces: list[Trace | None] = [None] * len(pairs)
        self.features: list[Features | None] = [None] * len(pairs)
        self.fits: list[Fit | None] = [None] * len(pairs)
        storage = subject.options.storage
        self.scratch = root / "stream-state"
        self.trace_name = TRACE_SHARDS if storage.shard_images else TRACE

    def stored(self) -> None:
        """Make the traces that are not there, in one pass."""
        subject, o, start = self.subject, self.subject.options, time.perf_counter()
        requests = [subject.request(pair) for pair in self.pairs]
        storage = {
            "packed_gates": o.storage.packed_gates,
            "shards": bool(o.storage.shard_images),
            "store_qk": o.storage.store_qk,
        }
        requests = [replace(each, options={**each.options, **storage}) for each in requests]
        for at, (stages, request) in enumerate(zip(self.stages, requests, strict=True)):
            self.traces[at] = stages.folder.find(self.trace_name, Trace, request)
        wanted = self._agreed([trace is None for trace in self.traces])
        if not wanted:
            self._require_strict()
            return
        self._require_room(wanted)
        made = trace_layers(
            subject.tower,
            subject.source,
            [self.pairs[at] for at in wanted],
            outs=[self.stages[at].folder.root / self.trace_name for at in wanted],
            max_images=o.max_images,
            batch_size=o.batch_size,
            storage=o.storage,
            workers=o.workers,
            strict=o.strict,
            force=self.force,
            world=subject.world,
            skipped=subject.skipped,
            contents=subject.contents,
            progress=named(subject.progress, "trace"),
        )
        for at, trace in zip(wanted, made, strict=subject.world.leads):
            self.traces[at] = self.stages[at].folder.keep(self.trace_name, trace, requests[at])
            self.stages[at].timed("trace", start, len(wanted))
        self._require_strict()

    def _require_room(self, wanted: list[int]) -> None:
        """Refuse a run that the disk has no room for; what an interrupted one left is there."""
        traces = [self.stages[at].folder.root / self.trace_name for at in wanted]
        there = [file.stat().st_size for each in traces for file in each.glob("*.safetensors")]
        needed = disk_bytes(self.subject, len(wanted)) - (0 if self.force else sum(there))
        require_room(self.root, needed, "the run")

    def _require_strict(self) -> None:
        """A trace that was kept may have left out images that are now to be an error."""
        for trace in self.traces:
            if self.subject.options.strict and trace is not None and trace.info.skipped:
                name, reason = trace.info.skipped[0]
                raise XaikitError(f"image {name} cannot be used: {reason}")

    def _agreed(self, missing: list[bool]) -> list[int]:
        """What the first process misses: files may change while the others look."""
        shared = self.subject.world.broadcast({"missing": torch.tensor(missing)})
        return torch.nonzero(shared["missing"]).flatten().tolist()

    def streamed(self) -> None:
        """Make the features and fits that are not there, in two passes over the images."""
        start = time.perf_counter()
        for at, stages in enumerate(self.stages):
            features = stages.folder.find(FEATURES, Features, stages.features_request())
            if features is None:
                continue
            self.fits[at] = stages.folder.find(FIT, Fit, stages.fit_request(features))
            self.features[at] = features
        wanted = self._agreed([found is None for found in self.fits])
        if not wanted:
            return
        self._require_room(wanted)
        pairs = {self.pairs[at]: at for at in wanted}
        for group in stream(self.subject, list(pairs), self.scratch):
            fits = {}
            for pair, found in group.run():
                stages = self.stages[pairs[pair]]
                trace_file = str(stages.folder.root / self.trace_name)
                features = found.features(self.subject, trace_file)
                features = stages.folder.keep(FEATURES, features, stages.features_request())
                self.features[pairs[pair]] = features
                fits[pairs[pair]] = found.fit(self.subject, features)
            # Not before all are there: a run that is cut short goes on with the same group.
            for at, fitted in fits.items():
                stages, made = self.stages[at], self.features[at]
                assert made is not None
                self.fits[at] = stages.folder.keep(FIT, fitted, stages.fit_request(made))
                stages.timed("stream", start, len(wanted))
            group.saved()

    def rest(self, control: Tower | None) -> Runs:
        """Every later stage, of all layers."""
        write_run(self.root, self.subject, self.pairs, self.command)
        circuits = []
        for at, stages in enumerate(self.stages):
            trace = self.traces[at]
            if trace is not None:
                features = stages.features(trace)
                self.features[at], self.fits[at] = features, stages.fit(trace, features, control)
            circuits.append(stages.circuit(trace, *self._parts(at)))
        tests = self._target_causal(circuits)
        runs = Runs(self._layer(at, circuits[at], tests[at]) for at in range(len(self.pairs)))
        if self.subject.options.intervene:
            for stages, run in zip(self.stages, runs, strict=True):
                run_live(stages, run)
        if len(runs) > 1:
            runs.whole = run_whole(self.subject, runs, self.root, self.force)
        if self.subject.options.group is not None:
            run_groups(self.subject, runs, self.root, self.force)
        return runs

    def _parts(self, at: int) -> tuple[Features, Fit]:
        features, fitted = self.features[at], self.fits[at]
        assert features is not None
        assert fitted is not None
        return features, fitted

    def _target_causal(self, circuits: list[Circuit]) -> list[TargetCausal]:
        """Tests of every layer's edges; a streamed run reads the images of all layers once."""
        tests: dict[int, EdgeTests] = {}
        for at, (stages, found) in enumerate(zip(self.stages, circuits, strict=True)):
            request = stages.target_request(found)
            if stages.folder.find(TARGET_CAUSAL, TargetCausal, request) is None:
                tests[at] = stages.edge_tests(*self._parts(at), found)
            else:
                stages.folder.reused.pop()
        self._read(tests)
        return [
            stages.target_causal(
                found,
                lambda at=at, stages=stages: tests[at].effects(  # type: ignore[misc]
                    stages.progress("target-causal")
                ),
            )
            for at, (stages, found) in enumerate(zip(self.stages, circuits, strict=True))
        ]

    def _read(self, tests: dict[int, EdgeTests]) -> None:
        for group in self._column_groups(tests):
            images: set[int] = set()
            visitors: dict[LayerPair, list[Visitor]] = {}
            for at in group:
                images |= set(tests[at].candidates.tolist())
                visitors[self.pairs[at]] = [tests[at].columns]
            blocks = chunks(_ascending(images), _CHUNK)
            traces = [self.traces[at] for at in group]
            if all(trace is not None for trace in traces):
                feed = StoredFeed(*(trace for trace in traces if trace is not None))
                feed.visit(blocks, visitors)
            else:
                alone = replace(self.subject, world=World())
                alone.feed(list(visitors)).visit(
                    blocks,
                    visitors,
                    what="test images read again",
                    progress=named(alone.progress, "target-causal"),
                )

    def _column_groups(self, tests: dict[int, EdgeTests]) -> list[list[int]]:
        """Layers whose columns fit into memory beside one another."""
        groups: list[list[int]] = []
        room = 0
        for at, test in tests.items():
            need = test.columns.bytes_needed(self.subject.tower.info.tokens)
            if not groups or need > room:
                groups.append([])
                room = budget(self.subject.options.memory)
            groups[-1].append(at)
            room -= need
        return groups

    def _layer(self, at: int, found: Circuit, effects: TargetCausal) -> LayerRun:
        stages, (features, fitted) = self.stages[at], self._parts(at)
        return LayerRun(
            folder=stages.folder.root,
            trace=self.traces[at],
            features=features,
            fit=fitted,
            circuit=found,
            causal=stages.causal(features, fitted),
            target_causal=effects,
            seconds=stages.folder.seconds,
            reused=stages.folder.reused,
        )


def _ascending(images: set[int]) -> np.ndarray:
    return torch.tensor(sorted(images), dtype=torch.int64).numpy()
