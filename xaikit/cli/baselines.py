"""`baselines`: what clusters explain, beside controls that know nothing of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xaikit.artifacts.inputs import FormatOptions, ImageOptions, ModelOptions, PreprocessOptions
from xaikit.artifacts.options import flags
from xaikit.artifacts.trace import Trace
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.inputs import (
    open_source,
    open_tower,
    recorded,
    refuse_beside_trace,
    source_of,
    warn_left_out,
)
from xaikit.cli.outputs import show_study
from xaikit.errors import UsageError
from xaikit.stages.baselines import HELD_OUT, BaselinesOptions, random_weights
from xaikit.stages.baselines import baselines as stage
from xaikit.stages.cluster import ClusterOptions, cluster
from xaikit.stages.trace import PairOptions, ReadOptions

if TYPE_CHECKING:
    from xaikit.images import ImageSource
    from xaikit.towers import Tower

_OF_CONTROL = ("model", "precision", *(flag.name for flag in flags(ImageOptions)))
"""Options that the untrained model behind a control takes."""


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
    given: o.Given,
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
    untrained: tuple[Tower, ImageSource] | None = None
    with session.progress("baselines") as progress:
        if trace is not None:
            refuse_beside_trace(given, _OF_CONTROL if wanted else ())
            traced = Trace.load(trace)
            if wanted:
                own = _untrained_of(traced, given.get("model"), form)
                untrained = own, source_of(traced.info, images)
        else:
            source = open_source(images, model, seed=form.seed, max_images=reading.max_images)
            warn_left_out(session, source)
            tower = open_tower(model, form, preprocess, session=session)
            if wanted:
                untrained = _untrained(model.model, form), source
            traced = recorded(tower, source, pair, reading, progress)
        found = cluster(traced, clusters, progress=progress)
        random = None
        if untrained is not None:
            random = random_weights(
                *untrained,
                traced,
                found,
                batch_size=reading.batch_size,
                workers=reading.workers,
                progress=progress,
            )
        result = stage(traced, found, options, random=random, progress=progress)
    show_study(session, result, baselines_sheet(result), out, markdown)


def _untrained(model: str, form: FormatOptions) -> Tower:
    return open_tower(ModelOptions(model=model, pretrained="random"), form)


def _untrained_of(traced: Trace, model: str | None, form: FormatOptions) -> Tower:
    """The model of a trace with random weights; one that is given by hand has to be the same."""
    own = traced.provenance.origin.model
    found = _untrained(model or own, form)
    if found.info.model != own:
        raise UsageError(
            f"--control random-weights: the trace is of {own} and not of {model}; leave out "
            "--model, or pass --control none"
        )
    return found
