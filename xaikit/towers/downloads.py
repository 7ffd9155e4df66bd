"""Downloads of pretrained weights: no messages of the hub, and no waiting without a network."""

from __future__ import annotations

import contextlib
import logging
import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from huggingface_hub import constants


@contextlib.contextmanager
def downloads() -> Iterator[None]:
    """Let the hub read its cache alone where it cannot be reached, and leave its warnings out.

    It would try again for half a minute, with a line for each time.
    """
    logger = logging.getLogger("huggingface_hub")
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    logger.setLevel(logging.ERROR)
    constants.HF_HUB_OFFLINE = offline or not reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        logger.setLevel(level)
        constants.HF_HUB_OFFLINE = offline


def reachable(address: str) -> bool:
    """Whether the host of an address has a number; with a proxy, which finds it out itself, yes."""
    if urllib.request.getproxies():
        return True
    try:
        socket.getaddrinfo(urlsplit(address).hostname, 443)
    except OSError:
        return False
    return True
