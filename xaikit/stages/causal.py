"""`causal`: what ablating or injecting a whole cluster's prototype changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.options import deciding, option, resolve
from xaikit.artifacts.records import file_of, require_parent
from xaikit.artifacts.results import Causal, ClusterEffect
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.tokens import cluster_names
from xaikit.errors import OptionError
from xaikit.statistics.effects import ablation_effects, injection_effects
from xaikit.statistics.multiple import benjamini_hochberg, number, permutation_pvalues

if TYPE_CHECKING:
    from torch import Tensor

REVISION = 5
"""Raised where the same fit and options give other effects than before."""
SUMS_ROUNDING = 1e-6
"""Relative rounding error of permuted prototypes, whose sums are in float32."""


@dataclass(frozen=True, kw_only=True)
class CausalOptions:
    """Which clusters are reported, and how they are tested.

    Attributes
    ----------
    max_clusters : int
        Clusters to report, largest ablation effect first.
    num_permutations : int
        How many of the fit's sampled permutations to use, drawn with `seed`.
    """

    max_clusters: int = option(16, "Clusters to report.", least=1)
    num_permutations: int = option(200, "Image permutations.", panel="Statistics", least=1)
    seed: int = option(0, "Of everything random.", panel="Running", least=0)


def causal(
    features: Features,
    fit: Fit,
    options: CausalOptions | None = None,
    **given: Any,
) -> Causal:
    """Effects of whole clusters, in closed form from the fit.

    Parameters
    ----------
    features, fit : Features, Fit
    options : CausalOptions, optional
    **given
        Fields of `CausalOptions`, in place of or beside the record.

    Raises
    ------
    UsageError
        Where the parts do not belong together, or the fit holds fewer permutations.
    """
    require_parent(fit, "features", features, child_name="fit")
    o = resolve(CausalOptions, options, given)
    stored = len(fit.null_ablation)
    chosen = torch.from_numpy(choose_draws(stored, o.num_permutations, o.seed))
    ablation = ablation_effects(fit.prototypes, fit.pair_counts)
    injection = injection_effects(fit.prototypes, fit.counts, fit.pair_counts)
    present = torch.nonzero(fit.counts > 0).flatten()
    tests = {name: _test(fit, name, chosen, present) for name in ("ablation", "injection")}
    order = torch.sort(ablation[present], descending=True, stable=True).indices[: o.max_clusters]
    names = cluster_names(fit.space.clusters, fit.kinds)
    effects = [
        ClusterEffect(
            cluster_id=int(present[at]),
            support=int(fit.counts[present[at]]),
            ablation_effect=float(ablation[present[at]]),
            injection_effect=float(injection[present[at]]),
            ablation_pvalue=number(tests["ablation"].pvalues[at]),
            injection_pvalue=number(tests["injection"].pvalues[at]),
            ablation_qvalue=number(tests["ablation"].qvalues[at]),
            injection_qvalue=number(tests["injection"].qvalues[at]),
            ablation_testable=bool(tests["ablation"].testable[at]),
            injection_testable=bool(tests["injection"].testable[at]),
            src_name=names[present[at]],
        )
        for at in order.tolist()
    ]
    return Causal(
        provenance=fit.provenance.child(deciding(o), fit=fit.identity),
        features_file=file_of(features),
        fit_file=file_of(fit),
        max_clusters=o.max_clusters,
        num_permutations=o.num_permutations,
        seed=o.seed,
        effects=effects,
        num_test_images=fit.num_null_images,
        heldout=fit.heldout,
    ).identify()


@dataclass(frozen=True)
class _Test:
    """p- and q-values of the clusters that are present, and which of them a permutation changes."""

    pvalues: Tensor
    qvalues: Tensor
    testable: Tensor


def _test(fit: Fit, name: str, chosen: Tensor, present: Tensor) -> _Test:
    observed, null = getattr(fit, f"test_{name}"), getattr(fit, f"null_{name}")[chosen]
    observed, null = observed[present].double(), null[:, present].double()
    moved = (null - observed).abs() > SUMS_ROUNDING * observed.abs()
    pvalues = permutation_pvalues(observed, null, SUMS_ROUNDING)
    if not fit.testable:
        pvalues = torch.full_like(pvalues, torch.nan)
    return _Test(pvalues, benjamini_hochberg(pvalues), moved.any(0))


def choose_draws(stored: int, wanted: int, seed: int) -> np.ndarray:
    """Pick `wanted` of the fit's `stored` permutations; a single image has none, and p = 1."""
    if stored == 0:
        return np.empty(0, dtype=np.int64)
    if wanted > stored:
        raise OptionError(
            "num_permutations",
            wanted,
            f"at most the {stored} that the fit holds; "
            f"run `xaikit fit --num-permutations {wanted}` first",
        )
    return np.sort(np.random.default_rng([seed, 3]).choice(stored, wanted, replace=False))
