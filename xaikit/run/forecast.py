"""What a run will need, before it starts: memory, disk, passes over the images, rough time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from xaikit.passes.columns import TEST_IMAGES
from xaikit.passes.memory import budget, draws_bytes, sums_bytes
from xaikit.rankings import ranking
from xaikit.rankings.live import SIGNED
from xaikit.run.live import quick_options
from xaikit.run.stream import memory_groups, plan_of, sum_options
from xaikit.run.subject import Subject

if TYPE_CHECKING:
    from xaikit.passes.feed import LayerPair

_BACKWARD = 2.0
"""A backward pass costs about two forward passes."""
_SUMS = 0.5
"""What labels, sums and the null add to a forward pass of all layers, about."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass over some images.

    Attributes
    ----------
    what : str
    images : int
    forward, backward : float
        Passes through the model an image, those that edit included.
    """

    what: str
    images: int
    forward: float
    backward: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run will need.

    Attributes
    ----------
    images : int
        Candidates, usable or not.
    pairs : int
        Pairs of layers.
    memory, memory_budget, disk : int
        Bytes beside the model, bytes that may be used, and bytes of traces and labels.
    passes : tuple of Pass
    seconds : float
        Of all passes, from one measured batch; stages that run no model come on top.
    """

    images: int
    pairs: int
    memory: int
    memory_budget: int
    disk: int
    passes: tuple[Pass, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For scripts."""
        return {
            **asdict(self),
            "forward_passes": sum(each.images * each.forward for each in self.passes),
            "backward_passes": sum(each.images * each.backward for each in self.passes),
        }


def forecast(subject: Subject, pairs: Sequence[LayerPair]) -> Forecast:
    """What `run_all` with these options will need; nothing but a batch of noise is run.

    Raises
    ------
    UsageError
        Where an option is out of range, or one pair of layers does not fit into memory.
    """
    o, info = subject.options, subject.tower.info
    plan, images = plan_of(subject), subject.candidates
    shape = sum_options(subject).shape(info.heads, info.tokens)
    parts = sum(bool(each) for each in plan.parts.values())
    each = sums_bytes(shape, parts, o.null_block, True)
    groups = memory_groups(subject, pairs) if o.stream else [[pair] for pair in pairs[:1]]
    draws = draws_bytes(shape, o.num_permutations)
    together = max(len(group) for group in groups)
    labels = len(pairs) * images * info.tokens * (1 if o.cluster().clusters <= 256 else 2)
    room = budget(o.memory)
    passes = _recorded(subject, len(pairs), len(groups), plan.parts) + _live(subject, len(pairs))
    return Forecast(
        images=images,
        pairs=len(pairs),
        memory=together * each + _draws_at_once(draws, together, room // 4) + labels,
        memory_budget=room,
        disk=disk_bytes(subject, len(pairs)),
        passes=tuple(passes),
        seconds=_image_seconds(subject) * sum(_cost(each) for each in passes),
    )


def _draws_at_once(each: int, pairs: int, room: int) -> int:
    """Bytes of the draws that are in memory together: of all pairs, or of those that fit."""
    return pairs * each if pairs * each <= room else each * max(1, room // each)


def _cost(one: Pass) -> float:
    return one.images * (one.forward + _BACKWARD * one.backward)


def _recorded(subject: Subject, pairs: int, groups: int, parts: dict[str, list[int]]) -> list[Pass]:
    o, discovery = subject.options, len(parts["discovery"])
    guided = o.cluster().method == "guided"
    if not o.stream:
        found = [Pass(what="trace", images=subject.candidates, forward=1.0)]
    else:
        learning = 2.0 if guided else 1.0
        found = [
            Pass(what="learn clusters and means", images=discovery * groups, forward=learning),
            Pass(
                what="labels, sums and null",
                images=subject.candidates * groups,
                forward=1.0 + _SUMS,
            ),
        ]
        tested = len(parts["heldout"]) or discovery
        found.append(
            Pass(what="test the circuit's edges", images=min(TEST_IMAGES, tested), forward=1.0)
        )
    if guided:
        found.append(
            Pass(what="moves of the embedding", images=discovery, forward=1.0, backward=0.5)
        )
    return found


def _live(subject: Subject, pairs: int) -> list[Pass]:
    o = subject.options
    found: list[Pass] = []
    discovery = min(256, subject.candidates)
    if ranking(str(o.rank)).needs_model:
        found.append(
            Pass(what=f"rank by {o.rank}", images=discovery * pairs, forward=1.0, backward=1.0)
        )
    live = o.live()
    if live.directed and o.rank != SIGNED:
        steps = float(live.ig_steps)
        sides = "which edges push for and against"
        found.append(Pass(what=sides, images=discovery * pairs, forward=steps, backward=steps))
    if o.intervene:
        quick = quick_options(o)
        edits = len(quick.rankings) * len(quick.shares) + quick.draws * len(quick.band_shares)
        edits += quick.edges * (1 + quick.edge_draws // 2) + 2 * o.cluster().clusters
        tested = min(quick.max_images or subject.candidates, subject.candidates)
        # An edit runs the blocks from the edited layer on: half of the model on the average.
        found.append(Pass(what="live edits", images=tested * pairs, forward=0.5 * edits))
    return found


def disk_bytes(subject: Subject, pairs: int) -> int:
    """Bytes that traces and labels of so many pairs of layers take."""
    info, images = subject.tower.info, subject.candidates
    labels = 8 * images * info.tokens
    if subject.options.stream:
        return pairs * labels
    blank = subject.infos([(0, 1)])[0, 1]
    return pairs * (labels + images * subject.options.storage.image_bytes(blank))


def _image_seconds(subject: Subject) -> float:
    """Seconds of a plain forward pass, of one image in a batch."""
    tower, size = subject.tower, min(subject.options.batch_size, max(1, subject.candidates))
    pixels = torch.zeros(size, 3, *tower.info.image_size)
    tower.outputs(pixels[:1])
    start = time.perf_counter()
    with torch.no_grad():
        float(tower.outputs(pixels).embedding.sum())
    return (time.perf_counter() - start) / size
