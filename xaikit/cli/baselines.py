"""`baselines`: what clusters explain, beside controls that know nothing of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.artifacts.inputs import FormatOptions, ImageOptions, ModelOptions, PreprocessOptions
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.inputs import open_source, open_tower, recorded, warn_left_out
from xaikit.cli.outputs import show_study
from xaikit.errors import UsageError
from xaikit.stages.baselines import HELD_OUT, BaselinesOptions, random_weights
from xaikit.stages.baselines import baselines as stage
from xaikit.stages.cluster import ClusterOptions, cluster
from xaikit.stages.trace import PairOptions, ReadOptions

if TYPE_CHECKING:
    from xaikit.artifacts.trace import Trace
    from xaikit.towers import Tower


@o.command(
    "baselines",
    examples=[
        "xaikit baselines",
        "xaikit baselines --trace trace.safetensors --control none --num-clusters 32",
        "xaikit baselines --model ViT-B-32 --pretrained openai --images photos --markdown",
    ],
)
def baselines(
    session: Session,
    options: BaselinesOptions,
    model: ModelOptions,
    images: ImageOptions,
    reading: ReadOptions,
    pair: PairOptions,
    form: FormatOptions,
    preprocess: PreprocessOptions,
    clusters: ClusterOptions = HELD_OUT,
    trace: o.TraceOrModel = None,
    control: o.ControlOption = o.Control.random_weights,
    out: o.OptionalOut = None,
    markdown: o.Markdown = False,
) -> None:
    """What clusters explain, beside controls that know nothing."""
    from xaikit.report.studies import baselines_sheet

    wanted = control is o.Control.random_weights
    source = tower = untrained = None
    if trace is None or wanted:
        source = open_source(images, model, seed=form.seed, max_images=reading.max_images)
        warn_left_out(session, source)
    if trace is None:
        tower = open_tower(model, form, preprocess, session=session)
    if wanted:
        untrained = open_tower(ModelOptions(model=model.model, pretrained="random"), form)
    with session.progress("baselines") as progress:
        traced = recorded(trace, tower, source, pair, reading, progress)
        found = cluster(traced, clusters, progress=progress)
        random = None
        if untrained is not None and source is not None:
            _same_model(untrained, traced)
            random = random_weights(
                untrained,
                source,
                traced,
                found,
                batch_size=reading.batch_size,
                workers=reading.workers,
                progress=progress,
            )
        result = stage(
            traced,
            found,
            options,
            random=random,
            progress=progress,
        )
    show_study(session, result, baselines_sheet(result), out, markdown)


def _same_model(tower: Tower, trace: Trace) -> None:
    traced = trace.provenance.origin.model
    if tower.info.model != traced:
        raise UsageError(
            f"--control random-weights: the trace is of {traced}; pass --model {traced} and the "
            "images of the trace, or --control none"
        )
