"""An edited layer: the clusters of the images that are run, and the number each row is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from xaikit.interventions.sites import Site


def site(seed: int = 0) -> Site:
    generator = torch.Generator().manual_seed(3)
    features: Any = SimpleNamespace(
        labels=torch.randint(3, (6, 5), generator=generator), num_clusters=4
    )
    fit: Any = SimpleNamespace(next_layer=2, destination="token", prototypes=torch.zeros(4, 2, 5))
    return Site(features, fit, [4, 1, 5], seed)


def test_a_site_has_the_clusters_of_the_images_that_are_run_in_their_order() -> None:
    found = site()
    assert torch.equal(found.labels, found.features.labels[[4, 1, 5]])


def test_the_rows_of_each_cluster_have_the_middles_of_equal_parts_in_an_order_of_the_seed() -> None:
    """So that a part of an edge holds that part of its rows, and another seed's are others."""
    found = site()
    for cluster in range(3):
        own = found.jitter[found.labels == cluster].sort().values
        torch.testing.assert_close(own, (torch.arange(len(own)) + 0.5) / len(own))
    assert torch.equal(found.jitter, site().jitter)
    assert not torch.equal(found.jitter, site(1).jitter)
