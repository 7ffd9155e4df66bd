"""Several processes started by ``torchrun``; one process is the case in which nothing happens.

Stages are written against `World` alone, so that they have one code path. torch is imported only
where there really are several processes.

Our own, and no accelerate or Lightning: what is shared are sums and a few tensors, once a pass, not
gradients; what those libraries leave open is all there is here, that every process ends with one
clear line, printed once, when another one is gone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from xaikit.errors import UsageError, XaikitError

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT_MINUTES = 30
"""How long a process waits for the others; the first one alone learns the clusters meanwhile."""

_LAUNCHER = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_LOST = (
    "another process of this run ended or stopped answering; "
    "the same command goes on from what is complete"
)


class PeerLost(XaikitError):  # noqa: N818 (it names what happened)
    """Another process of the run ended, so this one cannot go on."""


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


def local_device(device: str) -> str:
    """Name the device of this process.

    Parameters
    ----------
    device : str
        ``auto`` is CUDA, then MPS, then the CPU; ``cuda`` and ``auto`` give each process of a
        machine the GPU of its local rank.
    """
    if device == "auto":
        import torch

        found = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else found
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return device


class World:
    """The processes of one run.

    Attributes
    ----------
    rank, size : int
        This process, from 0, and how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @property
    def leads(self) -> bool:
        """Whether this process is the one that prints and writes results."""
        return self.rank == 0

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in place."""
        if self.size == 1:
            return
        import torch.distributed as dist

        with _talking():
            for tensor in tensors:
                dist.all_reduce(tensor)

    def broadcast(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Give every process rank 0's tensors, on the CPU; the others pass None."""
        if self.size == 1:
            assert tensors is not None
            return dict(tensors)
        import torch
        import torch.distributed as dist

        data = _pack(tensors) if tensors is not None else torch.empty(0, dtype=torch.uint8)
        with _talking():
            length = torch.tensor([len(data)])
            dist.broadcast(length, 0)
            if not self.leads:
                data = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(data, 0)
        return _unpack(data)

    def gather(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Every process's tensors in order of rank, on the CPU; empty but on rank 0."""
        if self.size == 1:
            return [dict(tensors)]
        import torch
        import torch.distributed as dist

        data = _pack(tensors)
        with _talking():
            if not self.leads:
                dist.send(torch.tensor([len(data)]), 0)
                dist.send(data, 0)
                return []
            found = [dict(tensors)]
            for rank in range(1, self.size):
                length = torch.empty(1, dtype=torch.int64)
                dist.recv(length, rank)
                data = torch.empty(int(length), dtype=torch.uint8)
                dist.recv(data, rank)
                found.append(_unpack(data))
        return found

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size == 1:
            return
        import torch

        self.all_reduce([torch.zeros(1)])


def _pack(tensors: Mapping[str, Tensor]) -> Tensor:
    import torch
    from safetensors.torch import save

    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _unpack(data: Tensor) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(data.numpy().tobytes())


@contextmanager
def _talking() -> Iterator[None]:
    """Say in one line that a process is gone, whatever the backend calls it."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(_LOST) from error


@contextmanager
def joined(device: str = "cpu") -> Iterator[World]:
    """Join the other processes of the run, if torchrun started several.

    Parameters
    ----------
    device : str
        Sums on a GPU travel by NCCL, everything else by gloo.
    """
    rank, size = launched()
    if size == 1:
        yield World()
        return
    import torch
    import torch.distributed as dist

    device = local_device(device)
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(device)
    with _talking():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timedelta(minutes=TIMEOUT_MINUTES)
        )
    before = signal.signal(signal.SIGTERM, _ended)
    try:
        yield World(rank, size)
    except BaseException:
        # torchrun is about to end this process; what went wrong is still to be said.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    signal.signal(signal.SIGTERM, before)
    # Not after an error: closing would wait for processes that wait for this one.
    dist.destroy_process_group()


def _ended(*_: Any) -> None:
    """torchrun ends the other processes when one of them ends."""
    raise PeerLost(_LOST)


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
        import torch.distributed as dist

        store = dist.TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=5),
        )
        name = f"xaikit-error-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        return bool(store.add(name, 1) == 1)
    except Exception:
        return rank == 0
