"""What torchrun, which starts several processes, tells each of them; torch is not loaded for it."""

from __future__ import annotations

import os
from datetime import timedelta

from xaikit.errors import UsageError

_LAUNCHER = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> tuple[int, int]:
    """Rank and number of processes, from the launcher's environment; (0, 1) without it.

    Raises
    ------
    UsageError
        A scheduler set ``RANK`` and ``WORLD_SIZE``, but nothing says where the processes meet.
    """
    rank, size = (os.environ.get(name, "").strip() for name in ("RANK", "WORLD_SIZE"))
    lacking = [name for name in _LAUNCHER if not os.environ.get(name, "").strip()]
    try:
        found = int(rank or 0), int(size or 1)
    except ValueError:
        found = (-1, -1)
    if found == (0, 1):
        return found
    if lacking or not 0 <= found[0] < found[1]:
        shown = " and ".join(
            f"{name}={os.environ[name]}" for name in ("RANK", "WORLD_SIZE") if name in os.environ
        )
        why = f"without {lacking[0]}" if lacking else "but do not belong together"
        raise UsageError(
            f"{shown} {'are' if ' and ' in shown else 'is'} set {why}: start several processes "
            "with torchrun, or unset RANK and WORLD_SIZE to run one"
        )
    return found


def rank_of() -> int:
    """This process's rank, as far as the environment says; never an error."""
    rank = os.environ.get("RANK", "").strip()
    return int(rank) if rank.isdecimal() else 0


def reports_error() -> bool:
    """Whether this process is the one to print an error: the first that has one.

    Asked through the launcher's store, which outlives the processes.
    """
    try:
        rank, size = launched()
    except UsageError:
        # The processes cannot ask each other, and each is as wrong as the next.
        return True
    if size == 1:
        return True
    try:
        # There are several processes, so torch is loaded; one process need not wait for it.
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=5),
        )
        name = f"xaikit-error-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        return bool(store.add(name, 1) == 1)
    except Exception:
        return rank == 0
