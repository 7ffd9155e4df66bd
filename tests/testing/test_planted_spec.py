"""Arguments of a planted tower: what is drawn, named and refused."""

from __future__ import annotations

import pytest
import torch

from xaikit.errors import UsageError
from xaikit.testing import ContentEdge, TokenEdge, planted_tower


def test_truth_follows_the_clusters() -> None:
    tower = planted_tower(
        token_edges=[(0, 0, 5)], content_edges=[(0, 1, 2), (2, 1, 2)], groups=3, heads=2
    )
    groups = torch.tensor([[3, 0, 0, 1, 2, 0, 2]])
    labels = torch.tensor([[4, 1, 5, 0, 3, 1, 1]])
    truth = tower.truth(labels, groups, num_clusters=6)
    assert truth.cluster_groups.tolist() == [1, 0, -1, 2, 3, 0]
    assert truth.purity == pytest.approx(6 / 7)
    assert truth.edge_token.nonzero().tolist() == [[1, 0, 5], [5, 0, 5]]
    assert truth.edge_content.nonzero().tolist() == [[1, 1, 3], [3, 1, 3], [5, 1, 3]]
    assert truth.echo_token.any(2).nonzero().tolist() == [[1, 1], [3, 1], [5, 1]]
    assert truth.echo_content.any(2).nonzero().tolist() == [[1, 0], [5, 0]]


def test_drawn_edges_are_apart_and_the_same_seed_gives_the_same_tower() -> None:
    tower, again = (planted_tower(token_edges=6, content_edges=6, seed=2) for _ in range(2))
    assert all(isinstance(edge, TokenEdge) and edge.head < 2 for edge in tower.token_edges)
    assert all(isinstance(edge, ContentEdge) and edge.head >= 2 for edge in tower.content_edges)
    assert len({(edge.group, edge.head) for edge in tower.spec.edges}) == 12
    state = again.module.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in tower.module.state_dict().items())
    long, short = tower.images(6, seed=1), again.images(4, seed=1)
    assert torch.equal(long.pixels[:4], short.pixels)
    assert torch.equal(long.groups[:4], short.groups)
    assert not torch.equal(long.pixels, tower.images(6, seed=2).pixels)


def test_group_frequencies_vary_with_position_and_image_as_asked() -> None:
    def spread(**options: float) -> tuple[float, float]:
        groups = planted_tower(**options).images(200).groups[:, 1:]
        share = torch.nn.functional.one_hot(groups, 6).double()
        return float(share.mean(0).std(0).mean()), float(share.mean(1).std(0).mean())

    flat, by_position = spread(layout=0, share=0), spread(layout=1, share=0)
    by_image = spread(layout=0, share=1)
    assert by_position[0] > 2 * flat[0]
    assert by_image[1] > 1.4 * flat[1]
    assert by_image[0] < 1.5 * flat[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"token_edges": [(6, 0, 0)]}, r"token_edges has \(6, 0, 0\)"),
        ({"content_edges": [(0, 0, 6)]}, r"content_edges has \(0, 0, 6\)"),
        ({"token_edges": [(0, 0, 1), (0, 0, 1)]}, "twice"),
        ({"token_edges": 13}, "token_edges is 13: 12 at most"),
        ({"layer": 3}, "layer is 3"),
        ({"patch": 6}, "patch is 6"),
        ({"sink": 26}, "sink is 26"),
        ({"groups": 16, "patch": 4}, "groups is 16"),
        ({"chains": 1}, "layer is 1: between 0 and layers − 4 = 0 with chains"),
        ({"chains": [((0, 2, 3), (4, 1, 5))], "layers": 6}, "the second edge ends at group 5"),
        ({"chains": [((0, 2, 3), (4, 9, 0))], "layers": 6}, "no such group or head"),
        ({"chains": 99, "layers": 6}, "chains is 99"),
    ],
)
def test_impossible_towers_are_refused(options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        planted_tower(**options)
