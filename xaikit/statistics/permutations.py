"""Whole-image permutations: the exchangeable unit is the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def image_permutations(images: int, draws: int, seed: int) -> Int[np.ndarray, "draw image"]:
    """Draw permutations of the images; draw `d` is the same whatever `draws` is.

    ``c^pi(b, i) = c(pi(b), i)``: image `b` is given the whole label map of image ``pi(b)``.
    """
    generator = np.random.default_rng([seed, images])
    if draws == 0:
        return np.empty((0, images), dtype=np.int64)
    return np.stack([generator.permutation(images) for _ in range(draws)])


def sum_by_label(
    labels: Int[Tensor, "image token"], values: Tensor, clusters: int
) -> Float[Tensor, "image cluster *rest"]:
    """Sum each image's values ``[token, *rest]`` over the tokens of each cluster.

    A token's value is added to one cluster's sum, where a product with indicators would multiply
    it for all of them: on a CPU the time does not grow with `clusters`. Accelerators take the
    product, whose order of additions is fixed.
    """
    images, rest = len(labels), values.shape[2:]
    if values.device.type != "cpu":
        maps = one_hot(labels, clusters).to(values.dtype).transpose(1, 2)
        return (maps @ values.flatten(2)).view(images, clusters, *rest)
    found = values.new_zeros(images, clusters, *rest)
    numbers = labels + clusters * torch.arange(images).unsqueeze(1)
    found.flatten(0, 1).index_add_(0, numbers.flatten(), values.flatten(0, 1))
    return found


def pair_sums(
    labels: Int[Tensor, "image token"], values: Float[Tensor, "image token token"], clusters: int
) -> Float[Tensor, "image cluster cluster"]:
    """Sum each image's values over the entries of each pair of clusters."""
    rows = sum_by_label(labels, values, clusters).transpose(1, 2)
    return sum_by_label(labels, rows, clusters).transpose(1, 2)


def entry_sums(
    labels: Int[Tensor, "image token"],
    values: Float[Tensor, "image token token"],
    clusters: int,
    pairs: bool,
) -> Float[Tensor, "cluster width"]:
    """Sum of values over the entries of each edge, of all images, in the values' precision."""
    found = pair_sums if pairs else sum_by_label
    return found(labels, values, clusters).sum(0)


def one_hot(labels: Int[Tensor, "*rows"], clusters: int) -> Float[Tensor, "*rows cluster"]:
    """Cluster indicators, float32."""
    wanted = torch.arange(clusters, device=labels.device)
    return (labels.unsqueeze(-1) == wanted).float()
