"""Which of several processes speaks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch.distributed

from xaikit.launcher import rank_of, reports_error

GIVEN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make this process one of several, by what their launcher tells it."""
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)

    def made(rank: str, size: str = "3", restarts: str = "0", **more: str) -> None:
        values = (rank, size, "127.0.0.1", "29555", restarts)
        for name, value in {**dict(zip(GIVEN, values, strict=True)), **more}.items():
            monkeypatch.setenv(name, value)

    return made


@pytest.mark.parametrize(("rank", "found"), [("2", 2), ("", 0), (" 1 ", 1), ("one", 0), ("-1", 0)])
def test_a_rank_is_a_number_or_the_first(process: Any, rank: str, found: int) -> None:
    assert rank_of() == 0
    process(rank)
    assert rank_of() == found


def test_of_several_processes_the_first_with_an_error_reports_it(
    process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: dict[str, int] = {}

    class Store:
        """The launcher's, which all processes share."""

        def __init__(self, address: str, port: int, *, is_master: bool, timeout: timedelta) -> None:
            assert (address, port, is_master) == ("127.0.0.1", 29555, False)
            assert timeout < timedelta(seconds=60)

        def add(self, name: str, amount: int) -> int:
            counts[name] = counts.get(name, 0) + amount
            return counts[name]

    monkeypatch.setattr(torch.distributed, "TCPStore", Store)
    process("1")
    assert reports_error()
    process("0")
    assert not reports_error()
    # Another start of the same processes has errors of its own.
    process("2", restarts="1")
    assert reports_error()


def test_where_the_processes_cannot_be_asked_one_reports(
    process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reports_error()
    process("0", "1")
    assert reports_error()
    # Each is as wrong as the next, and a launcher's log may be that of any.
    for rank in ("0", "1"):
        process(rank, MASTER_ADDR="")
        assert reports_error()

    def gone(*_: Any, **__: Any) -> None:
        raise RuntimeError("the store is gone")

    monkeypatch.setattr(torch.distributed, "TCPStore", gone)
    for rank, found in (("0", True), ("1", False)):
        process(rank)
        assert reports_error() is found
