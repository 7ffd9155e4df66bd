"""`--bootstrap`: which edges of a circuit other images would have chosen too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.options import option, resolve
from xaikit.artifacts.records import require_parent
from xaikit.artifacts.results import Circuit
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.errors import UsageError
from xaikit.passes.pair_sums import SumOptions
from xaikit.progress import Progress, silent
from xaikit.statistics.edge_sums import NULL_BLOCK, EdgeSums, exact_moments
from xaikit.statistics.multiple import discovery_qvalues
from xaikit.statistics.parts import finished
from xaikit.statistics.sampling import random_blocks
from xaikit.statistics.stability import (
    WEIGHTED,
    bootstrap_weights,
    circuit_agreement,
    top_edges,
    weighted_sums,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BootstrapOptions:
    """How often the circuit is chosen again.

    Attributes
    ----------
    resamples : int
        Draws of as many images as there are, with replacement.
    """

    resamples: int = option(
        50, "Resamples of the images.", flag="--bootstrap", panel="Statistics", least=1
    )
    seed: int = option(0, "Of everything random.", panel="Running", least=0)


def bootstrap(
    trace: Trace,
    features: Features,
    fit: Fit,
    circuit: Circuit,
    options: BootstrapOptions | None = None,
    *,
    progress: Progress = silent,
    **given: Any,
) -> Circuit:
    """Choose the circuit again on resampled discovery images, clusters as they are.

    ``weight``, ``contrast`` and ``energy`` take one pass over the trace (``energy`` keeps the
    position mean of all images); ``zscore`` takes one for each resample.

    Parameters
    ----------
    circuit : Circuit
        Of `fit`; every resample is ranked, filtered and cut in the same way.
    options : BootstrapOptions, optional
    **given
        Fields of `BootstrapOptions`, in place of or beside the record.

    Returns
    -------
    Circuit
        The same edges with `survival`, and `stability`: ``jaccard`` (mean over resamples of the
        agreement with this circuit), ``jaccard_sd``, ``jaccard_pairwise`` (among resamples),
        ``jaccard_chance`` (two random circuits), ``survival`` (mean over edges).

    Raises
    ------
    UsageError
        Where the parts do not belong together, or the ranking needs the model.
    """
    require_parent(fit, "features", features, child_name="fit")
    require_parent(circuit, "fit", fit, child_name="circuit")
    o = resolve(BootstrapOptions, options, given)
    images = np.sort(features.discovery or range(len(trace)))
    weights = bootstrap_weights(len(images), o.resamples, o.seed)
    if circuit.rank in WEIGHTED:
        found = _weighted(trace, features, fit, circuit.rank, images, weights)
    elif circuit.rank == "zscore":
        found = _refitted(trace, features, fit, images, weights, progress)
    else:
        raise UsageError(
            f"bootstrap: `rank={circuit.rank}` would run the model for every resample; expected "
            f"one of {', '.join(WEIGHTED)}, zscore"
        )
    allowed = torch.ones(fit.prototypes.shape, dtype=torch.bool)
    if circuit.max_qvalue is not None:
        allowed = discovery_qvalues(fit) <= circuit.max_qvalue
    circuits = [top_edges(scores, there & allowed, circuit.top_k) for scores, there in found]
    possible = allowed & (fit.support[:, None, :] > 0)
    agreement = circuit_agreement(_edges(circuit, fit), circuits, int(possible.sum()))
    survival = agreement.survival.tolist()
    summary = {key: value for key, value in asdict(agreement).items() if key != "survival"}
    chosen = {"bootstrap": o.resamples, "bootstrap_seed": o.seed}
    return replace(
        circuit,
        provenance=replace(circuit.provenance, options={**circuit.provenance.options, **chosen}),
        paths=[
            replace(edge, survival=share)
            for edge, share in zip(circuit.paths, survival, strict=True)
        ],
        stability={
            "resamples": o.resamples,
            "seed": o.seed,
            **summary,
            "survival": float(np.mean(survival)) if survival else 1.0,
        },
    ).identify()


def _edges(circuit: Circuit, fit: Fit) -> Tensor:
    """Flat indices of a circuit's edges."""
    return torch.tensor(fit.space.places(circuit.paths), dtype=torch.int64)


def _weighted(
    trace: Trace,
    features: Features,
    fit: Fit,
    rank: str,
    images: np.ndarray,
    weights: Tensor,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores and support of each resample, from one pass."""
    sums = weighted_sums(
        ((features.labels[at], logits) for at, logits in trace.iter_logits(images)),
        weights,
        fit.position_mean,
        features.num_clusters,
        fit.destination,
    )
    for at in range(len(weights)):
        yield sums.scores(rank, at), sums.support(at)


def _refitted(
    trace: Trace,
    features: Features,
    fit: Fit,
    images: np.ndarray,
    weights: Tensor,
    progress: Progress,
) -> Iterator[tuple[Tensor, Tensor]]:
    """z-scores and support of each resample, fitted anew."""
    sums = SumOptions(
        clusters=features.num_clusters,
        destination=fit.destination,
        draws=0,
        null_block=int(fit.provenance.options.get("null_block", 0)),
        seed=0,
        controls=False,
    )
    shape = sums.shape(trace.info.heads, trace.info.tokens)
    for done, counts in enumerate(weights.long().numpy()):
        drawn = np.repeat(images, counts)
        found = EdgeSums(
            shape,
            fit.position_mean.double(),
            exact=exact_moments(shape, sums.null_block),
            tails=False,
        )
        for number, chosen in enumerate(
            random_blocks(len(drawn), sums.null_block or NULL_BLOCK, 0)
        ):
            rows = drawn[chosen]
            logits = trace.logits_of(rows, slice(None)).transpose(0, 1)
            found.add(features.labels[rows], logits.__getitem__, number)
        null = finished(found, features.labels[drawn], None).null
        progress("resamples", done + 1, len(weights))
        yield null.zscores.abs(), null.occupied
