"""`run-all`'s last step: ask the live model, and draw one picture of it all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xaikit.artifacts.file_names import INTERVENE, OVERVIEW
from xaikit.artifacts.options import deciding
from xaikit.artifacts.results import Intervention
from xaikit.errors import XaikitError
from xaikit.images import framed
from xaikit.rankings.live import SIGNED
from xaikit.report.overview import PICTURES, draw_overview
from xaikit.run.reuse import Request
from xaikit.stages.intervene import REVISION, InterveneOptions, intervene

if TYPE_CHECKING:
    from xaikit.images import ImageSource
    from xaikit.run.layer import LayerRun, LayerStages
    from xaikit.run.options import Options
    from xaikit.towers import Tower

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def quick_options(o: Options) -> InterveneOptions:
    """Enough for the summary: `xaikit intervene` measures more.

    The run's own ranking is compared with the best one and with the best that needs no gradient.
    """
    return o.live_as(
        InterveneOptions,
        rankings=compared(o, "reach", "energy"),
        modes=("remove",),
        shares=SHARES,
        band_shares=(0.01, 0.1, 0.3),
        max_images=48,
        edges=8,
        edge_draws=39,
    )


def compared(o: Options, *others: str) -> tuple[str, ...]:
    """Rankings to compare: the run's own, and of an objective with a sign the one that has it."""
    signed = (SIGNED,) if o.live().directed else ()
    return tuple(dict.fromkeys((*others, *signed, o.circuit().rank)))


def run_live(stages: LayerStages, run: LayerRun) -> None:
    """Measure a finished layer's edges in the live model; set `run.intervention`."""
    o, subject = stages.options, stages.subject
    options = quick_options(o)
    request = Request(
        stage="intervene",
        revision=REVISION,
        inputs={"target-causal": run.target_causal.identity, **subject.classes},
        options=deciding(options),
    )
    tower, source = subject.tower, subject.source
    run.intervention = stages.folder.make(
        INTERVENE,
        Intervention,
        request,
        lambda: intervene(
            tower,
            source,
            run.features,
            run.fit,
            circuit=run.circuit,
            target=run.target_causal,
            classifier=subject.classifier(run.info.images),
            options=options,
            progress=stages.progress("intervene"),
        ),
    )
    run.overview = draw(stages.folder.root / OVERVIEW, tower, source, run)


def draw(out: Path, tower: Tower, source: ImageSource, run: LayerRun) -> Path | None:
    """The overview of a run, with the first held-out images."""
    place = {name: at for at, name in enumerate(source.ids)}
    shown = run.features.test_images[:PICTURES]
    try:
        pictures = [
            np.asarray(framed(source.load(place[run.info.images[at]]), tower.preprocess))
            for at in shown
        ]
    except (XaikitError, KeyError):
        return None
    labels = run.features.labels[shown].numpy()
    return draw_overview(pictures, labels, run.fit, run.circuit, run.intervention, out)
