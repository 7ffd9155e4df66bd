"""p-values of every test on planted towers through the ordinary stages, for tests to check."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from planted_run import Pictures
from torch import Tensor

from xaikit.artifacts.preprocess import Preprocess
from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace
from xaikit.images import stratified_split
from xaikit.stages.causal import causal
from xaikit.stages.circuit import circuit
from xaikit.stages.cluster import cluster
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal
from xaikit.stages.trace import trace
from xaikit.statistics.multiple import two_sided_normal
from xaikit.statistics.permutations import one_hot
from xaikit.testing import Planted, PlantedImages, planted_tower
from xaikit.testing.planted_images import MEAN, STD
from xaikit.towers import wrap_tower

LEVELS = (0.05, 0.01)
CONFOUNDED = {"position": 1.0, "image": 1.0, "layout": 1.0, "share": 1.0}
DRAWS = 199
FOIL = "tokens permuted (foil)"


def traced(planted: Planted, images: PlantedImages) -> Trace:
    """Trace a planted tower in memory."""
    side = planted.spec.image_size
    tower = wrap_tower(
        planted.module,
        model="planted",
        preprocess=Preprocess(size=(side, side), mean=MEAN, std=STD),
    )
    return trace(tower, Pictures(images), target_layer=planted.layer, batch_size=64, workers=1)


def true_groups(run: Trace, images: PlantedImages, clusters: int, seed: int) -> Features:
    """Clusters that are the true groups, half of the images held out."""
    discovery, heldout = stratified_split(run.images, None, 0.5, seed)
    return Features(
        provenance=run.provenance.child({"holdout": 0.5}, trace=run.identity),
        recorded=run.info.recorded(),
        num_clusters=clusters,
        labels=images.groups,
        centroids=torch.zeros(clusters, run.info.ffn_width),
        cluster_sizes=torch.bincount(images.groups.flatten(), minlength=clusters),
        cluster_activation_rates=torch.zeros(clusters),
        discovery=discovery,
        heldout=heldout,
    ).identify()


def features_of(
    planted: Planted, run: Trace, images: PlantedImages, seed: int, kmeans: bool
) -> tuple[Features, int]:
    """Clusters, and which of them is that of tokens without content."""
    clusters, blank = planted.spec.groups + 1, planted.spec.blank_group
    if not kmeans:
        return true_groups(run, images, clusters, seed), blank
    found = cluster(run, num_clusters=clusters, sample_tokens=0, seed=seed, holdout=0.5)
    truth = planted.truth(found.labels, images.groups, clusters)
    assert truth.purity > 0.999
    return found, int((truth.cluster_groups == blank).nonzero()[0])


def null_pvalues(
    seed: int,
    *,
    destination: str = "token",
    images: int = 128,
    groups: int = 12,
    edges: int = 12,
    kmeans: bool = False,
    in_use: bool = False,
    **options: float,
) -> dict[str, np.ndarray]:
    """p-values of one tower without edges, by test; of the held-out half of its images.

    Moments are with the normal tail; `in_use` adds those that a fit gives by default.
    """
    settings = CONFOUNDED | {"groups": groups, "grid": 4, "token_edges": 0, "content_edges": 0}
    planted = planted_tower(**settings | options, seed=seed)
    drawn = planted.images(images, seed=seed)
    run = traced(planted, drawn)
    features, blank = features_of(planted, run, drawn, seed, kmeans)
    found = fit(
        run,
        features,
        destination=destination,
        num_permutations=DRAWS,
        null="sampled",
        controls=False,
        seed=seed,
    )
    chosen = circuit(found, top_k=3 * edges, rank="zscore")
    chosen = replace(chosen, paths=[p for p in chosen.paths if p.cluster_id != blank])
    options = {"num_permutations": DRAWS, "seed": seed}
    effects = target_causal(run, features, found, chosen, top_n=edges, **options).effects
    whole = causal(features, found, max_clusters=groups + 1, **options).effects
    whole = [effect for effect in whole if effect.cluster_id != blank]
    keep = found.edge_zscores != 0
    keep[blank] = False
    if destination == "cluster":
        keep[:, :, blank] = False
    foil = {}
    if destination == "token":
        foil = {FOIL: token_permutation(run, features, blank).numpy()}
    tails = {}
    if in_use:
        own = fit(run, features, destination=destination, num_permutations=1, controls=False)
        tails = {"edge, in use": own.edge_pvalues[keep].numpy()}
    return {
        **tails,
        "edge, moments": two_sided_normal(found.edge_zscores[keep]).numpy(),
        "edge, sampled": found.edge_pvalues[keep].numpy(),
        "edge": np.array([effect.edge_pvalue for effect in effects]),
        "alignment": np.array([effect.alignment_pvalue for effect in effects]),
        "ablation": np.array([effect.ablation_pvalue for effect in whole]),
        "injection": np.array([effect.injection_pvalue for effect in whole]),
        **foil,
    }


def token_permutation(run: Trace, features: Features, blank: int) -> Tensor:
    """p-values of the naive null, which permutes the labels of all tokens with content freely.

    Its moments are those of a sample without replacement, as exact as the ones it is compared
    with; token destinations.
    """
    at = torch.tensor(features.heldout)
    labels = features.labels[at].flatten()
    rows = run.attn_logits_l1[at].double().transpose(1, 2).flatten(0, 1)[labels != blank]
    maps = one_hot(labels[labels != blank], features.num_clusters).double()
    counts, total = maps.sum(0)[:, None, None], len(rows)
    excess = torch.einsum("rk,rhj->khj", maps, rows) - counts * rows.mean(0)
    variance = counts * (total - counts) / (total - 1) * rows.var(0, correction=0)
    keep = (counts[:, 0, 0] > 0) & (torch.arange(len(counts)) != blank)
    return two_sided_normal((excess / variance.sqrt())[keep]).flatten()


def rejections(towers: list[np.ndarray], level: float) -> tuple[float, float, int]:
    """Share of p-values at or below a level, its standard error, and the number of tests.

    Tests of one tower share its images: the error is that of towers, each weighing as much as
    it has tests, and at least the binomial error of 1,000 tests.
    """
    counts = np.array([len(each) for each in towers])
    below = np.array([(each <= level).sum() for each in towers])
    rate = below.sum() / counts.sum()
    spread = np.square(below - rate * counts).sum() ** 0.5 / counts.sum()
    return float(rate), float(max(spread, (level * (1 - level) / 1000) ** 0.5)), int(counts.sum())


def is_calibrated(towers: list[np.ndarray], level: float) -> bool:
    """Whether the rate is within two standard errors of the level."""
    rate, error, _ = rejections(towers, level)
    return abs(rate - level) <= 2 * error


def false_share(seed: int, *, destination: str, images: int = 96) -> tuple[float, float]:
    """Share of false edges among those with q <= .05, and share of planted edges among them.

    False are edges whose logits do not depend on the labels at all: in heads without an edge,
    and, towards tokens, in other columns of a head with token edges. What an edge does to the
    rest of its column and head is real (others attend there less than the average).
    """
    planted = planted_tower(
        groups=6,
        grid=4,
        heads=4,
        token_edges=[(0, 0, 5), (1, 0, 9)],
        content_edges=[(2, 1, 3)],
        strength=1.0,
        **CONFOUNDED,
        seed=seed,
    )
    drawn = planted.images(images, seed=seed)
    run = traced(planted, drawn)
    features = true_groups(run, drawn, 7, seed)
    found = fit(run, features, destination=destination, num_permutations=1, controls=False)
    rejected = found.edge_qvalues <= 0.05
    false = torch.zeros_like(rejected)
    false[:6, 2:] = True
    if destination == "token":
        false[:6, 0] = True
        false[:6, 0, [5, 9]] = False
    truth = planted.truth(features.labels, drawn.groups, 7)
    real = truth.edge_token if destination == "token" else truth.edge_content
    share = float((rejected & false).sum()) / max(int(rejected.sum()), 1)
    return share, float(rejected[real].double().mean())
