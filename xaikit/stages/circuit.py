"""`circuit`: the strongest edges of a fit, and pictures of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.edges import Edge
from xaikit.artifacts.options import deciding, option, resolve
from xaikit.artifacts.records import file_of
from xaikit.artifacts.results import Circuit
from xaikit.artifacts.tensors import Fit
from xaikit.rankings import KEYS, score_from_fit
from xaikit.rankings.selection import edges_at, ranked_edges
from xaikit.report.heatmaps import draw_contrasts
from xaikit.statistics.multiple import discovery_qvalues

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.interventions import Objective

REVISION = 4
"""Raised where the same fit and options give another circuit than before."""


@dataclass(frozen=True, kw_only=True)
class CircuitOptions:
    """Which edges make a circuit.

    Attributes
    ----------
    top_k : int
        Edges to keep.
    rank : str
        A ranking's key (see `xaikit.rankings`).
    max_qvalue : float, optional
        Keep only edges with a q-value of at most this, on the discovery images: the held-out
        ones are for testing what was kept.
    """

    top_k: int = option(50, "Edges to keep.", least=1)
    rank: str = option(
        "weight",
        "What edges are ordered by; output, attribution, kept, reach and rows run the model.",
        choices=KEYS,
    )
    max_qvalue: float | None = option(
        None,
        "Keep only edges with at most this q-value (on the discovery images).",
        least=0.0,
        most=1.0,
    )


def circuit(
    fit: Fit,
    options: CircuitOptions | None = None,
    *,
    scores: Tensor | None = None,
    effects: Tensor | None = None,
    objective: Objective | None = None,
    heatmap_dir: str | Path | None = None,
    **given: Any,
) -> Circuit:
    """Rank a fit's edges and keep the first `top_k`.

    Parameters
    ----------
    fit : Fit
    options : CircuitOptions, optional
    scores : Float[Tensor, "cluster head destination"], optional
        Scores of a ranking that needs the model; by default computed from the fit.
    effects : Float[Tensor, "cluster head destination"], optional
        Signed effects of an objective, which say on whose side an edge is.
    objective : Objective, optional
        What scores or effects are of, where that is not the embedding.
    heatmap_dir : path, optional
        Where to draw one ``head_<h>.png`` a head.
    **given
        Fields of `CircuitOptions`, in place of or beside the record.

    Raises
    ------
    UsageError
        Where a number is out of range, or the ranking needs the model.
    """
    o = resolve(CircuitOptions, options, given)
    if scores is None:
        scores = score_from_fit(o.rank, fit)
    order = ranked_edges(fit, scores)
    if o.max_qvalue is not None:
        order = order[discovery_qvalues(fit).reshape(-1)[order] <= o.max_qvalue]
    paths = edges_at(fit, scores, order[: o.top_k], effects)
    occupied = fit.support[:, None, :].expand(fit.prototypes.shape) > 0
    pictures: list[str] = []
    if heatmap_dir is not None:
        pictures = [str(path) for path in draw(fit, paths, Path(heatmap_dir))]
    return Circuit(
        provenance=fit.provenance.child(deciding(o), fit=fit.identity),
        fit_file=file_of(fit),
        top_k=o.top_k,
        rank=o.rank,
        destination=fit.destination,
        max_qvalue=o.max_qvalue,
        paths=paths,
        tested=int(occupied.sum()),
        significant=int(((fit.edge_qvalues <= 0.05) & occupied).sum()) if fit.testable else None,
        heatmaps=pictures,
        objective=objective.record() if objective is not None else {},
        num_test_images=fit.num_test_images,
        heldout=fit.heldout,
    ).identify()


def draw(fit: Fit, paths: list[Edge], folder: Path) -> list[Path]:
    """Draw a heatmap a head: contrast, with the circuit's edges outlined."""
    p = fit.provenance
    title = f"{p.origin.model}, gates of layer {p.layer} → attention of layer {p.next_layer}"
    return draw_contrasts(fit, paths, folder, title)
