"""What stands behind each result of `run-all`: requests alone, with nothing made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest

from xaikit.artifacts.preprocess import Preprocess
from xaikit.images.scenes import SceneSource
from xaikit.run import choose, groups, live, whole
from xaikit.run.layer import LayerStages
from xaikit.run.options import Options
from xaikit.run.reuse import Folder, Request
from xaikit.run.stream import Group
from xaikit.run.subject import Subject
from xaikit.stages import causal, circuit, cluster, fit, intervene, target_causal
from xaikit.stages import choose as sweep
from xaikit.stages import whole as whole_stage

OPTIONS = Options(recipe="seed", num_clusters=4, num_permutations=12, holdout=0.5)
PER_LAYER = {"cluster", "fit", "circuit", "causal", "target-causal", "intervene"}
WHOLE = {"whole-circuit", "whole-intervene", "groups", "choose-clusters"}
ALL = PER_LAYER | WHOLE
LIVE = {"intervene", "whole-circuit", "whole-intervene", "groups"}


class Traced(Subject):
    """A subject whose traces are told apart by a word."""

    traced = ""

    def request(self, pair: tuple[int, int]) -> Request:
        """What would decide the trace of a pair."""
        return Request(stage="trace", revision=1, inputs={"x": self.traced}, options={})


class Asked:
    """Requests of every stage of a run of two layers, by stage."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.root = root
        self.found: dict[str, tuple[Request, bool]] = {}
        asked = self

        def make(self: Folder, name: str, kind: type, request: Request, build: Any) -> Any:
            asked.found[request.stage] = (request, self.force)
            return Some(identity=request.key(), destination="token", num_clusters=4)

        monkeypatch.setattr(Folder, "make", make)
        monkeypatch.setattr(live, "draw", lambda *_: None)

    def __call__(
        self,
        options: Options = OPTIONS,
        *,
        features: str = "f",
        fitted: str = "p",
        found: str = "c",
        target: str = "t",
        traced: str = "x",
        labels: str | None = "a cat\na dog\n",
        group: str = "image,group\n0,one\n1,two\n",
        control: str | None = None,
        force: bool = False,
    ) -> dict[str, tuple[str, bool]]:
        (self.root / "groups.csv").write_text(group)
        names = {"group": str(self.root / "groups.csv")}
        if labels is not None:
            (self.root / "labels.txt").write_text(labels)
            names["labels"] = str(self.root / "labels.txt")
        self.found = {}
        none: Any = None
        # Its head has as many classes as the labels name.
        headed: Any = Some(info=Some(classes=2), text=None)
        subject = Traced(
            tower=headed, source=SceneSource(2, 0), options=replace(options.settled(), **names)
        )
        subject.traced = traced
        info = Some(images=["0", "1"], groups=None)
        run: Any = Some(
            features=Some(identity=features, info=info),
            fit=Some(identity=fitted, layer=1),
            target_causal=Some(identity=target),
            circuit=None,
            info=info,
        )
        stages = LayerStages(subject, (1, 2), Folder(self.root, force))
        untrained: Any = None if control is None else Some(weights_fingerprint=control)
        edges: Any = Some(identity=found)
        stages.features(none)
        stages.fit(none, run.features, untrained)
        stages.circuit(none, run.features, run.fit)
        stages.causal(run.features, run.fit)
        stages.target_causal(edges, lambda: none)
        live.run_live(stages, run)
        whole.run_whole(subject, [run], self.root, force)
        groups.run_groups(subject, [run], self.root, force)
        subject.options = replace(subject.options, num_clusters=None)
        choose.choose_number(subject, [(1, 2), (2, 3)], self.root, force)
        return {stage: (request.key(), forced) for stage, (request, forced) in self.found.items()}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    return Asked(monkeypatch, tmp_path)


def changed(asked: Asked, **given: Any) -> set[str]:
    """Stages whose request is another one."""
    before, after = asked(), asked(**given)
    assert set(before) == set(after) == ALL
    return {stage for stage in ALL if before[stage] != after[stage]}


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({"batch_size": 3}, set()),
        ({"workers": 1}, set()),
        ({"memory": 1 << 30}, set()),
        ({"strict": True}, set()),
        ({"seed": 1}, ALL),
        ({"num_clusters": 5}, {"cluster"}),
        ({"sample_tokens": 99}, {"cluster", "choose-clusters"}),
        ({"holdout": 0.25}, {"cluster", "choose-clusters"}),
        ({"method": "guided"}, {"cluster", "choose-clusters"}),
        ({"prefix": "own"}, {"cluster", "choose-clusters"}),
        ({"destination": "cluster"}, {"fit", "choose-clusters"}),
        ({"null": "moments"}, {"fit"}),
        ({"null_block": 7}, {"fit"}),
        ({"num_permutations": 11}, {"fit", "causal", "target-causal"}),
        ({"top_k": 6}, {"circuit", "whole-circuit", "whole-intervene", "groups"}),
        ({"rank": "attribution"}, {"circuit", *LIVE}),
        ({"max_qvalue": 0.5}, {"circuit", "whole-circuit", "whole-intervene"}),
        ({"bootstrap": 3}, {"circuit"}),
        ({"max_clusters": 3}, {"causal"}),
        ({"top_n": 3}, {"target-causal"}),
        ({"toward": "a dog"}, {"circuit", *LIVE}),
        ({"toward": "0", "against": "1"}, {"circuit", *LIVE}),
        ({"objective": "margin"}, {"circuit", *LIVE}),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) and each else "",
)
def test_an_option_is_behind_what_it_decides_and_nothing_else(
    asked: Asked, options: dict[str, Any], stages: set[str]
) -> None:
    assert changed(asked, options=replace(OPTIONS, **options)) == stages


@pytest.mark.parametrize(
    ("given", "stages"),
    [
        ({"traced": "another trace"}, {"cluster", "choose-clusters"}),
        ({"features": "other clusters"}, {"fit"}),
        (
            {"fitted": "another fit"},
            {"circuit", "causal", "whole-circuit", "whole-intervene", "groups"},
        ),
        ({"found": "another circuit"}, {"target-causal"}),
        ({"target": "other tests of edges"}, {"intervene"}),
        ({"labels": "a cat\na bird\n"}, {"intervene", "whole-intervene"}),
        ({"labels": None}, {"intervene", "whole-intervene"}),
        ({"group": "image,group\n0,two\n1,one\n"}, {"groups"}),
        ({"control": "untrained"}, {"fit"}),
        ({"force": True}, ALL),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_a_parent_a_file_s_content_and_force_reach_the_request(
    asked: Asked, given: dict[str, Any], stages: set[str]
) -> None:
    assert changed(asked, **given) == stages


@pytest.mark.parametrize(
    ("aim", "labels", "stages"),
    [
        ({"toward": "a cat"}, "a cat\na bird\n", {"intervene", "whole-intervene"}),
        ({"toward": "a cat"}, "a dog\na cat\n", {"circuit", *LIVE}),
        ({"objective": "margin"}, "a cat\na bird\n", {"circuit", *LIVE}),
    ],
    ids=["another class", "its own class", "all classes"],
)
def test_of_a_file_of_classes_those_that_are_meant_are_behind_a_direction(
    asked: Asked, aim: dict[str, str], labels: str, stages: set[str]
) -> None:
    options = replace(OPTIONS, **aim)
    before, after = asked(options), asked(options, labels=labels)
    assert {stage for stage in ALL if before[stage] != after[stage]} == stages


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        (cluster, {"cluster"}),
        (fit, {"fit"}),
        (circuit, {"circuit"}),
        (causal, {"causal"}),
        (target_causal, {"target-causal"}),
        (live, {"intervene"}),
        (intervene, {"whole-intervene"}),
        (whole_stage, {"whole-circuit", "whole-intervene"}),
        (groups, {"groups"}),
        (sweep, {"choose-clusters"}),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_the_revision_of_the_code_is_behind_its_result(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, module: Any, stages: set[str]
) -> None:
    before = asked()
    monkeypatch.setattr(module, "REVISION", 99)
    after = asked()
    assert {stage for stage in ALL if before[stage] != after[stage]} == stages


def test_another_number_of_resamples_is_another_circuit(asked: Asked) -> None:
    few, more = (asked(replace(OPTIONS, bootstrap=count))["circuit"] for count in (3, 4))
    assert few != more


def test_every_pair_of_layers_is_behind_the_number_of_clusters(asked: Asked) -> None:
    asked()
    assert set(asked.found["choose-clusters"][0].inputs) == {"trace_1", "trace_2"}


def test_a_checkpoint_of_a_streamed_run_is_of_all_that_decides_its_sums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def key(traced: str = "x", **options: Any) -> str:
        none: Any = None
        chosen = replace(OPTIONS, stream=True, **options).settled()
        group: Any = Group.__new__(Group)
        group.subject = Traced(tower=none, source=SceneSource(2, 0), options=chosen)
        group.subject.traced, group.pairs = traced, [(1, 2)]
        return str(group._key())

    assert key() == key(batch_size=3, workers=1, top_k=9)
    others = [key("another"), key(num_clusters=5), key(prefix="own"), key(null_block=7)]
    for module in (cluster, fit):
        with monkeypatch.context() as patch:
            patch.setattr(module, "REVISION", 99)
            others.append(key())
    assert len({key(), *others}) == 7


PREPROCESS = Preprocess(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": "others"},
        {"precision": "float16"},
        {"preprocess": replace(PREPROCESS, resize=9)},
        {"preprocess": replace(PREPROCESS, mean=(0.5, 0.0, 0.0))},
        {"images": "others"},
        {"pair": (0, 2)},
        {"pair": (1, 3)},
        {"dtype": "float16"},
    ],
    ids=lambda each: next(iter(each)),
)
def test_all_that_decides_a_recording_is_behind_it(changed: dict[str, Any]) -> None:
    def key(
        weights: str = "w",
        precision: str = "float32",
        preprocess: Preprocess = PREPROCESS,
        images: str = "i",
        pair: tuple[int, int] = (1, 2),
        dtype: str = "float32",
    ) -> str:
        tower: Any = Some(
            weights_fingerprint=weights, precision=precision, preprocess=preprocess, text=None
        )
        options = replace(OPTIONS, storage=replace(OPTIONS.storage, dtype=dtype))
        subject = Subject(tower=tower, source=SceneSource(2, 0), options=options)
        subject.__dict__["content"] = images
        return subject.request(pair).key()

    assert key(**changed) != key()
