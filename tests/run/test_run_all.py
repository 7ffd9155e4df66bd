"""What of a run is read together, and when its trace is recorded again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest

from xaikit.artifacts.storage import Storage
from xaikit.distributed import World
from xaikit.run import run_all as module
from xaikit.run.options import Options
from xaikit.run.reuse import Request
from xaikit.run.run_all import _Run


def test_columns_of_layers_are_read_together_as_far_as_they_fit() -> None:
    run: Any = _Run.__new__(_Run)
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

    run: Any = _Run.__new__(_Run)
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
    run: Any = _Run.__new__(_Run)
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
