"""`circuit`: the strongest edges of a fit, and pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xaikit.artifacts.results import Circuit, Edge
from xaikit.artifacts.tensors import Fit
from xaikit.errors import UsageError
from xaikit.statistics.sinks import destination_kinds, destination_names

if TYPE_CHECKING:
    from torch import Tensor


def circuit(
    fit: Fit,
    *,
    top_k: int = 50,
    rank: str = "weight",
    scores: Tensor | None = None,
    max_qvalue: float | None = None,
    heatmap_dir: str | Path | None = None,
    fit_file: str = "",
) -> Circuit:
    """Rank a fit's edges and keep the first `top_k`.

    Parameters
    ----------
    fit : Fit
    rank : str
        A ranking's key (see `xaikit.rankings`).
    scores : Float[Tensor, "cluster head destination"], optional
        Scores of a ranking that needs the model; by default computed from the fit.
    max_qvalue : float, optional
        Keep only edges with a q-value of at most this, on the discovery images: the held-out
        ones are for testing what was kept.
    heatmap_dir : path, optional
        Where to draw one ``head_<h>.png`` a head.

    Raises
    ------
    UsageError
        Where a number is out of range, or the ranking needs the model.
    """
    from xaikit.rankings import score_from_fit
    from xaikit.statistics.multiple import discovery_qvalues

    if top_k < 1:
        raise UsageError(f"--top-k {top_k} is not a positive number")
    if max_qvalue is not None and not 0.0 <= max_qvalue <= 1.0:
        raise UsageError(f"--max-qvalue {max_qvalue} is not in [0, 1]")
    if scores is None:
        scores = score_from_fit(rank, fit)
    order = ranked_edges(fit, scores)
    if max_qvalue is not None:
        order = order[discovery_qvalues(fit).reshape(-1)[order] <= max_qvalue]
    paths = edges_at(fit, scores, order[:top_k])
    occupied = fit.support[:, None, :].expand(fit.prototypes.shape) > 0
    pictures: list[str] = []
    if heatmap_dir is not None:
        pictures = [str(path) for path in draw(fit, paths, Path(heatmap_dir))]
    return Circuit(
        provenance=fit.provenance.child(
            {"top_k": top_k, "rank": rank, "max_qvalue": max_qvalue}, fit=fit.identity
        ),
        fit_file=fit_file,
        top_k=top_k,
        rank=rank,
        destination=fit.destination,
        max_qvalue=max_qvalue,
        paths=paths,
        tested=int(occupied.sum()),
        significant=int(((fit.edge_qvalues <= 0.05) & occupied).sum()),
        heatmaps=pictures,
    ).identify()


def ranked_edges(fit: Fit, scores: Tensor) -> Tensor:
    """Flat indices of edges with support, best score first, ties in index order."""
    import torch

    support = fit.support[:, None, :].expand(fit.prototypes.shape).reshape(-1)
    order = torch.sort(scores.double().reshape(-1), descending=True, stable=True).indices
    return order[support[order] > 0]


def edges_at(fit: Fit, scores: Tensor, flat: Tensor) -> list[Edge]:
    """Records of the edges at flat indices of ``[cluster, head, destination]``."""
    kinds, names = destination_kinds(fit), destination_names(fit)
    clusters = fit.destination == "cluster"
    support = fit.support
    _, heads, width = fit.prototypes.shape
    records = []
    for index in flat.tolist():
        k, rest = divmod(index, heads * width)
        h, j = divmod(rest, width)
        records.append(
            Edge(
                cluster_id=k,
                head=h,
                dst_token=None if clusters else j,
                dst_cluster=j if clusters else None,
                weight=float(fit.prototypes[k, h, j]),
                support=int(support[k, j]),
                score=float(scores[k, h, j]),
                contrast=float(fit.contrast[k, h, j]),
                zscore=float(fit.edge_zscores[k, h, j]),
                pvalue=float(fit.edge_pvalues[k, h, j]),
                qvalue=float(fit.edge_qvalues[k, h, j]),
                dst_kind=kinds[j],
                dst_name=names[j],
            )
        )
    return records


def draw(fit: Fit, paths: list[Edge], folder: Path) -> list[Path]:
    """Draw a heatmap a head: contrast, with the circuit's edges outlined."""
    from xaikit.report.heatmaps import draw_heatmaps

    p = fit.provenance
    return draw_heatmaps(
        fit.contrast.numpy(),
        fit.counts.numpy(),
        prefix_tokens=fit.prefix_tokens,
        grid=(fit.grid[0], fit.grid[1]) if fit.grid else None,
        quantity="contrast",
        title=f"{p.origin.model}, gates of layer {p.layer} → attention of layer {p.next_layer}",
        out_dir=folder,
        edges=[(path.cluster_id, path.head, path.destination) for path in paths],
        destination=fit.destination,
    )
