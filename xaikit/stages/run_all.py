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
from xaikit.errors import UsageError
from xaikit.progress import Progress, silent
from xaikit.stages.causal import causal
from xaikit.stages.circuit import circuit
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal
from xaikit.stages.trace import LayerPair, layer_pair, trace_layers, trace_options

if TYPE_CHECKING:
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
    top_k: int = 50
    rank: str = "weight"
    max_qvalue: float | None = None
    max_clusters: int = 16
    top_n: int = 20
    intervene: bool = True


@dataclass(kw_only=True)
class LayerRun:
    """Artefacts of one pair of layers.

    Attributes
    ----------
    folder : Path
    seconds : dict of str to float
        Time of each stage that ran.
    reused : list of str
        Stages whose result was already there.
    """

    folder: Path
    trace: Trace
    features: Features
    fit: Fit
    circuit: Circuit
    causal: Causal
    target_causal: TargetCausal
    intervention: Intervention | None = None
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
    skipped: SkippedImages | None = None,
    progress: Progress = silent,
) -> list[LayerRun]:
    """Run every stage for each layer, writing into `out_dir` (``layer_<l>/`` for several).

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

    Returns
    -------
    list of LayerRun
    """
    options = options or Options()
    pairs = layer_pairs(tower, layers, next_attn_layer)
    root = Path(out_dir)
    folders = [root if len(pairs) == 1 else root / f"layer_{pair[0]}" for pair in pairs]
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
            skipped=skipped,
            progress=progress,
        )
        for at, made in zip(wanted, fresh, strict=True):
            traces[at] = made
    traced = time.perf_counter() - start
    runs = []
    for at, folder in enumerate(folders):
        found = traces[at]
        assert found is not None
        run = _Layer(folder, options, force, progress)
        if at in wanted:
            run.seconds["trace"] = traced / len(wanted)
        else:
            run.reused.append("trace")
        runs.append(run.run(tower, source, found))
    return runs


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


class _Layer:
    """The stages after the trace, for one pair of layers."""

    def __init__(self, folder: Path, options: Options, force: bool, progress: Progress) -> None:
        self.folder, self.options, self.force = folder, options, force
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.reused: list[str] = []

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def run(self, tower: Tower, source: ImageSource, trace: Trace) -> LayerRun:
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
                seed=o.seed,
                trace_file=trace_file,
                features_file=path("features.safetensors"),
                progress=progress,
            ),
        )
        found = self.stage(
            Circuit,
            "circuit.json",
            fitted.identity,
            lambda: circuit(
                fitted,
                top_k=o.top_k,
                rank=o.rank,
                max_qvalue=o.max_qvalue,
                heatmap_dir=self.folder / "heatmaps",
                fit_file=path("fit.safetensors"),
            ),
        )
        return LayerRun(
            folder=self.folder,
            trace=trace,
            features=features,
            fit=fitted,
            circuit=found,
            causal=self._causal(features, fitted),
            target_causal=self._target_causal(trace, features, fitted, found),
            seconds=self.seconds,
            reused=self.reused,
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
        path = self.folder / name
        request = {"parent": parent, **self._request(kind.STAGE)}
        if not self.force:
            try:
                found = kind.load(path)
            except UsageError:
                pass
            else:
                if found.provenance.options.get("request") == request:
                    self.reused.append(kind.STAGE)
                    return found
        start = time.perf_counter()
        made = make()
        made.provenance = replace(
            made.provenance, options={**made.provenance.options, "request": request}
        )
        made.save(path)
        self.seconds[kind.STAGE] = time.perf_counter() - start
        return made

    def _request(self, stage: str) -> dict[str, Any]:
        """The options that decide a stage's result."""
        names = {
            "cluster": ("num_clusters", "sample_tokens", "seed", "holdout"),
            "fit": ("destination", "num_permutations", "null", "seed"),
            "circuit": ("top_k", "rank", "max_qvalue"),
            "causal": ("max_clusters", "num_permutations", "seed"),
            "target-causal": ("top_n", "num_permutations", "seed"),
        }[stage]
        return {name: getattr(self.options, name) for name in names}
