"""Which images a process records, and where their shards end."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import pytest

from xaikit.artifacts.storage import Storage
from xaikit.distributed import World
from xaikit.stages import trace as module
from xaikit.stages.trace import SHARED_SHARD, trace_layers


def recorded(monkeypatch: pytest.MonkeyPatch, world: World, **options: Any) -> tuple[range, int]:
    """Candidates that a process of a run over ten images reads, and images of its shards."""
    found: dict[str, Any] = {}

    class Recording:
        def __init__(self, **given: Any) -> None:
            found.update(given)

        def write_files(self, infos: Any, outs: Any, storage: Storage, *_: Any) -> None:
            found["storage"] = storage

    monkeypatch.setattr(module, "Recording", Recording)
    monkeypatch.setattr(module, "candidate_count", lambda *_: 10)
    monkeypatch.setattr(module, "blank_info", lambda *_: None)
    tower: Any = Some(info=None, blocks=None, outputs=None, preprocess=None)
    source: Any = Some(ids=[], load=None, __len__=lambda: 10)
    trace_layers(
        tower, source, [(1, 2)], outs=[], contents=Some(fingerprint=None), world=world, **options
    )
    assert found["shared"] == (world.size > 1)
    return found["candidates"].own, found["storage"].shard_images


@pytest.mark.parametrize(
    ("size", "batch", "written"), [(0, 4, 0), (5, 4, 8), (8, 4, 8), (3, 32, 32), (9, 1, 9)]
)
def test_shards_end_where_batches_end(
    monkeypatch: pytest.MonkeyPatch, size: int, batch: int, written: int
) -> None:
    storage = Storage(shard_images=size)
    found = recorded(monkeypatch, World(), storage=storage, batch_size=batch)
    assert found == (range(10), written)


def test_processes_share_the_images_out_in_runs_and_write_shards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [recorded(monkeypatch, World(rank, 3), batch_size=32) for rank in range(3)]
    assert found == [(own, SHARED_SHARD) for own in (range(3), range(3, 6), range(6, 10))]
    storage = Storage(shard_images=64)
    assert recorded(monkeypatch, World(1, 2), storage=storage) == (range(5, 10), 64)
