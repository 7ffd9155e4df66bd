"""Labels that have nothing to do with the logits: rare clusters, heavy tails, position effects."""

from __future__ import annotations

import numpy as np
import torch
from conftest import make_features, make_trace

from xaikit.stages.fit import fit

HEADS, TOKENS, CLUSTERS = 4, 17, 64
LEVELS = (0.05, 0.01, 1e-3, 1e-4)
KINDS = ("key", "entry", "image")


def null_data(seed, images, kind="key", heads=HEADS, tokens=TOKENS, clusters=CLUSTERS):
    """Logits ``[B, H, N, N]`` and Zipf-distributed labels ``[B, N]``.

    `kind` says where Student's t with 3 degrees of freedom comes in: in every ``key`` of an
    image, in every ``entry``, or, for ``image``, in a table of each head as well as in keys.
    """
    rng = np.random.default_rng([seed, images])
    share = 1 / np.arange(1, clusters + 1)
    labels = rng.choice(clusters, size=(images, tokens), p=share / share.sum())
    square = (images, heads, tokens, tokens)
    logits = rng.normal(size=(1, *square[1:])) + 0.5 * rng.normal(size=square)
    if kind == "entry":
        logits = logits + rng.standard_t(3, size=square)
    else:
        logits = logits + rng.standard_t(3, size=(images, heads, 1, tokens))
    if kind == "image":
        table = rng.normal(size=(1, heads, tokens, tokens))
        logits = logits + rng.standard_t(3, size=(images, heads, 1, 1)) * table
    return logits.astype(np.float32), labels


def fitted(logits, labels, destination="token", clusters=CLUSTERS, **options):
    """The fit of given logits and labels, tested on the images it was made from."""
    trace = make_trace(torch.from_numpy(logits))
    features = make_features(trace, torch.from_numpy(labels), clusters)
    options = {"num_permutations": 1, "controls": False, **options}
    return fit(trace, features, destination=destination, **options)


def plant(logits, labels, edges, strength):
    """Add to the logits of edges ``(cluster, head, token)``."""
    changed = logits.copy()
    for cluster, head, token in edges:
        changed[:, head, :, token] += strength * (labels == cluster)
    return changed
