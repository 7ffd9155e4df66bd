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


@pytest.mark.parametrize("shards", [0, 5])
@pytest.mark.parametrize("pairs", [[(1, 2)], [(0, 3), (2, 4)]])
def test_each_layer_has_a_folder_that_is_forced_like_the_run(
    tmp_path: Path, pairs: list[tuple[int, int]], shards: int
) -> None:
    subject: Any = Some(options=Options(storage=Storage(shard_images=shards)).settled())
    for force in (False, True):
        run = AllLayers(subject, pairs, tmp_path, force, "xaikit run-all")
        folders = [stages.folder for stages in run.stages]
        alone = len(pairs) == 1
        names = [tmp_path] if alone else [tmp_path / "layer_0", tmp_path / "layer_2"]
        assert [folder.root for folder in folders] == names
        assert [folder.force for folder in folders] == [force] * len(pairs)
        assert [stages.pair for stages in run.stages] == pairs
        assert run.trace_name == ("trace" if shards else "trace.safetensors")


class Told:
    """Stages of one layer, which say what they were asked for and of what."""

    def __init__(self, name: str, said: list[Any], there: tuple[str, ...] = ()) -> None:
        self.name, self.said, self.there = name, said, there
        self.folder = Some(root=Path(name), seconds={}, reused=[], find=self.find, keep=self.keep)

    def __getattr__(self, stage: str) -> Any:
        def asked(*given: Any) -> str:
            self.said.append((self.name, stage, *given))
            return f"{stage} of {self.name}"

        return asked

    def find(self, name: str, _kind: type, request: Any) -> Any:
        """What is there already."""
        if name not in self.there:
            return None
        self.folder.reused.append(name)
        return f"{name} of {self.name} for {request}"

    def keep(self, name: str, made: Any, request: Any) -> Any:
        """What is made."""
        self.said.append((self.name, "keep", name, made, request))
        return made

    def target_causal(self, found: Any, build: Any) -> Any:
        """What the tests of a layer's edges say."""
        return found, build()

    def progress(self, stage: str) -> str:
        """Of which layer and stage it is."""
        return f"{self.name}, {stage}"


def whole_run(
    monkeypatch: pytest.MonkeyPatch, said: list[Any], layers: int, **options: Any
) -> AllLayers:
    """A run of some layers, none of whose stages does anything but say so."""

    def tells(name: str) -> Any:
        return lambda *given: said.append((name, *given)) or f"result of {name}"

    for name in ("write_run", "run_live", "run_whole", "run_groups"):
        monkeypatch.setattr(module, name, tells(name))
    run: Any = AllLayers.__new__(AllLayers)
    run.subject, run.root, run.force, run.command = (
        Some(options=Options(**options)),
        "out",
        "f",
        "c",
    )
    run.pairs = [(at, at + 1) for at in range(layers)]
    run.stages = [Told(f"layer {at}", said) for at in range(layers)]
    run.traces, run.features, run.fits = [[None] * layers for _ in range(3)]
    run._target_causal = lambda circuits: [f"tests of {each}" for each in circuits]
    return run


@pytest.mark.parametrize("stored", [True, False])
def test_every_stage_of_every_layer_has_what_belongs_to_it_and_the_whole_follows(
    monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    said: list[Any] = []
    run: Any = whole_run(monkeypatch, said, 2, group="folder")
    if stored:
        run.traces = ["trace 0", "trace 1"]
    else:
        run.features = ["features of layer 0", "features of layer 1"]
        run.fits = ["fit of layer 0", "fit of layer 1"]
    control: Any = "untrained"
    runs = run.rest(control)
    expected: list[Any] = [("write_run", "out", run.subject, run.pairs, "c")]
    for at, name in enumerate(("layer 0", "layer 1")):
        trace = f"trace {at}" if stored else None
        if stored:
            expected.append((name, "features", trace))
            expected.append((name, "fit", trace, f"features of {name}", "untrained"))
        expected.append((name, "circuit", trace, f"features of {name}", f"fit of {name}"))
    for name in ("layer 0", "layer 1"):
        expected.append((name, "causal", f"features of {name}", f"fit of {name}"))
    expected += [("run_live", stages, one) for stages, one in zip(run.stages, runs, strict=True)]
    expected.append(("run_whole", run.subject, runs, "out", "f"))
    expected.append(("run_groups", run.subject, runs, "out", "f"))
    assert said == expected
    assert runs.whole == "result of run_whole"
    for at, one in enumerate(runs):
        name = f"layer {at}"
        assert (one.folder, one.trace) == (Path(name), run.traces[at])
        assert (one.features, one.fit) == (f"features of {name}", f"fit of {name}")
        assert (one.circuit, one.causal) == (f"circuit of {name}", f"causal of {name}")
        assert one.target_causal == f"tests of circuit of {name}"
        assert one.seconds is run.stages[at].folder.seconds
        assert one.reused is run.stages[at].folder.reused


@pytest.mark.parametrize(
    ("layers", "options", "more"),
    [
        (1, {}, ["run_live"]),
        (1, {"intervene": False}, []),
        (1, {"intervene": False, "group": "folder"}, ["run_groups"]),
        (3, {"intervene": False}, ["run_whole"]),
        (2, {}, ["run_live", "run_live", "run_whole"]),
    ],
)
def test_one_layer_is_no_whole_and_what_is_not_asked_for_is_not_done(
    monkeypatch: pytest.MonkeyPatch, layers: int, options: dict[str, Any], more: list[str]
) -> None:
    said: list[Any] = []
    run: Any = whole_run(monkeypatch, said, layers, **options)
    run.traces = ["a trace"] * layers
    runs = run.rest(None)
    assert [each[0] for each in said if each[0].startswith("run_")] == more
    assert (runs.whole is None) == (layers == 1)


def test_edges_are_tested_where_their_tests_are_not_there_yet() -> None:
    run: Any = AllLayers.__new__(AllLayers)
    said: list[Any] = []
    there = [(), ("target_causal.json",), ()]
    run.stages = [Told(f"layer {at}", said, own) for at, own in enumerate(there)]
    for at, stages in enumerate(run.stages):
        effects = lambda progress, at=at: f"effects {at} of {progress}"  # noqa: E731
        stages.edge_tests = lambda *given, effects=effects: Some(effects=effects, given=given)
        if own := there[at]:
            assert own
            stages.target_causal = lambda found, build: (found, "kept")
    run.features, run.fits = ["f0", "f1", "f2"], ["p0", "p1", "p2"]
    read: list[Any] = []
    run._read = lambda tests: read.append({at: test.given for at, test in tests.items()})
    found = run._target_causal(["c0", "c1", "c2"])
    assert read == [{0: ("f0", "p0", "c0"), 2: ("f2", "p2", "c2")}]
    assert found == [
        ("c0", "effects 0 of layer 0, target-causal"),
        ("c1", "kept"),
        ("c2", "effects 2 of layer 2, target-causal"),
    ]
    # Looked at twice, and named once: where it is made or taken.
    assert [stages.folder.reused for stages in run.stages] == [[], [], []]


def test_traces_that_are_missing_are_recorded_in_one_pass_in_their_own_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[Any] = []
    names = ("trace",)
    run: Any = AllLayers.__new__(AllLayers)
    run.stages = [Told("a", said), Told("b", said, names), Told("c", said)]
    run.pairs, run.traces, run.trace_name = [(0, 1), (1, 2), (2, 3)], [None] * 3, "trace"
    run.force = False
    run.subject = Some(
        options=Options(),
        request=lambda pair: Request(
            stage="trace", revision=1, inputs={}, options={"layer": pair[0]}
        ),
        world=World(),
        **dict.fromkeys(("tower", "source", "skipped", "contents", "progress")),
    )
    run._require_room = lambda wanted: said.append(("room", wanted))
    run._require_strict = lambda: said.append("strict")

    def recorded(_tower: Any, _source: Any, pairs: Any, **given: Any) -> list[str]:
        said.append(("record", pairs, given["outs"]))
        return ["trace a", "trace c"]

    monkeypatch.setattr(module, "trace_layers", recorded)
    run.stored()
    assert run.traces[0] == "trace a"
    assert run.traces[1].startswith("trace of b")
    assert run.traces[2] == "trace c"
    places = [Path("a/trace"), Path("c/trace")]
    assert said[:2] == [("room", [0, 2]), ("record", [(0, 1), (2, 3)], places)]
    kept = [each for each in said if each[1:2] == ("keep",)]
    assert [(name, made) for name, _, _, made, _ in kept] == [("a", "trace a"), ("c", "trace c")]
    assert [request.options["layer"] for *_, request in kept] == [0, 2]
    timed = [each for each in said if each[1:2] == ("timed",)]
    # Of the time of one pass each has its share.
    assert [(name, stage, shares) for name, _, stage, _, shares in timed] == [
        ("a", "trace", 2),
        ("c", "trace", 2),
    ]
    assert said[-1] == "strict"


class Learnt:
    """What the passes of a streamed run found of one layer."""

    def __init__(self, name: str, said: list[Any]) -> None:
        self.name, self.said = name, said

    def features(self, _subject: Any, trace_file: str) -> str:
        """Clusters, which name the trace that there would be."""
        return f"features of {self.name} for {trace_file}"

    def fit(self, _subject: Any, features: str) -> str:
        """The fit of those clusters."""
        self.said.append(("fitted", self.name))
        return f"fit of {features}"


def test_a_streamed_run_keeps_what_it_learns_and_goes_on_only_once_all_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[Any] = []
    both = ("features.safetensors", "fit.safetensors")
    run: Any = AllLayers.__new__(AllLayers)
    run.stages = [Told("a", said, both[:1]), Told("b", said, both), Told("c", said)]
    run.pairs, run.scratch, run.trace_name = [(0, 1), (1, 2), (2, 3)], "scratch", "trace"
    run.subject = Some(options=Options(stream=True), world=World())
    run.features, run.fits = [None] * 3, [None] * 3
    run._require_room = lambda wanted: said.append(("room", wanted))

    def stream(_subject: Any, pairs: Any, scratch: Any) -> Any:
        said.append(("stream", pairs, scratch))
        for names in ("a", "c"):
            learnt = [({"a": (0, 1), "c": (2, 3)}[name], Learnt(name, said)) for name in names]
            yield Some(run=lambda learnt=learnt: iter(learnt), saved=lambda: said.append("saved"))

    monkeypatch.setattr(module, "stream", stream)
    run.streamed()
    # Clusters alone are half a result, and both are one.
    assert run.fits[1] == "fit.safetensors of b for fit_request of b"
    assert run.features[1] == "features.safetensors of b for features_request of b"
    wanted = [each for each in said if each[0] in ("room", "stream")]
    assert wanted == [("room", [0, 2]), ("stream", [(0, 1), (2, 3)], "scratch")]
    steps = [
        each if each == "saved" or each[0] == "fitted" else each[:3]
        for each in said
        if each == "saved" or each[0] == "fitted" or each[1] in ("keep", "timed")
    ]
    own = [
        [
            (name, "keep", "features.safetensors"),
            ("fitted", name),
            (name, "keep", "fit.safetensors"),
            (name, "timed", "stream"),
            "saved",
        ]
        for name in "ac"
    ]
    assert steps == [*own[0], *own[1]]
    for at, name in ((0, "a"), (2, "c")):
        assert run.features[at] == f"features of {name} for {name}/trace"
        assert run.fits[at] == f"fit of {run.features[at]}"
    assert [each[-1] for each in said if each[1] == "timed"] == [2, 2]
    requests = [each[-1] for each in said if each[1] == "keep"]
    assert requests[:2] == ["features_request of a", "fit_request of a"]


def test_a_streamed_run_of_which_all_is_there_reads_no_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run: Any = AllLayers.__new__(AllLayers)
    run.stages = [Told("a", [], ("features.safetensors", "fit.safetensors"))]
    run.pairs, run.subject = [(0, 1)], Some(options=Options(stream=True), world=World())
    run.features, run.fits = [None], [None]
    run._require_room = lambda wanted: pytest.fail("needs no room")
    monkeypatch.setattr(module, "stream", lambda *_: pytest.fail("streams"))
    run.streamed()
    assert run.fits[0] is not None
