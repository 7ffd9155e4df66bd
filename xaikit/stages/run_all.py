"""`run-all`: every stage, one after the other, leaving out what is already there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xaikit.artifacts.results import Causal, Circuit, Intervention, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.artifacts.trace_writer import Storage
from xaikit.distributed import World
from xaikit.errors import UsageError
from xaikit.progress import Progress, silent
from xaikit.stages.bootstrap import bootstrap
from xaikit.stages.causal import causal
from xaikit.stages.circuit import circuit
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal
from xaikit.stages.trace import (
    SHARED_SHARD,
    LayerPair,
    layer_pair,
    trace_layers,
    trace_options,
)

if TYPE_CHECKING:
    from xaikit.artifacts.trace import TraceInfo
    from xaikit.images import ImageSource, SkippedImages
    from xaikit.towers import Tower

Artifact = TypeVar("Artifact", Features, Fit, Circuit, Causal, TargetCausal, Intervention)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every stage, with the defaults of ``run-all``."""

    max_images: int | None = None
    batch_size: int = 32
    storage: Storage = field(default_factory=Storage)
    workers: int | None = None
    strict: bool = False
    num_clusters: int = 16
    sample_tokens: int = 20000
    seed: int = 0
    holdout: float = 0.5
    destination: str = "token"
    num_permutations: int = 200
    null: str = "auto"
    null_block: int = 0
    stream: bool = False
    top_k: int = 50
    rank: str = "weight"
    max_qvalue: float | None = None
    bootstrap: int = 0
    max_clusters: int = 16
    top_n: int = 20
    intervene: bool = True


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


def run_all(
    tower: Tower,
    source: ImageSource,
    *,
    out_dir: str | Path,
    layers: Sequence[int] | None = None,
    next_attn_layer: int | None = None,
    options: Options | None = None,
    force: bool = False,
    control: Tower | None = None,
    world: World | None = None,
    skipped: SkippedImages | None = None,
    progress: Progress = silent,
) -> list[LayerRun]:
    """Run every stage for each layer, writing into `out_dir` (``layer_<l>/`` for several).

    Several layers with cluster destinations are joined in ``graph.json``.

    A stage whose inputs and options have not changed is not run again, so an interrupted run
    goes on where it stopped.

    Parameters
    ----------
    layers : sequence of int, optional
        Target layers; by default one, about 0.7 up.
    next_attn_layer : int, optional
        Only with a single target layer.
    force : bool
        Run every stage again.
    control : Tower, optional
        The same model with random weights: it is traced, clustered and fitted on the same
        images, in memory, and what its clusters add goes into the fit's controls.
    world : World, optional
        The processes that share the images; later stages run in the first one.

    Returns
    -------
    list of LayerRun
        Empty in all processes but the first.
    """
    options, world = options or Options(), world or World()
    pairs = layer_pairs(tower, layers, next_attn_layer)
    root = Path(out_dir)
    folders = [root if len(pairs) == 1 else root / f"layer_{pair[0]}" for pair in pairs]
    if options.stream:
        if options.bootstrap or control is not None:
            flag = "--bootstrap" if options.bootstrap else "--control"
            raise UsageError(f"{flag} needs the trace: leave out --stream")
        from xaikit.stages.run_stream import run_stream

        stages = [LayerStages(folder, options, force, progress) for folder in folders]
        runs = run_stream(tower, source, pairs, stages, root, world, skipped, progress)
        _finish(tower, source, stages, runs, root)
        return runs
    if world.size > 1 and not options.storage.shard_images:
        storage = replace(options.storage, shard_images=SHARED_SHARD)
        options = replace(options, storage=storage)
    name = "trace" if options.storage.shard_images else "trace.safetensors"
    start = time.perf_counter()
    traces = [
        None if force else _reusable_trace(folder / name, tower, source, pair, options)
        for folder, pair in zip(folders, pairs, strict=True)
    ]
    wanted = [at for at, found in enumerate(traces) if found is None]
    if wanted:
        fresh = trace_layers(
            tower,
            source,
            [pairs[at] for at in wanted],
            outs=[folders[at] / name for at in wanted],
            max_images=options.max_images,
            batch_size=options.batch_size,
            storage=options.storage,
            workers=options.workers,
            strict=options.strict,
            force=force,
            world=world,
            skipped=skipped,
            progress=progress,
        )
        for at, made in zip(wanted, fresh, strict=world.leads):
            traces[at] = made
    if not world.leads:
        return []
    traced = time.perf_counter() - start
    runs, stages = [], []
    for at, folder in enumerate(folders):
        found = traces[at]
        assert found is not None
        run = LayerStages(folder, options, force, progress)
        if at in wanted:
            run.seconds["trace"] = traced / len(wanted)
        else:
            run.reused.append("trace")
        runs.append(run.run(tower, source, found, control))
        stages.append(run)
    _finish(tower, source, stages, runs, root)
    return runs


def _finish(
    tower: Tower,
    source: ImageSource,
    stages: list[LayerStages],
    runs: list[LayerRun],
    root: Path,
) -> None:
    """Ask the live model, and write the graph where several layers' edges end at clusters."""
    from xaikit.stages.graph import GraphLayer, graph

    if stages[0].options.intervene:
        from xaikit.stages.run_live import run_live

        for layer, run in zip(stages, runs, strict=False):
            run_live(layer, tower, source, run)
    layers = [GraphLayer(features=run.features, circuit=run.circuit) for run in runs]
    if len(layers) > 1 and all(each.circuit.destination == "cluster" for each in layers):
        graph(layers, out=root / "graph.json")


def layer_pairs(
    tower: Tower, layers: Sequence[int] | None, next_attn_layer: int | None
) -> list[LayerPair]:
    """Check the target layers and pair each with the attention after it."""
    if layers is None or len(layers) == 0:
        return [layer_pair(tower, None, next_attn_layer)]
    if len(layers) > 1 and next_attn_layer is not None:
        raise UsageError("--next-attn-layer goes with one --target-layer, not with several")
    return [layer_pair(tower, layer, next_attn_layer) for layer in layers]


def _reusable_trace(
    path: Path, tower: Tower, source: ImageSource, pair: LayerPair, options: Options
) -> Trace | None:
    """The trace at `path`, where it is whole and was made the same way."""
    try:
        found = Trace.load(path)
    except UsageError:
        return None
    provenance = found.provenance
    same = (
        provenance.origin.weights_fingerprint == tower.weights_fingerprint
        and (provenance.layer, provenance.next_layer) == pair
        and provenance.options
        == trace_options(source, options.max_images, tower.precision, options.storage)
        and found.info.preprocess == _plain(asdict(tower.preprocess))
    )
    return found if same else None


def _plain(value: Any) -> Any:
    """A value as it reads back from JSON."""
    import orjson

    return orjson.loads(orjson.dumps(value))


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
        found = self.circuit(fitted, lambda made: self._resampled(trace, features, fitted, made))
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

    def circuit(
        self, fitted: Fit, finish: Callable[[Circuit], Circuit] = lambda made: made
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
            "intervene": ("rank", "seed"),
        }[stage]
        return {name: getattr(self.options, name) for name in names}
