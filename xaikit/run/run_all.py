"""`run-all`: every stage, one after the other, leaving out what is already there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.inputs import require_parts
from xaikit.artifacts.trace import Trace
from xaikit.distributed import World
from xaikit.errors import UsageError
from xaikit.passes.record import LayerPair, layer_pair, trace_options
from xaikit.progress import Progress, silent
from xaikit.run.layer import LayerRun, LayerStages
from xaikit.run.options import Options
from xaikit.stages.trace import SHARED_SHARD, trace_layers

if TYPE_CHECKING:
    from xaikit.images import ImageSource, SkippedImages
    from xaikit.towers import Tower


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
    require_parts(tower, source)
    options, world = options or Options(), world or World()
    pairs = layer_pairs(tower, layers, next_attn_layer)
    root = Path(out_dir)
    folders = [root if len(pairs) == 1 else root / f"layer_{pair[0]}" for pair in pairs]
    if options.stream:
        if options.bootstrap or control is not None:
            flag = "--bootstrap" if options.bootstrap else "--control"
            raise UsageError(f"{flag} needs the trace: leave out --stream")
        from xaikit.run.streaming import run_stream

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
        from xaikit.run.live import run_live

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
