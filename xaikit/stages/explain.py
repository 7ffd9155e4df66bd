"""`explain`: the clusters of one image, the edges that matter for it, and whether they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.explanation import Explanation
from xaikit.artifacts.inputs import require_parts
from xaikit.artifacts.options import deciding, like, option
from xaikit.errors import OptionError, UsageError
from xaikit.images.views import Views
from xaikit.interventions import (
    ABLATIONS,
    MODES,
    CurveOptions,
    Live,
    Plan,
    check_parts,
    chosen_objective,
    edge_targets,
    full_patch,
    spread_evenly,
)
from xaikit.interventions.covers import shared_covers
from xaikit.interventions.matching import joint_provenance
from xaikit.interventions.measurement import means
from xaikit.passes.labels import label_images
from xaikit.progress import Progress, silent
from xaikit.rankings import KEYS, ranking, score
from xaikit.rankings.live import SIGNED, joint_scores
from xaikit.rankings.selection import joint_edges, orders_of

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from xaikit.artifacts.edges import Edge
    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.images import ImageSource
    from xaikit.interventions import Classifier, Objective
    from xaikit.interventions.targets import EdgeTargets
    from xaikit.towers import Tower

REVISION = 2
DEFAULT_RANK = "reach"
CLASSES = 5
"""Of the model's classes, shown."""


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(CurveOptions):
    """Options of an explanation, beside those of its curves.

    Attributes
    ----------
    rank : str, optional
        The ranking behind the image's own order and the common one; by default the run's, or
        `reach` where that one does not run the model.
    views : int
        Views of the image, half of them to choose on.
    top_k : int
        Edges listed.
    """

    ablation: str = like(
        CurveOptions, "ablation", choices=tuple(each for each in ABLATIONS if each != "pair")
    )
    rank: str | None = option(
        None, "Ranking of the image's edges; default: the run's.", choices=KEYS
    )
    views: int = option(8, "Views of the image; half choose, half test.", panel="Images", least=2)
    top_k: int = option(20, "Edges to list.", least=1)
    edges: int = like(CurveOptions, "edges", default=8)
    score_images: int | None = like(
        CurveOptions,
        "score_images",
        default=64,
        help="Discovery images behind the common circuit, spread evenly; 0 = all.",
    )

    def check(self) -> None:
        """Refuse an odd number of views."""
        super().check()
        if self.views % 2:
            raise OptionError("views", self.views, "an even number, half of them to test on")


def explain(
    tower: Tower,
    source: ImageSource,
    parts: Sequence[tuple[Features, Fit]],
    image: Image.Image,
    *,
    name: str,
    ids: Sequence[str],
    rank: str | None = None,
    scores: Sequence[Tensor] | None = None,
    classifier: Classifier | None = None,
    objective: Objective | None = None,
    options: ExplainOptions | None = None,
    progress: Progress = silent,
) -> Explanation:
    """Rank the edges of all layers on one image and measure them on other views of it.

    Half of the image's views choose: the whole image and crops. The other half test: the mirror
    image, other crops, some of them mirrored. The common order, ranked on the run's discovery
    images without this one, and random orders are measured on the same views at equal cover.

    Parameters
    ----------
    tower : Tower
    source : ImageSource
        Holds the images of the run, by id.
    parts : sequence of (Features, Fit)
        One a layer, of one run.
    image : PIL.Image.Image
        Mode RGB; see `xaikit.images.views.find_image`.
    name : str
        The image's path, or its id in the run.
    ids : sequence of str
        Ids of the images behind the features' labels.
    rank : str, optional
        The run's ranking.
    scores : sequence of Tensor, optional
        The common order's scores where they are known, a table a layer, lowest first.
    classifier, objective
        As in `intervene_layers`.
    options : ExplainOptions, optional

    Returns
    -------
    Explanation

    Raises
    ------
    UsageError
        Where the parts do not belong together, or the ranking is the same for every image.
    """
    require_parts(tower, source)
    check_parts(parts)
    o = (options or ExplainOptions()).checked()
    ordered = sorted(parts, key=lambda part: part[1].next_layer)
    key = _chosen_rank(o.rank, rank)
    views = Views(image, o.views, o.seed)
    own = _of_views(tower, views, ordered, o)
    aim = objective or chosen_objective(tower, o, classifier)
    given: dict[str, Any] = {"classifier": _unlabelled(classifier), "objective": aim}
    choosing = Live(tower, views, own, ids=views.ids, images=views.choose, options=o, **given)
    tables = score(key, choosing)
    effects = score(SIGNED, choosing) if aim.signed and not ranking(key).signed else None
    discovery = _others(ordered[0][0], ids, name, o.score_images)
    if scores is None:
        scores = joint_scores(
            [key],
            tower,
            source,
            ordered,
            ids=ids,
            options=o,
            objective=aim,
            classifier=classifier,
            images=discovery,
            progress=progress,
        )[key]
    live = Live(tower, views, own, ids=views.ids, images=views.test, options=o, **given)
    mine = orders_of(key, tables, live, support=choosing.counts, name="own")
    common = orders_of(key, scores, live, name="common")
    plan = o.plan([*mine, *common], MODES)
    targets = edge_targets(live, None, None, mine[0], o)
    return Explanation(
        provenance=joint_provenance([fit for _, fit in ordered], deciding(o)),
        image=name,
        rank=key,
        grid=list(tower.info.grid),
        prefix_kinds=list(tower.info.prefix_kinds),
        layers=[[fit.layer, fit.next_layer] for _, fit in ordered],
        labels=[features.labels[0].tolist() for features, _ in own],
        edges=_edges(choosing, tables, key, o.top_k, effects),
        common_edges=_edges(choosing, scores, key, o.top_k, effects),
        overlap=shared_covers(mine[0], common[0], live.counts, o.shares[:-1]),
        choosing=[views.ids[view] for view in views.choose],
        tested=[views.ids[view] for view in views.test],
        common_images=len(discovery),
        classes=_classes(choosing),
        objective=aim.record(),
        ablation=o.ablation,
        destination=live.destination,
        metrics=list(live.metrics),
        classifier=classifier.name if classifier else None,
        **_measured(live, plan, targets, progress),
    ).identify()


def _measured(live: Live, plan: Plan, targets: EdgeTargets, progress: Progress) -> dict[str, Any]:
    """Curves, bands and single edges, in one pass over the test views."""
    curves = plan.patches(live)
    full, *found = live.measure(
        [full_patch(live.shapes), *curves, *targets.patches(live)], progress
    )
    whole = means(full)
    records, bands = plan.records(live, found[: len(curves)], whole)
    return {
        "full_effect": whole,
        "curves": records,
        "random": bands,
        "effects": targets.measured(live, found[len(curves) :]),
    }


def _chosen_rank(asked: str | None, run: str | None) -> str:
    if asked is None:
        return run if run is not None and ranking(run).needs_model else DEFAULT_RANK
    if not ranking(asked).needs_model:
        running = ", ".join(key for key in KEYS if ranking(key).needs_model)
        raise UsageError(
            f"`rank={asked}` is of the fit and the same for every image: expected one of {running}"
        )
    return asked


def _of_views(
    tower: Tower, views: Views, parts: Sequence[tuple[Features, Fit]], options: ExplainOptions
) -> list[tuple[Features, Fit]]:
    """The parts with the clusters of the views in place of those of the run's images."""
    labels = label_images(
        tower, views, [features for features, _ in parts], batch_size=options.batch_size
    )
    return [
        (replace(features, labels=own, discovery=views.choose, heldout=views.test), fit)
        for (features, fit), own in zip(parts, labels, strict=True)
    ]


def _others(features: Features, ids: Sequence[str], name: str, most: int | None) -> list[int]:
    """Discovery images for the common order: not the image itself."""
    wanted = features.discovery or range(len(ids))
    found = spread_evenly([image for image in wanted if ids[image] != name], most)
    if not found:
        raise UsageError("the run has no other image for a common circuit")
    return found


def _unlabelled(classifier: Classifier | None) -> Classifier | None:
    """The classifier with the clean model's class as the right one: targets are of the run."""
    return None if classifier is None else replace(classifier, targets=None)


def _edges(
    live: Live,
    scores: Sequence[Tensor],
    key: str,
    count: int,
    effects: Sequence[Tensor] | None,
) -> list[Edge]:
    """Records of the first edges that the choosing views have entries of.

    An edge's side is that of its score where the ranking has a sign, else of `effects`.
    """
    fits = [site.fit for site in live.sites]
    signed = live.objective.signed and ranking(key).signed
    there = [
        (counts > 0)[:, None, :].expand(shape)
        for counts, shape in zip(live.counts, live.shapes, strict=True)
    ]
    sizes = [table.abs() if signed else table for table in scores]
    return joint_edges(fits, sizes, count, effects=scores if signed else effects, allowed=there)


def _classes(live: Live) -> list[dict[str, Any]]:
    """The model's first classes for the whole image, with their probabilities."""
    if live.classifier is None:
        return []
    return live.classifier.first_classes(next(iter(live.batches())).clean, CLASSES)
