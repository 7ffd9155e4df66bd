"""What of a run is read together, and when its trace is recorded again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import numpy as np
import pytest

from xaikit.artifacts.storage import Storage
from xaikit.distributed import World
from xaikit.errors import XaikitError
from xaikit.run import all_layers as module
from xaikit.run.all_layers import AllLayers
from xaikit.run.options import Options
from xaikit.run.reuse import Request
from xaikit.run.subject import Subject


def test_columns_of_layers_are_read_together_as_far_as_they_fit() -> None:
    run: Any = AllLayers.__new__(AllLayers)
    run.subject = Some(options=Some(memory=100), tower=Some(info=Some(tokens=5)))
    # Bytes of each layer's columns, for the model's 5 tokens; one alone is too large.
    needs = {0: 12, 1: 8, 3: 4, 4: 17, 7: 40, 8: 20}
    tests = {
        at: Some(columns=Some(bytes_needed=lambda tokens, need=need: need * tokens))
        for at, need in needs.items()
    }
    assert run._column_groups(tests) == [[0, 1], [3], [4], [7], [8]]
    assert run._column_groups({}) == []


def trace_key(**storage: Any) -> str:
    """What decides the trace of a run with some storage, all of which is there already."""
    asked: list[str] = []

    def find(_name: str, _kind: type, request: Request) -> Any:
        asked.append(request.key())
        return Some(info=Some(skipped=[]))

    run: Any = AllLayers.__new__(AllLayers)
    request = Request(stage="trace", revision=1, inputs={}, options={"layer": 1})
    run.subject = Some(
        options=Options(storage=Storage(**storage)),
        request=lambda _pair: request,
        world=World(),
    )
    run.pairs, run.traces, run.trace_name = [(1, 2)], [None], "trace.safetensors"
    run.stages = [Some(folder=Some(find=find))]
    run.stored()
    return asked[0]


@pytest.mark.parametrize(
    ("storage", "same"),
    [
        ({"packed_gates": True}, False),
        ({"store_qk": True}, False),
        ({"shard_images": 5}, False),
        ({}, True),
    ],
    ids=str,
)
def test_a_trace_that_is_stored_otherwise_is_recorded_again(
    storage: dict[str, Any], same: bool
) -> None:
    assert (trace_key(**storage) == trace_key()) is same
    # How many images a shard holds changes nothing that is read.
    assert trace_key(shard_images=5) == trace_key(shard_images=6)


@pytest.mark.parametrize("force", [False, True])
def test_force_and_how_images_are_read_reach_the_recording(
    monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    given: dict[str, Any] = {}
    made = Some(info=Some(skipped=[]))
    monkeypatch.setattr(module, "trace_layers", lambda *_, **more: given.update(more) or [made])
    run: Any = AllLayers.__new__(AllLayers)
    options = Options(max_images=7, batch_size=3, workers=2, strict=True)
    run.subject = Some(
        options=options,
        request=lambda _pair: Request(stage="trace", revision=1, inputs={}, options={}),
        world=World(),
        **dict.fromkeys(("tower", "source", "skipped", "contents", "progress")),
    )
    run.pairs, run.traces, run.trace_name, run.force = [(1, 2)], [None], "trace", force
    run._require_room = lambda wanted: None
    kept = Some(find=lambda *_: None, keep=lambda _name, trace, _request: trace, root=Path("run"))
    run.stages = [Some(folder=kept, timed=lambda *_: None)]
    run.stored()
    assert run.traces == [made]
    names = ("max_images", "batch_size", "workers", "strict", "storage")
    assert {name: given[name] for name in names} == {name: getattr(options, name) for name in names}
    assert given["force"] is force
    assert given["outs"] == [Path("run/trace")]


@dataclass(kw_only=True)
class Seen(Subject):
    """A subject that tells what is read of which images, and by which processes."""

    def feed(self, pairs: Any, checkpoint: Any = None) -> Any:
        """Nothing but a record of what was asked for."""

        def visit(blocks: Any, visitors: Any, **_: Any) -> None:
            SEEN.append(
                (self.world.size, pairs, [each.images.tolist() for each in blocks], visitors)
            )

        return Some(visit=visit)


SEEN: list[Any] = []


def test_layers_that_are_read_together_read_each_of_their_images_once_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 3)
    SEEN.clear()
    run: Any = AllLayers.__new__(AllLayers)
    none: Any = None
    run.subject = Seen(tower=none, source=none, options=Options(), world=World(0, 2))
    run.pairs, run.traces = [(0, 1), (1, 2), (3, 4)], [None, "a trace", None]
    run._column_groups = lambda tests: [[0, 1], [2]]
    images = {0: [9, 2, 40], 1: [2, 33], 2: [1]}
    tests: Any = {
        at: Some(candidates=np.array(rows), columns=f"columns {at}") for at, rows in images.items()
    }
    run._read(tests)
    # A layer's trace is no use where the other one's is not there; the first process is alone.
    assert SEEN == [
        (
            1,
            [(0, 1), (1, 2)],
            [[2, 9, 33], [40]],
            {(0, 1): ["columns 0"], (1, 2): ["columns 1"]},
        ),
        (1, [(3, 4)], [[1]], {(3, 4): ["columns 2"]}),
    ]


@pytest.mark.parametrize("strict", [False, True])
def test_a_kept_trace_that_left_out_images_is_an_error_where_that_is_asked_for(
    strict: bool,
) -> None:
    run: Any = AllLayers.__new__(AllLayers)
    run.subject = Some(options=Options(strict=strict))
    run.traces = [None, Some(info=Some(skipped=[])), Some(info=Some(skipped=[("a.png", "torn")]))]
    if not strict:
        run._require_strict()
        return
    with pytest.raises(XaikitError, match=r"image a\.png cannot be used: torn"):
        run._require_strict()


@pytest.mark.parametrize(("force", "needed"), [(False, 93), (True, 100)])
def test_what_an_interrupted_run_left_is_room_that_need_not_be_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool, needed: int
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "disk_bytes", lambda _subject, layers: 50 * layers)
    monkeypatch.setattr(module, "require_room", lambda *given: asked.append(given))
    run: Any = AllLayers.__new__(AllLayers)
    run.subject, run.root, run.force, run.trace_name = None, tmp_path, force, "trace"
    run.stages = [Some(folder=Some(root=tmp_path / name)) for name in ("one", "two")]
    for name, size in (("one", 3), ("two", 4)):
        (tmp_path / name / "trace").mkdir(parents=True)
        (tmp_path / name / "trace" / "shard.safetensors").write_bytes(b"x" * size)
        (tmp_path / name / "trace" / "index.json").write_bytes(b"x" * 99)
    run._require_room([0, 1])
    assert asked == [(tmp_path, needed, "the run")]
