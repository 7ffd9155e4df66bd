"""`stability`: do clusters and circuits hold across seeds, images and numbers of clusters?"""

from __future__ import annotations

from xaikit.artifacts.inputs import FormatOptions, ImageOptions, ModelOptions, PreprocessOptions
from xaikit.artifacts.trace import Trace
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.inputs import (
    open_source,
    open_tower,
    recorded,
    refuse_beside_trace,
    warn_left_out,
)
from xaikit.cli.outputs import show_study
from xaikit.stages.stability import StabilityOptions
from xaikit.stages.stability import stability as stage
from xaikit.stages.trace import PairOptions, ReadOptions


@o.command(
    "stability",
    examples=[
        "xaikit stability",
        "xaikit stability --trace trace.safetensors --num-clusters 8,16,32 --rank contrast",
    ],
)
def stability(
    session: Session,
    given: o.Given,
    options: StabilityOptions,
    model: ModelOptions,
    images: ImageOptions,
    reading: ReadOptions,
    pair: PairOptions,
    form: FormatOptions,
    preprocess: PreprocessOptions,
    trace: o.TraceOrModel = None,
    out: o.OptionalOut = None,
    markdown: o.Markdown = False,
) -> None:
    """Do circuits hold across seeds, images and cluster numbers?"""
    from xaikit.report.studies import stability_sheet

    with session.progress("stability") as progress:
        if trace is not None:
            refuse_beside_trace(given)
            traced = Trace.load(trace)
        else:
            source = open_source(images, model, seed=form.seed, max_images=reading.max_images)
            warn_left_out(session, source)
            tower = open_tower(model, form, preprocess, session=session)
            traced = recorded(tower, source, pair, reading, progress)
        result = stage(traced, options, progress=progress)
    show_study(session, result, stability_sheet(result), out, markdown)
