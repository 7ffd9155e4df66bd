"""`causal`: what ablating or injecting a whole cluster's prototype changes."""

from __future__ import annotations

import numpy as np

from xaikit.artifacts.records import require_parent
from xaikit.artifacts.results import Causal, ClusterEffect
from xaikit.artifacts.tensors import Features, Fit
from xaikit.errors import UsageError

SUMS_ROUNDING = 1e-6
"""Relative rounding error of permuted prototypes, whose sums are in float32."""


def causal(
    features: Features,
    fit: Fit,
    *,
    max_clusters: int = 16,
    num_permutations: int = 200,
    seed: int = 0,
    features_file: str = "",
    fit_file: str = "",
) -> Causal:
    """Effects of whole clusters, in closed form from the fit.

    Parameters
    ----------
    max_clusters : int
        Clusters to report, largest ablation effect first.
    num_permutations : int
        How many of the fit's sampled permutations to use, drawn with `seed`.

    Raises
    ------
    UsageError
        Where the parts do not belong together, or the fit holds fewer permutations.
    """
    import torch

    from xaikit.statistics.effects import ablation_effects, injection_effects
    from xaikit.statistics.multiple import benjamini_hochberg, permutation_pvalues

    require_parent(fit, "features", features, child_name="fit")
    if max_clusters < 1:
        raise UsageError(f"--max-clusters {max_clusters} is not a positive number")
    chosen = torch.from_numpy(choose_draws(len(fit.null_ablation), num_permutations, seed))
    ablation = ablation_effects(fit.prototypes, fit.pair_counts)
    injection = injection_effects(fit.prototypes, fit.counts, fit.pair_counts)
    present = torch.nonzero(fit.counts > 0).flatten()
    pvalues = {}
    for name in ("ablation", "injection"):
        observed, null = getattr(fit, f"test_{name}"), getattr(fit, f"null_{name}")[chosen]
        found = permutation_pvalues(observed[present], null[:, present], SUMS_ROUNDING)
        pvalues[name] = (found, benjamini_hochberg(found))
    order = torch.sort(ablation[present], descending=True, stable=True).indices[:max_clusters]
    effects = [
        ClusterEffect(
            cluster_id=int(present[at]),
            support=int(fit.counts[present[at]]),
            ablation_effect=float(ablation[present[at]]),
            injection_effect=float(injection[present[at]]),
            ablation_pvalue=float(pvalues["ablation"][0][at]),
            injection_pvalue=float(pvalues["injection"][0][at]),
            ablation_qvalue=float(pvalues["ablation"][1][at]),
            injection_qvalue=float(pvalues["injection"][1][at]),
        )
        for at in order.tolist()
    ]
    options = {"max_clusters": max_clusters, "num_permutations": num_permutations, "seed": seed}
    return Causal(
        provenance=fit.provenance.child(options, fit=fit.identity),
        features_file=features_file,
        fit_file=fit_file,
        max_clusters=max_clusters,
        num_permutations=num_permutations,
        seed=seed,
        effects=effects,
    ).identify()


def choose_draws(stored: int, wanted: int, seed: int) -> np.ndarray:
    """Pick `wanted` of the fit's `stored` permutations; a single image has none, and p = 1."""
    if wanted < 1:
        raise UsageError(f"--num-permutations {wanted} is not a positive number")
    if stored == 0:
        return np.empty(0, dtype=np.int64)
    if wanted > stored:
        raise UsageError(
            f"--num-permutations {wanted}: the fit holds {stored}; "
            f"run `xaikit fit --num-permutations {wanted}` first"
        )
    return np.sort(np.random.default_rng([seed, 3]).choice(stored, wanted, replace=False))
