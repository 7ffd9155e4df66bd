"""How much each token's attention matters: moves of the unit embedding, asked of the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from xaikit.images.scenes import SceneSource
from xaikit.rankings.gradients import HALF_WAY, directions_for, image_directions
from xaikit.run import measure as module
from xaikit.run.measure import _moves, model_measure
from xaikit.run.options import Options
from xaikit.run.subject import Subject
from xaikit.statistics.prefix import prefix_clusters
from xaikit.towers import BlockCache, capture, load_tower, noise

LAYER = 3


@pytest.fixture(scope="module")
def tower() -> Any:
    return load_tower("xaikit-demo", None)


def test_an_entry_s_move_is_its_slope_half_way_to_the_mean_times_the_way(tower: Any) -> None:
    pixels = noise(tower, 2)
    found: list[torch.Tensor] = []
    capture(tower, pixels, attention={LAYER: lambda call: found.append(call.logits().clone())})
    logits, generator = found[0], torch.Generator().manual_seed(1)
    goal = logits.mean(0) + torch.randn(logits.shape[1:], generator=generator)
    cache = BlockCache(tower, LAYER).fill(pixels)
    moves = list(_moves(cache, goal, [5, 9], 2))
    assert len(moves) == 2
    point = logits + HALF_WAY * (goal - logits)
    with torch.no_grad():
        dim = cache.outputs().embedding.shape[1]
        directions = image_directions([5, 9], 2, dim, 0)

        def along(edited: torch.Tensor) -> torch.Tensor:
            unit = F.normalize(
                cache.outputs(lambda _call, _logits: edited).embedding.double(), dim=1
            )
            return (unit * directions).sum(2)

        for image in range(2):
            # The entries that move most, against differences on both sides of the point.
            place = moves[0][image].abs().flatten().argmax()
            step = torch.zeros_like(point[image]).flatten()
            step[place] = 0.05
            shift = torch.zeros_like(point)
            shift[image] = step.view_as(point[image])
            slope = (along(point + shift) - along(point - shift))[:, image] / 0.1
            way = (goal - logits[image]).flatten()[place].double()
            for direction in range(2):
                own = moves[direction][image].flatten()[place].double()
                torch.testing.assert_close(own, slope[direction] * way, rtol=0.03, atol=1e-4)


def test_directions_are_of_each_image_itself_and_as_many_as_its_layer_affords(
    tower: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def moves(cache: Any, goal: torch.Tensor, images: Any, count: int) -> Any:
        given.append((cache.layer, goal, list(images), count))
        entries = torch.zeros(len(images), *goal.shape)
        entries += torch.tensor(images)[:, None, None, None]
        yield from [entries] * count

    monkeypatch.setattr(module, "_moves", moves)
    source = SceneSource(40, 0)
    subject = Subject(tower=tower, source=source, options=Options(batch_size=3).settled())
    said: list[tuple[str, int, int]] = []
    monkeypatch.setattr(subject, "progress", lambda *each: said.append(each))
    shared = prefix_clusters(4, tower.info.prefix_kinds)
    layers, tokens = tower.info.layers, tower.info.tokens
    means = {
        (0, 1): torch.full((tower.info.heads, tokens, tokens), 0.5, dtype=torch.float64),
        (1, 3): torch.full((tower.info.heads, tokens, tokens), 0.25, dtype=torch.float64),
    }
    images = [2, 3, *range(10, 30)]
    found = model_measure(subject)(means, images, shared)
    assert list(found) == [(0, 1), (1, 3)]
    assert said == [("images measured", 16, 22), ("images measured", 22, 22)] * 2
    for pair, mean in means.items():
        calls = [each for each in given if each[0] == pair[1]]
        # Batches of a size of their own, whatever the run's is.
        assert [len(each[2]) for each in calls] == [16, 6]
        assert [image for each in calls for image in each[2]] == images
        assert {each[3] for each in calls} == {int(directions_for((layers - pair[1]) / layers))}
        assert torch.equal(calls[0][1], mean.float())
        assert sorted(found[pair]) == images
        assert found[pair][2].shape[0] == tokens - shared.tokens
        assert float(found[pair][29].max()) > float(found[pair][2].max())
