"""`fit`: prototype logits of each cluster, what they explain, and every edge's null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from xaikit.artifacts.options import deciding, option, resolve
from xaikit.artifacts.records import file_of, require_parent
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.errors import OptionError
from xaikit.passes.feed import StoredFeed
from xaikit.passes.memory import budget, require_draws
from xaikit.passes.pair_sums import SumOptions
from xaikit.passes.plan import make_plan, parts_of
from xaikit.passes.sums import PairStatistics, SumsPass, position_means
from xaikit.passes.visitors import GivenLabels
from xaikit.progress import Progress, silent
from xaikit.statistics.controls import fit_controls
from xaikit.statistics.multiple import benjamini_hochberg
from xaikit.statistics.sums import LogitSums, contrast
from xaikit.statistics.tails import METHODS, NOT_TESTABLE

if TYPE_CHECKING:
    from xaikit.artifacts.trace_info import TraceInfo
    from xaikit.statistics.parts import Part

REVISION = 6
"""Raised where the same clusters and options give another fit than before."""
DESTINATIONS = ("token", "cluster")
NULLS = ("auto", "moments", "sampled")
SMALL_SAMPLE = 20
"""Below so many test images, ``auto`` samples permutations instead of modelling tails."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What is fitted, and how edges are tested.

    Attributes
    ----------
    destination : str
        ``token`` (edges end at a position) or ``cluster`` (at a cluster's tokens).
    num_permutations : int
        Permutations to sample, for ``causal`` and for the ``sampled`` null.
    null : str
        p-values of edges: ``moments`` (exact mean and variance, and tails that are calibrated
        edge by edge, see `xaikit.statistics.tails`), ``sampled``, or ``auto``, which samples
        below 20 test images.
    null_block : int
        Permute label maps within random blocks of so many images; 0 permutes all of them where
        the moments of all fit (see `xaikit.statistics.edge_sums.exact_moments`), else 32.
    controls : bool
        Also score labels shuffled over images and clusters of positions.
    """

    destination: str = option("token", "What an edge ends at.", choices=DESTINATIONS)
    num_permutations: int = option(200, "Image permutations.", panel="Statistics", least=1)
    null: str = option(
        "auto",
        "p-values of edges; auto samples below 20 test images.",
        panel="Statistics",
        choices=NULLS,
    )
    null_block: int = option(
        0,
        "Permute within random blocks of so many images; 0: over all where that is cheap, else 32.",
        panel="Statistics",
        least=0,
    )
    seed: int = option(0, "Of everything random.", panel="Running", least=0)
    controls: bool = option(True)

    def check(self) -> None:
        """Refuse blocks in which nothing can be permuted."""
        if self.null_block == 1:
            raise OptionError("null_block", self.null_block, "2 or more images, or 0")


def fit(
    trace: Trace,
    features: Features,
    options: FitOptions | None = None,
    *,
    memory: int | None = None,
    progress: Progress = silent,
    **given: Any,
) -> Fit:
    """Fit prototypes on the discovery images and test every edge on the held-out ones.

    Parameters
    ----------
    trace : Trace
    features : Features
        Clusters of the same trace.
    options : FitOptions, optional
    memory : int, optional
        Bytes that may be used beside the trace; by default a share of what there is.
    **given
        Fields of `FitOptions`, in place of or beside the record.

    Raises
    ------
    UsageError
        Where the parts do not belong together or an option is unknown.
    """
    require_parent(features, "trace", trace, child_name="features")
    o = resolve(FitOptions, options, given)
    pair, info = (trace.layer, trace.next_layer), trace.info
    sums = sum_options(o, features.num_clusters)
    require_draws(sums.shape(info.heads, info.tokens), sums.draws, memory)
    discovery = features.discovery or list(range(len(trace)))
    parts = parts_of(info, discovery, features.heldout, features.lost)
    plan = make_plan(parts, o.null_block, o.seed)
    feed = StoredFeed(trace)
    run = SumsPass(
        feed,
        plan,
        sums,
        position_means(feed, plan, [pair], progress),
        {pair: GivenLabels(features.labels, info.candidate_positions())},
        memory=budget(memory),
    )
    run.run(progress)
    rows = part_labels(features)
    ((_, found),) = run.statistics({pair: rows}, progress)
    return assemble(features, info, found, deciding(o))


def sum_options(options: FitOptions, clusters: int) -> SumOptions:
    """What is added up for a fit."""
    return SumOptions(
        clusters=clusters,
        destination=options.destination,
        draws=options.num_permutations,
        null_block=options.null_block,
        seed=options.seed,
        controls=options.controls,
    )


def part_labels(features: Features) -> dict[str, torch.Tensor]:
    """Labels of each part's images ``[image, token]``, in the order of candidates."""
    discovery = features.discovery or list(range(len(features.labels)))
    return {
        name: features.labels[torch.tensor(sorted(images), dtype=torch.int64)]
        for name, images in (("discovery", discovery), ("heldout", features.heldout))
    }


def assemble(
    features: Features, info: TraceInfo, found: PairStatistics, options: dict[str, Any]
) -> Fit:
    """Put a fit together from what a pass added up."""
    destination, method = options["destination"], options["null"]
    train, test = found.train, found.test
    if method == "auto":
        method = "moments" if test.sums.images >= SMALL_SAMPLE else "sampled"
    own = train.scores(train)
    scores: dict[str, Any] = dict(own.scores())
    return Fit(
        provenance=features.provenance.child(options, features=features.identity),
        trace_file=features.trace_file,
        features_file=file_of(features),
        destination=destination,
        **_prototypes(train.sums, destination),
        energy=train.null.energy.float(),
        **_edge_tests(test, method, given=features.testable),
        discovery_zscores=train.null.zscores.float(),
        discovery_pvalues=train.null.pvalues("moments"),
        null_ablation=test.null.null_ablation,
        null_injection=test.null.null_injection,
        test_ablation=test.null.ablation,
        test_injection=test.null.injection,
        position_mean=train.sums.position_mean.float(),
        token_norms=found.token_norms,
        mse=own.mse(),
        **scores,
        heldout_r2=train.scores(test).scores() if test is not train else {},
        controls=fit_controls(train, test, info.prefix_tokens, info.grid, options["seed"]),
        tokens=info.tokens,
        prefix_kinds=list(info.prefix_kinds),
        kinds=list(features.kinds),
        grid=list(info.grid),
        num_images=train.sums.images,
        num_test_images=test.sums.images,
        num_null_images=test.null.draw_images,
        null=method,
        null_block=found.null_block,
        null_methods=list(METHODS),
        heldout=test is not train,
        method=features.method,
    ).identify()


def _edge_tests(test: Part, method: str, *, given: bool) -> dict[str, Any]:
    """z-scores, p- and q-values of every edge; NaN where the images are not fit for a test."""
    if not given:
        nothing = torch.full_like(test.null.zscores, torch.nan)
        return {
            "edge_zscores": nothing.float(),
            "edge_pvalues": nothing.double(),
            "edge_qvalues": nothing.double().clone(),
            "edge_null_methods": torch.full_like(nothing, NOT_TESTABLE, dtype=torch.uint8),
        }
    pvalues = test.null.pvalues(method)
    return {
        "edge_zscores": test.null.zscores.float(),
        "edge_pvalues": pvalues,
        "edge_qvalues": benjamini_hochberg(pvalues),
        "edge_null_methods": test.null.methods(method),
    }


def _prototypes(sums: LogitSums, destination: str) -> dict[str, Any]:
    counts = sums.counts
    if destination == "token":
        prototypes, pair_counts = sums.prototypes, None
        found = contrast(prototypes, counts, sums.row_mean)
    else:
        prototypes, pair_counts = sums.pair_prototypes, sums.pair_counts.long()
        columns = sums.pair_counts.sum(0)
        mean = sums.pair_sums.sum(0) / columns.clamp(min=1.0)
        found = contrast(prototypes, counts, mean, sums.pair_counts)
    return {
        "prototypes": prototypes.float(),
        "counts": counts.long(),
        "pair_counts": pair_counts,
        "contrast": found.float(),
    }
