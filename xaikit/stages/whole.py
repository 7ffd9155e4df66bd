"""The circuit of several layers: edges ranked together, because they are edited together.

`xaikit.stages.intervene.intervene_layers` measures it, `xaikit.stages.graph` draws its paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.edges import Edge
from xaikit.artifacts.options import checked, deciding
from xaikit.artifacts.results import Circuit
from xaikit.errors import UsageError
from xaikit.interventions import LiveOptions, Objective
from xaikit.interventions.matching import check_parts
from xaikit.progress import Progress, silent
from xaikit.rankings.live import aimed_scores
from xaikit.rankings.selection import joint_edges
from xaikit.statistics.multiple import joint_discovery_qvalues

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.images import ImageSource
    from xaikit.interventions import Classifier
    from xaikit.towers import Tower

REVISION = 4


@dataclass(kw_only=True)
class WholeCircuit:
    """A circuit of several layers and the scores it was chosen by.

    Attributes
    ----------
    circuit : Circuit
        Its records carry ``layer`` and ``next_layer``, and ``effect`` and ``side`` where the
        objective has a sign.
    scores : dict of str to tuple of Tensor
        By ranking: a table a layer, lowest first.
    """

    circuit: Circuit
    scores: dict[str, tuple[Tensor, ...]]


def whole_circuit(
    tower: Tower,
    source: ImageSource,
    parts: Sequence[tuple[Features, Fit]],
    *,
    ids: Sequence[str],
    rank: str = "reach",
    top_k: int = 50,
    max_qvalue: float | None = None,
    classifier: Classifier | None = None,
    objective: Objective | None = None,
    images: Sequence[int] | None = None,
    options: LiveOptions | None = None,
    progress: Progress = silent,
) -> WholeCircuit:
    """Rank the edges of several layers together and keep the first `top_k`.

    Parameters
    ----------
    tower : Tower
    source : ImageSource
        Holds the images by id.
    parts : sequence of (Features, Fit)
        One a layer, of the same images and split.
    ids : sequence of str
        Ids of the images behind the features' labels.
    rank : str
        A ranking's key.
    top_k : int
    max_qvalue : float, optional
        Keep only edges with at most this q-value, over the edges of all layers, on the discovery
        images.
    classifier : Classifier, optional
        For the objective ``margin``.
    objective : Objective, optional
        By default what the options say.
    images : sequence of int, optional
        Rows to score on; by default discovery images.
    options : LiveOptions, optional

    Returns
    -------
    WholeCircuit

    Raises
    ------
    UsageError
        Where the parts do not belong together.
    """
    if top_k < 1:
        raise UsageError(f"`top_k={top_k}` is not a positive number")
    check_parts(parts)
    parts = sorted(parts, key=lambda part: part[1].next_layer)
    o = checked(options or LiveOptions())
    found = aimed_scores(
        rank,
        tower,
        source,
        parts,
        ids=ids,
        options=o,
        classifier=classifier,
        objective=objective,
        images=images,
        progress=progress,
    )
    fits = [fit for _, fit in parts]
    allowed = None
    if max_qvalue is not None:
        allowed = [q <= max_qvalue for q in joint_discovery_qvalues(fits)]
    paths = joint_edges(fits, found.sizes, top_k, effects=found.effects, allowed=allowed)
    record = {"top_k": top_k, "rank": rank, "max_qvalue": max_qvalue}
    made = _artefact(fits, paths, record, found.objective, o)
    return WholeCircuit(circuit=made, scores=found.scores)


def _artefact(
    fits: Sequence[Fit],
    paths: list[Edge],
    record: dict[str, Any],
    objective: Objective,
    options: LiveOptions,
) -> Circuit:
    occupied = [fit.support[:, None, :].expand(fit.prototypes.shape) > 0 for fit in fits]
    qvalues = zip(fits, occupied, strict=True)
    significant = sum(int(((fit.edge_qvalues <= 0.05) & some).sum()) for fit, some in qvalues)
    return Circuit(
        provenance=fits[0].provenance.child(
            {**record, **deciding(options)},
            **{f"fit_{fit.layer}": fit.identity for fit in fits},
        ),
        fit_file="",
        top_k=record["top_k"],
        rank=record["rank"],
        destination=fits[0].destination,
        max_qvalue=record["max_qvalue"],
        paths=paths,
        tested=sum(int(table.sum()) for table in occupied),
        significant=significant if all(fit.testable for fit in fits) else None,
        layers=[[fit.layer, fit.next_layer] for fit in fits],
        objective=objective.record(),
        num_test_images=min(fit.num_test_images for fit in fits),
        heldout=all(fit.heldout for fit in fits),
    ).identify()
