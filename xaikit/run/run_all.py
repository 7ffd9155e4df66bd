"""`run-all`: every stage, one after the other, leaving out what is already there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xaikit.artifacts.holding import holding
from xaikit.artifacts.inputs import require_parts
from xaikit.artifacts.options import checked
from xaikit.distributed import World
from xaikit.errors import UsageError
from xaikit.images import SkippedImages
from xaikit.interventions.classifiers import folder_targets, read_labels
from xaikit.interventions.groups import image_groups
from xaikit.passes.checkpoint import remove_checkpoints
from xaikit.passes.feed import LayerPair
from xaikit.passes.memory import require_draws
from xaikit.passes.record import layer_pair
from xaikit.progress import Progress, silent
from xaikit.rankings import ranking
from xaikit.run.all_layers import AllLayers
from xaikit.run.choose import choose_number
from xaikit.run.forecast import Forecast, forecast
from xaikit.run.options import Options
from xaikit.run.reuse import require_none_of_others
from xaikit.run.subject import Subject
from xaikit.run.whole import Runs
from xaikit.stages.choose import SWEEP
from xaikit.stages.fit import sum_options
from xaikit.stages.trace import SHARED_SHARD

if TYPE_CHECKING:
    from xaikit.images import ImageSource
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
    command: str = "",
    control: Tower | None = None,
    world: World | None = None,
    skipped: SkippedImages | None = None,
    progress: Progress = silent,
) -> Runs:
    """Run every stage for each layer, writing into `out_dir` (``layer_<l>/`` for several).

    Several layers also have one circuit of all of them, edited together: ``circuit.json``,
    ``intervene.json`` and, where edges end at clusters, ``graph.json``. With ``options.group``
    there is ``groups.json``, a circuit for each group of images.

    A stage whose inputs and options have not changed is not run again, so an interrupted run
    goes on where it stopped. While another run writes to the folder this one waits.

    Parameters
    ----------
    layers : sequence of int, optional
        Target layers; by default one, about 0.7 up.
    next_attn_layer : int, optional
        Only with a single target layer.
    force : bool
        Run every stage again.
    command : str
        What makes the run again on the command line, for its record.
    control : Tower, optional
        The same model with random weights: it is traced, clustered and fitted on the same
        images, in memory, and what its clusters add goes into the fit's controls.
    world : World, optional
        The processes that share the images; later stages run in the first one.

    Returns
    -------
    list of LayerRun
        Empty in all processes but the first; its ``whole`` is the `WholeRun` of several layers.
    """
    require_parts(tower, source)
    _require_apart(source, out_dir)
    options, world = (options or Options()).settled(), world or World()
    pairs = layer_pairs(tower, layers, next_attn_layer)
    for folder in (Path(out_dir), *(Path(out_dir) / f"layer_{pair[0]}" for pair in pairs)):
        require_none_of_others(folder)
    if options.group is not None:
        # Said before an hour of work: a file that cannot be read, images that lie in no folders.
        image_groups(options.group, source.ids, source.groups)
    if options.stream and (options.bootstrap or control is not None):
        given = "`bootstrap=`" if options.bootstrap else "`control=`"
        raise UsageError(f"{given} needs the trace: leave out `stream=True`")
    if options.bootstrap and ranking(options.circuit().rank).needs_model:
        raise UsageError(
            f"`bootstrap=` counts images again and again, which `rank={options.rank}` would take a "
            "run of the model for: pass `rank=weight`, contrast, energy or zscore"
        )
    if world.size > 1 and not options.storage.shard_images:
        storage = replace(options.storage, shard_images=SHARED_SHARD)
        options = replace(options, storage=storage)
    if options.method == "guided" and not options.storage.store_qk:
        # Guided clusters are learnt from a trace's queries and keys.
        options = replace(options, storage=replace(options.storage, store_qk=True))
    subject = Subject(
        tower=tower,
        source=source,
        options=options,
        world=world,
        skipped=SkippedImages() if skipped is None else skipped,
        progress=progress,
    )
    _require_objective(subject)
    _require_draws(subject)
    with holding(out_dir, world):
        choose_number(subject, pairs, Path(out_dir), force)
        run = AllLayers(subject, pairs, Path(out_dir), force, command)
        if options.stream:
            run.streamed()
        else:
            run.stored()
        if world.leads:
            remove_checkpoints(run.scratch)
        return run.rest(control) if world.leads else Runs()


def planned(
    tower: Tower,
    source: ImageSource,
    *,
    layers: Sequence[int] | None = None,
    next_attn_layer: int | None = None,
    options: Options | None = None,
) -> Forecast:
    """What `run_all` with the same arguments will need, see `xaikit.run.forecast`."""
    require_parts(tower, source)
    pairs = layer_pairs(tower, layers, next_attn_layer)
    settled = (options or Options()).settled()
    # What is still to be chosen needs no more than the most that may be chosen.
    settled = replace(settled, num_clusters=settled.num_clusters or max(SWEEP))
    subject = Subject(tower=tower, source=source, options=settled)
    _require_objective(subject)
    _require_draws(subject)
    return forecast(subject, pairs)


def _require_apart(source: ImageSource, out_dir: str | Path) -> None:
    """Refuse to write where images are read from: pictures of a run would be images of the next."""
    root, out = getattr(source, "root", None), Path(out_dir)
    if root is not None and any(
        place.is_relative_to(among)
        for place, among in ((out.resolve(), Path(root).resolve()), (out.absolute(), Path(root)))
    ):
        raise UsageError(
            f"`out_dir={out}`: it lies in the folder of the images, {root}, and its pictures would "
            "be read as images the next time: pass another folder"
        )


def _require_draws(subject: Subject) -> None:
    """Say before an image is read that the permutations do not fit into memory."""
    o, info = subject.options, subject.tower.info
    clusters = o.num_clusters or max(SWEEP)
    sums = sum_options(checked(o.fit()), clusters)
    require_draws(sums.shape(info.heads, info.tokens), sums.draws, o.memory)


def _require_objective(subject: Subject) -> None:
    """Say before an hour of work what is no objective of the model, or no file of classes."""
    subject.objective(())
    if subject.options.intervene and subject.labels is not None:
        _, folders = read_labels(subject.labels)
        if folders is not None:
            folder_targets(subject.source, folders, subject.source.ids[: subject.candidates])


def layer_pairs(
    tower: Tower, layers: Sequence[int] | None, next_attn_layer: int | None
) -> list[LayerPair]:
    """Check the target layers and pair each with the attention after it."""
    if layers is None or len(layers) == 0:
        return [layer_pair(tower, None, next_attn_layer)]
    if len(layers) > 1 and next_attn_layer is not None:
        raise UsageError("`next_attn_layer=` goes with one `target_layer=`, not with several")
    return [layer_pair(tower, layer, next_attn_layer) for layer in layers]
