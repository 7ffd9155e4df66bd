"""What passes keep of the images that they are shown, whoever was shown them and in what order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from xaikit.distributed import World
from xaikit.passes.feed import SeenBlock
from xaikit.passes.plan import PlannedBlock
from xaikit.passes.visitors import GateSample, LabelImages

GATES = (torch.rand(6, 3, 11, generator=torch.Generator().manual_seed(0)) < 0.5).to(torch.uint8)
ROWS = {image: np.array([image % 3]) for image in range(5)}


def block(*images: int) -> SeenBlock:
    found = np.array(images)
    return SeenBlock(PlannedBlock("discovery", 0, found), found)


class Two(World):
    """The first of two processes, which is given what the other one kept."""

    def __init__(self, kept: Any) -> None:
        super().__init__(0, 2)
        self.kept = kept

    def gather(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        other: list[dict[str, Tensor]] = []

        class Other(World):
            def gather(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
                other.append(dict(tensors))
                return []

        self.kept.reduce(Other(1, 2))
        return [dict(tensors), *other]


def shown(visitor: Any, *blocks: SeenBlock) -> Any:
    for each in blocks:
        visitor.gates(each, GATES[torch.from_numpy(each.images)])
    return visitor


def test_a_sample_is_in_the_order_of_images_whoever_read_them_and_when() -> None:
    at_once = shown(GateSample(ROWS, 11), block(0, 1, 2, 3, 4, 5))
    assert np.array_equal(at_once.sample, np.stack([GATES[i, i % 3].numpy() for i in range(5)]))
    assert at_once.tokens.tolist() == [0, 1, 2, 0, 1]
    one, other = shown(GateSample(ROWS, 11), block(3, 4), block(0)), GateSample(ROWS, 11)
    one.reduce(Two(shown(other, block(5), block(1, 2))))
    again = GateSample(ROWS, 11)
    again.load(one.state())
    for found in (one, again):
        assert np.array_equal(found.packed(), at_once.packed())
        assert found.tokens.tolist() == at_once.tokens.tolist()


def test_labels_of_every_process_are_of_the_images_that_it_was_shown() -> None:
    def label(gates: Tensor) -> Tensor:
        return gates.sum(-1).long()

    one = shown(LabelImages(label, 12, 7, 3), block(4, 5))
    one.reduce(Two(shown(LabelImages(label, 12, 7, 3), block(0, 2))))
    assert one.used.tolist() == [0, 2, 4, 5]
    assert torch.equal(one.labels, label(GATES)[[0, 2, 4, 5]])
    assert torch.equal(one.of(block(2, 4)), label(GATES)[[2, 4]])
