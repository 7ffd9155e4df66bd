"""Guided clusters have seen attention: their tests keep their size on held-out images alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_trace

from xaikit.artifacts.trace import QUERIES_KEYS, Trace
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit

IMAGES, HEADS, TOKENS, DIM, FFN = 96, 2, 8, 4, 40


def unrelated(seed: int) -> Trace:
    """Gates and logits that share nothing but position and a few learning images.

    Both depend on position, and images differ as a whole in each: what a test that permutes
    tokens, or one on the learning images, would take for an edge.
    """
    rng = np.random.default_rng([seed, 77])
    odds = rng.normal(size=(1, TOKENS, FFN)) + rng.normal(size=(IMAGES, 1, FFN))
    gates = (rng.normal(size=(IMAGES, TOKENS, FFN)) < odds).astype(np.uint8)
    parts = []
    for _ in QUERIES_KEYS:
        shape = (IMAGES, HEADS, TOKENS, DIM)
        place = rng.normal(size=(1, HEADS, TOKENS, DIM))
        own = 0.5 * rng.normal(size=(IMAGES, HEADS, 1, DIM))
        parts.append(torch.from_numpy(place + own + rng.normal(size=shape)).half())
    query, key = (part.float() for part in parts)
    trace = make_trace(query @ key.transpose(2, 3), torch.from_numpy(gates))
    tensors = {
        "h_l": trace.h_l,
        "ffn_gate_l": trace.ffn_gate_l,
        "attn_logits_l1": trace.attn_logits_l1,
        "residual_norms_l1": torch.ones(IMAGES, TOKENS),
    }
    return Trace.from_tensors(trace.info, tensors | dict(zip(QUERIES_KEYS, parts, strict=True)))


@pytest.mark.slow
@pytest.mark.parametrize("destination", ["token", "cluster"])
def test_size_on_held_out_images_for_logits_independent_of_gates(destination: str) -> None:
    found = []
    for seed in range(60):
        trace = unrelated(seed)
        features = cluster(trace, num_clusters=5, method="guided", holdout=0.5, seed=seed)
        fitted = fit(
            trace,
            features,
            destination=destination,
            num_permutations=1,
            null="moments",
            controls=False,
        )
        tested = ~fitted.untestable & (fitted.support[:, None, :] > 0)
        found.append(fitted.edge_pvalues[tested].numpy())
    sizes = {}
    for level in (0.05, 0.01, 0.001):
        rates = np.array([(values <= level).mean() for values in found])
        # Edges of a data set depend on one another: the data sets are the independent draws.
        error = max(rates.std(ddof=1), np.sqrt(level / len(found[0]))) / np.sqrt(len(rates))
        sizes[level] = (rates.mean(), error)
        assert abs(rates.mean() - level) < 4 * error, sizes
    print(destination, {k: tuple(np.round(v, 5)) for k, v in sizes.items()})
