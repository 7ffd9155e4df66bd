"""Which tokens show what a cluster is: the most central ones, and some at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xaikit.report.page.parts import LayerParts

SAMPLED_IMAGES = 256
"""Images that galleries are chosen from."""
SHOWN = 6
SEED = 0

Member = tuple[int, int]
"""(image, token)."""


@dataclass(frozen=True)
class Members:
    """Tokens of one cluster.

    Attributes
    ----------
    central : list of (image, token)
        Nearest to the cluster's centroid first, at most one an image; empty without a trace.
    random : list of (image, token)
        Drawn evenly among the images that hold the cluster.
    """

    central: list[Member]
    random: list[Member]


def sampled_images(images: int) -> list[int]:
    """Evenly spread places of at most `SAMPLED_IMAGES` images."""
    places = np.linspace(0, images - 1, min(images, SAMPLED_IMAGES)).astype(int)
    return [int(place) for place in np.unique(places)]


def members(parts: LayerParts, usable: set[int] | None = None) -> list[Members]:
    """Choose the tokens of every cluster.

    Parameters
    ----------
    parts : LayerParts
    usable : set of int, optional
        Images that can be shown; by default all.
    """
    labels = parts.features.labels.numpy()
    sample = [i for i in sampled_images(len(labels)) if usable is None or i in usable]
    nearest = _nearest(parts, labels, sample)
    rng = np.random.default_rng(SEED)
    found = []
    for cluster in range(parts.features.num_clusters):
        ranked = sorted(nearest.get(cluster, []))[:SHOWN]
        central = [(image, token) for _, image, token in ranked]
        found.append(Members(central, _random(labels, sample, cluster, set(central), rng)))
    return found


def _nearest(
    parts: LayerParts, labels: np.ndarray, sample: list[int]
) -> dict[int, list[tuple[float, int, int]]]:
    """(squared distance, image, token) of each image's most central token of each cluster."""
    found: dict[int, list[tuple[float, int, int]]] = {}
    if parts.trace is None:
        return found
    centroids = parts.features.centroids.float()
    for image in sample:
        gates = parts.trace.gates(image, image + 1)[0].float()
        distance = ((gates - centroids[labels[image]]) ** 2).sum(1).numpy()
        for cluster in np.unique(labels[image]).tolist():
            tokens = np.flatnonzero(labels[image] == cluster)
            token = int(tokens[distance[tokens].argmin()])
            found.setdefault(cluster, []).append((float(distance[token]), image, token))
    return found


def _random(
    labels: np.ndarray,
    sample: list[int],
    cluster: int,
    taken: set[Member],
    rng: np.random.Generator,
) -> list[Member]:
    found: list[Member] = []
    for image in rng.permutation(sample).tolist():
        tokens = np.flatnonzero(labels[image] == cluster).tolist()
        tokens = [token for token in tokens if (image, token) not in taken]
        if tokens:
            found.append((image, int(rng.choice(tokens))))
        if len(found) == SHOWN:
            break
    return found


def places(labels: np.ndarray, clusters: int) -> np.ndarray:
    """Share of the images in which each token is in each cluster ``[K, N]``."""
    return np.stack([(labels == cluster).mean(0) for cluster in range(clusters)])
