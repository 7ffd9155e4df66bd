"""Which candidates a process reads, and the room that their names take."""

from __future__ import annotations

from types import SimpleNamespace as Some
from typing import Any

import pytest

from xaikit.artifacts.candidates import Candidates


def room(names: list[str], images: int, groups: list[str] | None = None) -> int:
    """Of so many of some images."""
    source: Any = Some(ids=names, groups=groups)
    found = Candidates(names=source, content=lambda _: "", own=range(len(names)))
    return found.header_bytes(images)


def test_room_is_kept_for_the_longest_names_that_may_come() -> None:
    assert room(["a", "a" * 50, "a"], 1) == room(["a" * 50], 1) > room(["a"], 1)
    assert room(["a", "a" * 50, "a" * 20], 2) == room(["a" * 20, "a" * 50], 2)
    groups = ["b", "b" * 30]
    assert room(["a", "a"], 1, groups) == room(["a"], 1, groups[1:]) > room(["a"], 1, groups[:1])


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_processes_read_every_candidate_once(processes: int) -> None:
    none: Any = None
    every = Candidates(names=none, content=none, own=range(3, 5), total=10)
    parts = [every.part(at, processes) for at in range(processes)]
    assert [image for part in parts for image in part] == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
