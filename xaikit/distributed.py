"""Several processes started by ``torchrun``; one process is the case in which nothing happens.

Stages are written against `World` alone, so that they have one code path.

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

import torch
import torch.distributed as dist
from safetensors.torch import load, save

from xaikit.errors import XaikitError
from xaikit.launcher import launched

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT_MINUTES = 30
"""How long a process waits for the others; the first one alone learns the clusters meanwhile."""

_LOST = (
    "another process of this run ended or stopped answering; "
    "the same command goes on from what is complete"
)


class PeerLost(XaikitError):  # noqa: N818 (it names what happened)
    """Another process of the run ended, so this one cannot go on."""


def local_device(device: str) -> str:
    """Name the device of this process.

    Parameters
    ----------
    device : str
        ``auto`` is CUDA, then MPS, then the CPU; ``cuda`` and ``auto`` give each process of a
        machine the GPU of its local rank.
    """
    if device == "auto":
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
        with _talking():
            for tensor in tensors:
                dist.all_reduce(tensor)

    def broadcast(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Give every process rank 0's tensors, on the CPU; the others pass None."""
        if self.size == 1:
            assert tensors is not None
            return dict(tensors)
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
        self.all_reduce([torch.zeros(1)])


def _pack(tensors: Mapping[str, Tensor]) -> Tensor:
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _unpack(data: Tensor) -> dict[str, Tensor]:
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
