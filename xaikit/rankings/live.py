"""Scores of rankings that run the model, on the images that circuits are chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.records import require_parent
from xaikit.errors import UsageError
from xaikit.interventions.live import Live, LiveOptions
from xaikit.interventions.matching import spread_evenly
from xaikit.progress import Progress, silent
from xaikit.rankings import score

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.artifacts.trace import Trace
    from xaikit.images import ImageSource
    from xaikit.interventions.metrics import Classifier
    from xaikit.towers import Tower


def live_scores(
    rankings: Sequence[str],
    tower: Tower,
    source: ImageSource,
    features: Features,
    fit: Fit,
    *,
    ids: Sequence[str],
    options: LiveOptions,
    progress: Progress = silent,
) -> dict[str, Float[Tensor, "cluster head destination"]]:
    """Scores of rankings, by key, on at most ``options.score_images`` discovery images.

    Parameters
    ----------
    rankings : sequence of str
        Keys of `xaikit.rankings`; those that need the fit alone do not run the model.
    tower, source, features, fit
        As in `xaikit.intervene`.
    ids : sequence of str
        Ids of the images behind the features' labels (see `image_ids`).
    """
    chosen = features.discovery or range(len(ids))
    images = spread_evenly(list(chosen), options.score_images)
    live = open_live(tower, source, features, fit, ids, images, options, progress)
    return {key: score(key, fit, live) for key in rankings}


def open_live(
    tower: Tower,
    source: ImageSource,
    features: Features,
    fit: Fit,
    ids: Sequence[str],
    images: Sequence[int],
    options: LiveOptions,
    progress: Progress = silent,
    classifier: Classifier | None = None,
) -> Live:
    """`Live` on some images, with the options of an intervention."""
    return Live(
        tower,
        source,
        features,
        fit,
        ids=ids,
        images=images,
        batch_size=options.batch_size,
        ablation=options.ablation,
        classifier=classifier,
        ig_steps=options.ig_steps,
        workers=options.workers,
        seed=options.seed,
        progress=progress,
    )


def image_ids(source: ImageSource, features: Features, trace: Trace | None) -> list[str]:
    """Ids of the images behind the features' labels.

    Raises
    ------
    UsageError
        If the trace is another, or the source does not hold exactly the traced images.
    """
    if trace is not None:
        require_parent(features, "trace", trace, child_name="features")
        return list(trace.images)
    ids = list(source.ids)[: len(features.labels)]
    if fingerprint(ids) != features.provenance.origin.images_fingerprint:
        raise UsageError(
            "these are not the images that were traced: pass the same ones, or --trace, which "
            "names those that were used"
        )
    return ids
