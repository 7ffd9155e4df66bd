"""Scores of rankings that run the model, on the images that circuits are chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.records import require_parent
from xaikit.errors import UsageError
from xaikit.images.content import content_fingerprint
from xaikit.interventions.live import Live
from xaikit.interventions.live_options import LiveOptions, chosen_objective
from xaikit.interventions.matching import spread_evenly
from xaikit.interventions.objectives import Objective
from xaikit.progress import Progress, silent
from xaikit.rankings import ranking, score

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.artifacts.trace import Trace
    from xaikit.images import ImageSource
    from xaikit.interventions.metrics import Classifier
    from xaikit.towers import Tower


SIGNED = "attribution"
"""The ranking whose sign says on whose side of an objective an edge is."""


@dataclass(frozen=True, kw_only=True)
class AimedScores:
    """What a circuit is chosen by; a table a layer, lowest layer first.

    Attributes
    ----------
    scores : dict of str to tuple of Tensor
        As `joint_scores` gives them, by ranking.
    sizes : tuple of Float[Tensor, "cluster head destination"]
        What edges are ordered by: edges against an objective are part of its circuit as well.
    effects : tuple of Float[Tensor, "cluster head destination"], optional
        Signed effects of an objective with a sign.
    objective : Objective
    """

    scores: dict[str, tuple[Tensor, ...]]
    sizes: tuple[Tensor, ...]
    effects: tuple[Tensor, ...] | None
    objective: Objective

    def of_only_layer(self) -> dict[str, Any]:
        """What `xaikit.circuit` takes of them, where one layer was scored."""
        if self.effects is None:
            return {"scores": self.sizes[0]}
        return {
            "scores": self.sizes[0],
            "effects": self.effects[0],
            "objective": self.objective,
        }


def aimed_scores(
    rank: str,
    tower: Tower,
    source: ImageSource,
    parts: Sequence[tuple[Features, Fit]],
    *,
    ids: Sequence[str],
    options: LiveOptions,
    classifier: Classifier | None = None,
    objective: Objective | None = None,
    images: Sequence[int] | None = None,
    progress: Progress = silent,
) -> AimedScores:
    """Scores of a ranking and, of an objective with a sign, on whose side each edge is.

    Parameters
    ----------
    rank : str
        A ranking's key.
    tower, source, parts, ids, options, classifier, images
        As in `joint_scores`.
    objective : Objective, optional
        By default what the options say.
    """
    aim = objective or chosen_objective(tower, options, classifier)
    scores = joint_scores(
        [rank, SIGNED] if aim.signed and rank != SIGNED else [rank],
        tower,
        source,
        parts,
        ids=ids,
        options=options,
        classifier=classifier,
        objective=aim,
        images=images,
        progress=progress,
    )
    sizes = scores[rank]
    if aim.signed and ranking(rank).signed:
        sizes = tuple(table.abs() for table in sizes)
    effects = scores[SIGNED] if aim.signed else None
    return AimedScores(scores=scores, sizes=sizes, effects=effects, objective=aim)


def joint_scores(
    rankings: Sequence[str],
    tower: Tower,
    source: ImageSource,
    parts: Sequence[tuple[Features, Fit]],
    *,
    ids: Sequence[str],
    options: LiveOptions,
    classifier: Classifier | None = None,
    objective: Objective | None = None,
    images: Sequence[int] | None = None,
    progress: Progress = silent,
) -> dict[str, tuple[Float[Tensor, "cluster head destination"], ...]]:
    """Scores of rankings, by key, a table for each layer, from edits of all layers together.

    Parameters
    ----------
    rankings : sequence of str
        Keys of `xaikit.rankings`; those that need the fit alone do not run the model.
    tower, source
        As in `xaikit.intervene`.
    parts : sequence of (Features, Fit)
        One a layer.
    ids : sequence of str
        Ids of the images behind the features' labels (see `image_ids`).
    images : sequence of int, optional
        Rows to score on; by default at most ``options.score_images`` discovery images.
    """
    if images is None:
        chosen = parts[0][0].discovery or range(len(ids))
        images = spread_evenly(list(chosen), options.score_images)
    # Scores do not depend on the ablation of the curves; mean needs no partners.
    live = Live(
        tower,
        source,
        parts,
        ids=ids,
        images=images,
        options=replace(options, ablation="mean"),
        classifier=classifier,
        objective=objective,
        progress=progress,
    )
    return {key: score(key, live) for key in rankings}


def image_ids(source: ImageSource, features: Features, trace: Trace | None = None) -> list[str]:
    """Ids of the images behind the features' labels.

    Raises
    ------
    UsageError
        If the trace is another, or the source's images of these names are not those that were
        recorded.
    """
    if trace is not None:
        require_parent(features, "trace", trace, child_name="features")
    ids = features.info.images
    places = {name: place for place, name in enumerate(source.ids)}
    missing = [name for name in ids if name not in places]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(ids)} images of the trace are not among the given images, "
            f"the first is {missing[0]}: pass the images that were traced"
        )
    content = content_fingerprint(source, [places[name] for name in ids])
    if content != features.provenance.origin.images_fingerprint:
        raise UsageError(
            "the given images have the names of those that were traced, and another content or "
            "other folders: pass the images that were traced"
        )
    return ids
