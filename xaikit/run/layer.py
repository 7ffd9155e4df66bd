"""The stages after the trace, for one pair of layers, each left out where nothing changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xaikit.artifacts.results import Causal, Circuit, Intervention, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.errors import UsageError
from xaikit.progress import Progress
from xaikit.rankings import ranking
from xaikit.run.options import Options
from xaikit.stages.bootstrap import bootstrap
from xaikit.stages.causal import causal
from xaikit.stages.circuit import circuit
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace import TraceInfo
    from xaikit.images import ImageSource
    from xaikit.towers import Tower

Artifact = TypeVar("Artifact", Features, Fit, Circuit, Causal, TargetCausal, Intervention)


@dataclass(kw_only=True)
class LayerRun:
    """Artefacts of one pair of layers.

    Attributes
    ----------
    folder : Path
    info : TraceInfo
        Images and sizes.
    trace : Trace, optional
        None where the run was streaming.
    seconds : dict of str to float
        Time of each stage that ran.
    reused : list of str
        Stages whose result was already there.
    """

    folder: Path
    info: TraceInfo
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


class LayerStages:
    """The stages after the trace, for one pair of layers."""

    def __init__(self, folder: Path, options: Options, force: bool, progress: Progress) -> None:
        self.folder, self.options, self.force = folder, options, force
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.reused: list[str] = []

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def run(
        self, tower: Tower, source: ImageSource, trace: Trace, control: Tower | None = None
    ) -> LayerRun:
        o, path, progress = self.options, self.path, self.progress
        trace_file = str(trace.path)
        features = self.stage(
            Features,
            "features.safetensors",
            trace.identity,
            lambda: cluster(
                trace,
                num_clusters=o.num_clusters,
                sample_tokens=o.sample_tokens,
                seed=o.seed,
                holdout=o.holdout,
                trace_file=trace_file,
                progress=progress,
            ),
        )
        fitted = self.stage(
            Fit,
            "fit.safetensors",
            features.identity,
            lambda: fit(
                trace,
                features,
                destination=o.destination,
                num_permutations=o.num_permutations,
                null=o.null,
                null_block=o.null_block,
                seed=o.seed,
                trace_file=trace_file,
                features_file=path("features.safetensors"),
                progress=progress,
            ),
        )
        if control is not None:
            self._control(control, source, trace, features, fitted)
        found = self.circuit(
            fitted,
            lambda: self.live_scores(tower, source, trace.images, features, fitted),
            lambda made: self._resampled(trace, features, fitted, made),
        )
        effects = self._target_causal(trace, features, fitted, found)
        return self.finished(trace.info, features, fitted, found, effects, trace)

    def finished(
        self,
        info: TraceInfo,
        features: Features,
        fitted: Fit,
        found: Circuit,
        effects: TargetCausal,
        trace: Trace | None = None,
    ) -> LayerRun:
        """Run what is left and put everything together."""
        return LayerRun(
            folder=self.folder,
            info=info,
            trace=trace,
            features=features,
            fit=fitted,
            circuit=found,
            causal=self._causal(features, fitted),
            target_causal=effects,
            seconds=self.seconds,
            reused=self.reused,
        )

    def _control(
        self, tower: Tower, source: ImageSource, trace: Trace, features: Features, fitted: Fit
    ) -> None:
        """Add what an untrained model's clusters explain to the fit's controls."""
        from xaikit.stages.baselines import random_added, random_weights

        if "random_weights_added" in fitted.controls:
            return
        o, start = self.options, time.perf_counter()
        random = random_weights(
            tower,
            source,
            trace,
            features,
            batch_size=o.batch_size,
            workers=o.workers,
            progress=self.progress,
        )
        fitted.controls |= random_added(random, fitted.destination)
        fitted.save(self.path("fit.safetensors"))
        self.seconds["control"] = time.perf_counter() - start

    def _resampled(self, trace: Trace, features: Features, fitted: Fit, found: Circuit) -> Circuit:
        """The circuit with its stability, where that is asked for."""
        o = self.options
        if not o.bootstrap:
            return found
        return bootstrap(
            trace,
            features,
            fitted,
            found,
            resamples=o.bootstrap,
            seed=o.seed,
            progress=self.progress,
        )

    def live_scores(
        self,
        tower: Tower,
        source: ImageSource,
        ids: Sequence[str],
        features: Features,
        fitted: Fit,
    ) -> Tensor | None:
        """Scores of a ranking that runs the model; None where the fit is enough."""
        if not ranking(self.options.rank).needs_model:
            return None
        from xaikit.rankings.live import live_scores
        from xaikit.stages.intervene import InterveneOptions

        o = self.options
        options = InterveneOptions(batch_size=o.batch_size, workers=o.workers, seed=o.seed)
        parts = (tower, source, features, fitted)
        found = live_scores([o.rank], *parts, ids=ids, options=options, progress=self.progress)
        return found[o.rank]

    def circuit(
        self,
        fitted: Fit,
        scores: Callable[[], Tensor | None],
        finish: Callable[[Circuit], Circuit] = lambda made: made,
    ) -> Circuit:
        """The fit's circuit and its pictures."""
        o = self.options
        return self.stage(
            Circuit,
            "circuit.json",
            fitted.identity,
            lambda: finish(
                circuit(
                    fitted,
                    top_k=o.top_k,
                    rank=o.rank,
                    scores=scores(),
                    max_qvalue=o.max_qvalue,
                    heatmap_dir=self.folder / "heatmaps",
                    fit_file=self.path("fit.safetensors"),
                )
            ),
        )

    def _causal(self, features: Features, fitted: Fit) -> Causal:
        o = self.options
        return self.stage(
            Causal,
            "causal.json",
            fitted.identity,
            lambda: causal(
                features,
                fitted,
                max_clusters=o.max_clusters,
                num_permutations=o.num_permutations,
                seed=o.seed,
                features_file=self.path("features.safetensors"),
                fit_file=self.path("fit.safetensors"),
            ),
        )

    def _target_causal(
        self, trace: Trace, features: Features, fitted: Fit, found: Circuit
    ) -> TargetCausal:
        o = self.options
        return self.stage(
            TargetCausal,
            "target_causal.json",
            found.identity,
            lambda: target_causal(
                trace,
                features,
                fitted,
                found,
                top_n=o.top_n,
                num_permutations=o.num_permutations,
                seed=o.seed,
                trace_file=str(trace.path),
                features_file=self.path("features.safetensors"),
                fit_file=self.path("fit.safetensors"),
                circuit_file=self.path("circuit.json"),
                progress=self.progress,
            ),
        )

    def stage(
        self, kind: type[Artifact], name: str, parent: str, make: Callable[[], Artifact]
    ) -> Artifact:
        """Load the artefact at `name` where nothing behind it changed, else make it."""
        found = self.reusable(kind, name, parent)
        if found is not None:
            self.reused.append(kind.STAGE)
            return found
        start = time.perf_counter()
        made = self.keep(make(), name, parent)
        self.seconds[kind.STAGE] = time.perf_counter() - start
        return made

    def reusable(self, kind: type[Artifact], name: str, parent: str) -> Artifact | None:
        """The artefact at `name`, where nothing behind it changed."""
        if self.force:
            return None
        try:
            found = kind.load(self.folder / name)
        except UsageError:
            return None
        same = found.provenance.options.get("request") == self._wanted(kind.STAGE, parent)
        return found if same else None

    def keep(self, made: Artifact, name: str, parent: str) -> Artifact:
        """Write an artefact with what `reusable` asks of it."""
        request = self._wanted(made.STAGE, parent)
        made.provenance = replace(
            made.provenance, options={**made.provenance.options, "request": request}
        )
        made.save(self.folder / name)
        return made

    def _wanted(self, stage: str, parent: str) -> dict[str, Any]:
        return {"parent": parent, **self._request(stage)}

    def _request(self, stage: str) -> dict[str, Any]:
        """The options that decide a stage's result."""
        names = {
            "cluster": ("num_clusters", "sample_tokens", "seed", "holdout"),
            "fit": ("destination", "num_permutations", "null", "null_block", "seed"),
            "circuit": ("top_k", "rank", "max_qvalue", "bootstrap"),
            "causal": ("max_clusters", "num_permutations", "seed"),
            "target-causal": ("top_n", "num_permutations", "seed"),
            "intervene": ("rank", "seed", "labels"),
        }[stage]
        return {name: getattr(self.options, name) for name in names}
