"""The stages of one pair of layers, each left out where nothing behind it changed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.file_names import CAUSAL, CIRCUIT, FEATURES, FIT, HEATMAPS, TARGET_CAUSAL
from xaikit.artifacts.options import deciding
from xaikit.artifacts.results import Causal, Circuit, Intervention, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.distributed import World
from xaikit.passes.feed import LayerPair
from xaikit.progress import Progress, named
from xaikit.rankings import ranking
from xaikit.rankings.live import aimed_scores
from xaikit.run.measure import model_measure
from xaikit.run.reuse import Folder, Request
from xaikit.run.subject import Subject
from xaikit.stages import bootstrap, causal, circuit, cluster, fit, target_causal
from xaikit.stages.baselines import random_added, random_weights
from xaikit.stages.target_causal import EdgeTests

if TYPE_CHECKING:
    from xaikit.artifacts.trace_info import TraceInfo
    from xaikit.towers import Tower


@dataclass(kw_only=True)
class LayerRun:
    """Artefacts of one pair of layers.

    Attributes
    ----------
    folder : Path
    trace : Trace, optional
        None where the run was streaming.
    seconds : dict of str to float
        Time of each stage that ran.
    reused : list of str
        Stages whose result was already there.
    """

    folder: Path
    features: Features
    fit: Fit
    circuit: Circuit
    causal: Causal
    target_causal: TargetCausal
    trace: Trace | None = None
    intervention: Intervention | None = None
    overview: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    reused: list[str] = field(default_factory=list)

    @property
    def info(self) -> TraceInfo:
        """Images and sizes."""
        return self.features.info


class LayerStages:
    """The stages of one pair of layers.

    Attributes
    ----------
    folder : Folder
        Where their results are.
    """

    def __init__(self, subject: Subject, pair: LayerPair, folder: Folder) -> None:
        self.subject, self.pair, self.folder = subject, pair, folder
        self.options = subject.options

    def progress(self, stage: str) -> Progress:
        """The run's, which says of which layer and stage it is."""
        return named(self.subject.progress, f"layer {self.pair[0]}, {stage}")

    def features_request(self) -> Request:
        """What decides the clusters: of a stored and of a streamed run alike."""
        return Request(
            stage="cluster",
            revision=cluster.REVISION,
            inputs={"trace": self.subject.request(self.pair).key()},
            options=deciding(self.options.cluster()),
        )

    def fit_request(self, features: Features) -> Request:
        """What decides the fit."""
        return Request(
            stage="fit",
            revision=fit.REVISION,
            inputs={"features": features.identity},
            options=deciding(self.options.fit()),
        )

    def features(self, trace: Trace) -> Features:
        """Clusters of a stored trace."""
        chosen = self.options.cluster()
        # A trace has its clusters learnt in the first process alone.
        progress = self.progress("cluster")
        measure = model_measure(replace(self.subject, world=World(), progress=progress))
        return self.folder.make(
            FEATURES,
            Features,
            self.features_request(),
            lambda: cluster.cluster(trace, chosen, measure=measure, progress=progress),
        )

    def fit(self, trace: Trace, features: Features, control: Tower | None) -> Fit:
        """The fit of a stored trace."""
        request = self.fit_request(features)
        chosen, memory = self.options.fit(), self.options.memory
        if control is not None:
            options = {**request.options, "control": control.weights_fingerprint}
            request = Request(
                stage="fit", revision=fit.REVISION, inputs=request.inputs, options=options
            )

        def build() -> Fit:
            found = fit.fit(trace, features, chosen, memory=memory, progress=self.progress("fit"))
            return found if control is None else self._controlled(control, trace, features, found)

        return self.folder.make(FIT, Fit, request, build)

    def _controlled(self, tower: Tower, trace: Trace, features: Features, found: Fit) -> Fit:
        """The fit with what an untrained model's clusters explain among its controls."""
        o = self.options
        random = random_weights(
            tower,
            self.subject.source,
            trace,
            features,
            batch_size=o.batch_size,
            workers=o.workers,
            progress=self.progress("control"),
        )
        found.controls |= random_added(random, found.destination)
        return found.identify()

    def circuit(self, trace: Trace | None, features: Features, fitted: Fit) -> Circuit:
        """The fit's circuit, and its pictures."""
        o = self.options

        def build() -> Circuit:
            made = circuit.circuit(
                fitted,
                o.circuit(),
                **self._live_scores(features, fitted),
                heatmap_dir=self.folder.root / HEATMAPS,
            )
            if not o.bootstrap or trace is None:
                return made
            return bootstrap.bootstrap(
                trace,
                features,
                fitted,
                made,
                resamples=o.bootstrap,
                seed=o.seed,
                progress=self.progress("bootstrap"),
            )

        again = {"bootstrap": o.bootstrap, "seed": o.seed}
        request = Request(
            stage="circuit",
            revision=circuit.REVISION,
            inputs={"fit": fitted.identity},
            options={**deciding(o.circuit()), **again, **self.subject.aim},
        )
        return self.folder.make(CIRCUIT, Circuit, request, build)

    def _live_scores(self, features: Features, fitted: Fit) -> dict[str, Any]:
        """What running the model says of the edges; nothing where the fit is enough."""
        rank, options = self.options.circuit().rank, self.options.live()
        if not ranking(rank).needs_model and not options.directed:
            return {}
        return aimed_scores(
            rank,
            self.subject.tower,
            self.subject.source,
            [(features, fitted)],
            ids=features.info.images,
            options=options,
            objective=self.subject.objective(features.info.images),
            progress=self.progress("circuit"),
        ).of_only_layer()

    def causal(self, features: Features, fitted: Fit) -> Causal:
        """Effects of whole clusters."""
        chosen = self.options.causal()
        request = Request(
            stage="causal",
            revision=causal.REVISION,
            inputs={"fit": fitted.identity},
            options=deciding(chosen),
        )
        return self.folder.make(
            CAUSAL, Causal, request, lambda: causal.causal(features, fitted, chosen)
        )

    def target_request(self, found: Circuit) -> Request:
        """What decides the tests of the circuit's edges."""
        return Request(
            stage="target-causal",
            revision=target_causal.REVISION,
            inputs={"circuit": found.identity},
            options=deciding(self.options.target_causal()),
        )

    def target_causal(self, found: Circuit, build: Callable[[], TargetCausal]) -> TargetCausal:
        """Effects of single edges."""
        return self.folder.make(TARGET_CAUSAL, TargetCausal, self.target_request(found), build)

    def edge_tests(self, features: Features, fitted: Fit, found: Circuit) -> EdgeTests:
        """The tests of the circuit's first edges."""
        o = self.options.target_causal()
        return EdgeTests(features, fitted, found, features.info, o)

    def timed(self, stage: str, start: float, shares: int = 1) -> None:
        """Record the time since `start`, shared with other layers."""
        self.folder.seconds[stage] = (time.perf_counter() - start) / shares
