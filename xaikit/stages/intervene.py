"""`intervene`: what the model does when edges are edited in its own forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.inputs import require_parts
from xaikit.artifacts.options import all_at_zero, deciding, option
from xaikit.artifacts.records import file_of, require_parent
from xaikit.artifacts.results import Circuit, Intervention, TargetCausal
from xaikit.interventions import (
    ABLATIONS,
    MODES,
    CurveOptions,
    Live,
    Measurement,
    Objective,
    Order,
    Plan,
    chosen_objective,
    circuit_set,
    curves_alone,
    edge_targets,
    spread_evenly,
)
from xaikit.interventions.matching import joint_provenance, require_fits
from xaikit.progress import Progress, silent
from xaikit.rankings import KEYS
from xaikit.rankings.live import image_ids, joint_scores
from xaikit.rankings.selection import orders_of

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.artifacts.trace import Trace
    from xaikit.images import ImageSource
    from xaikit.interventions import Classifier
    from xaikit.towers import Tower

REVISION = 6
"""Raised where the same parts and options give other effects than before."""
DEFAULT_RANKINGS = ("reach", "attribution", "energy", "weight")


def _modes(text: str) -> tuple[str, ...]:
    return MODES if text == "both" else tuple(text.split(","))


@dataclass(frozen=True, kw_only=True)
class InterveneOptions(CurveOptions):
    """Options of an intervention, beside those of its curves.

    Attributes
    ----------
    rankings : sequence of str
        Whose curves to measure; the first one names the edges to test where there is no circuit.
    modes : sequence of str
        ``remove``, ``keep`` or both.
    max_images : int, optional
        At most so many images to test on, spread evenly.
    nodes : bool
        Ablate and inject whole clusters as well.
    other_ablations : sequence of str
        Further ablations under which the curves are measured.
    """

    rankings: Sequence[str] = option(
        DEFAULT_RANKINGS,
        f"Rankings to compare, separated by commas: {', '.join(KEYS)}.",
        flag="--rank",
        choices=KEYS,
        some=True,
    )
    modes: Sequence[str] = option(
        MODES,
        "Edit the edges (remove), everything else (keep), or each in turn (both).",
        flag="--mode",
        choices=MODES,
        some=True,
        parse=_modes,
        metavar="remove|keep|both",
    )
    max_images: int | None = option(
        128,
        "Images to test on, spread evenly; 0 = all.",
        panel="Images",
        least=1,
        parse=all_at_zero,
        metavar="<int>",
    )
    nodes: bool = option(True)
    other_ablations: Sequence[str] = option(
        (),
        f"Measure curves under these too, separated by commas: {', '.join(ABLATIONS)}.",
        flag="--also",
        choices=ABLATIONS,
        metavar="ABLATION,...",
    )


def intervene(
    tower: Tower,
    source: ImageSource,
    features: Features,
    fit: Fit,
    *,
    trace: Trace | None = None,
    circuit: Circuit | None = None,
    target: TargetCausal | None = None,
    classifier: Classifier | None = None,
    objective: Objective | None = None,
    pairs: Mapping[str, str] | None = None,
    options: InterveneOptions | None = None,
    progress: Progress = silent,
) -> Intervention:
    """Measure rankings, single edges and whole clusters of one layer in the real forward pass.

    Parameters
    ----------
    tower : Tower
        The model of the trace.
    source : ImageSource
        Holds the traced images, by id.
    features, fit : Features, Fit
    trace : Trace, optional
        For the ids of the images; without it the source must hold exactly the traced images.
    circuit, target, classifier, objective, pairs, options
        As in `intervene_layers`.

    Returns
    -------
    Intervention

    Raises
    ------
    UsageError
        Where the parts do not belong together or an option is out of range.
    """
    require_parts(tower, source)
    require_parent(fit, "features", features, child_name="fit")
    for name, part in (("circuit", circuit), ("target-causal", target)):
        if part is not None:
            require_parent(part, "fit", fit, child_name=name)
    found = intervene_layers(
        tower,
        source,
        [(features, fit)],
        ids=image_ids(source, features, trace),
        circuit=circuit,
        target=target,
        classifier=classifier,
        objective=objective,
        pairs=pairs,
        options=options,
        progress=progress,
    )
    found.features_file, found.fit_file = file_of(features), file_of(fit)
    found.circuit_file = file_of(circuit) if circuit is not None else ""
    return found


def intervene_layers(
    tower: Tower,
    source: ImageSource,
    parts: Sequence[tuple[Features, Fit]],
    *,
    ids: Sequence[str],
    circuit: Circuit | None = None,
    target: TargetCausal | None = None,
    classifier: Classifier | None = None,
    objective: Objective | None = None,
    pairs: Mapping[str, str] | None = None,
    scores: Mapping[str, Sequence[Tensor]] | None = None,
    images: Sequence[int] | None = None,
    options: InterveneOptions | None = None,
    progress: Progress = silent,
) -> Intervention:
    """Measure rankings and edges of several layers, edited together in the real forward pass.

    Rankings are scored on the discovery images and everything is measured on the held-out ones;
    without a holdout both are the same images, and the artefact says so (`heldout`).

    Parameters
    ----------
    tower : Tower
    source : ImageSource
        Holds the traced images, by id.
    parts : sequence of (Features, Fit)
        One a layer, of the same images and split.
    ids : sequence of str
        Ids of the images behind the features' labels.
    circuit : Circuit, optional
        Also measured as one set, against random sets of the same cover.
    target : TargetCausal, optional
        Whose edges are tested live; by default the circuit's first, else the first ranking's.
    classifier : Classifier, optional
        For KL divergence, margin and accuracy beside ``1 − cos``.
    objective : Objective, optional
        What rankings that run the model and single edges are judged by; by default what the
        options say.
    pairs : mapping of str to str, optional
        Partner of each image, for the ablation ``pair``.
    scores : mapping of str to sequence of Tensor, optional
        Scores that are known already, by ranking: a table a layer, lowest layer first.
    images : sequence of int, optional
        Rows to test on; by default the held-out ones.
    options : InterveneOptions, optional

    Returns
    -------
    Intervention

    Raises
    ------
    UsageError
        Where the parts do not belong together or an option is out of range.
    """
    o = (options or InterveneOptions()).checked()
    fits = [fit for _, fit in parts]
    if circuit is not None:
        require_fits(circuit, fits)
    features = parts[0][0]
    wanted = images if images is not None else features.test_images or range(len(ids))
    tested = spread_evenly(list(wanted), o.max_images)

    def open_live(ablation: str) -> Live:
        return Live(
            tower,
            source,
            parts,
            ids=ids,
            images=tested,
            options=replace(o, ablation=ablation),
            classifier=classifier,
            objective=objective or chosen_objective(tower, o, classifier),
            pairs=pairs,
        )

    live = open_live(o.ablation)
    orders = _orders(live, parts, o, scores or {}, progress)
    plan = o.plan(orders, o.modes)
    fields = _measured(live, plan, circuit, target, o, progress)
    full = {o.ablation: fields["full_effect"]}
    for ablation in o.other_ablations:
        full[ablation], more = curves_alone(open_live(ablation), orders, plan, progress)
        fields["curves"] += more
    return Intervention(
        provenance=joint_provenance(fits, deciding(o), circuit),
        **fields,
        full_effects=full,
        destination=live.destination,
        ablation=o.ablation,
        partners=live.partners,
        objective=live.objective.record(),
        layers=[[f.layer, f.next_layer] for f, _ in parts] if len(parts) > 1 else [],
        metrics=list(live.metrics),
        classifier=classifier.name if classifier else None,
        num_images=len(live.images),
        heldout=bool(features.heldout),
    ).identify()


def _orders(
    live: Live,
    parts: Sequence[tuple[Features, Fit]],
    options: InterveneOptions,
    scores: Mapping[str, Sequence[Tensor]],
    progress: Progress,
) -> list[Order]:
    """Orders of the rankings that are compared, scored on the discovery images where not known."""
    known = dict(scores)
    known |= joint_scores(
        [key for key in options.rankings if key not in known],
        live.tower,
        live.source,
        parts,
        ids=live.ids,
        options=options,
        classifier=live.classifier,
        objective=live.objective,
        progress=progress,
    )
    return [order for key in options.rankings for order in orders_of(key, known[key], live)]


def _measured(
    live: Live,
    plan: Plan,
    circuit: Circuit | None,
    target: TargetCausal | None,
    options: InterveneOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Fields of the artefact: curves of the plan, single edges, the circuit as a set, clusters."""
    edges = edge_targets(live, circuit, target, plan.orders[0], options)
    as_set = circuit_set(live, circuit)
    return Measurement(live, plan, edges, as_set, nodes=options.nodes).fields(progress)
