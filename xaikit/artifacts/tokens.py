"""Words for the tokens of an image: what a prefix token is, and where a patch is."""

from __future__ import annotations

from collections.abc import Sequence

CLASS_TOKEN = "class token"
DISTILLATION_TOKEN = "distillation token"
REGISTER = "register"


def register(number: int) -> str:
    """Name of a register, counted from 1."""
    return f"{REGISTER} {number}"


def token_name(token: int, prefix_kinds: Sequence[str], grid: Sequence[int]) -> str:
    """Say in words which token an index is: ``class token``, ``register 2``, ``patch (3, 4)``.

    Parameters
    ----------
    token : int
        Index into the tokens of an image.
    prefix_kinds : sequence of str
        What each token before the patches is (`TowerInfo.prefix_kinds`).
    grid : sequence of int
        Rows and columns of patches; anything but two numbers leaves the place out.
    """
    if token < len(prefix_kinds):
        return prefix_kinds[token]
    if len(grid) != 2:
        return f"token {token}"
    row, column = divmod(token - len(prefix_kinds), grid[1])
    return f"patch ({row}, {column})"


def prefix_groups(prefix_kinds: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Group prefix tokens by kind, in order of appearance; registers are one kind.

    Returns
    -------
    list of (kind, token indices)
        Such as ``[("class token", [0]), ("register", [1, 2, 3, 4])]``.
    """
    groups: dict[str, list[int]] = {}
    for token, name in enumerate(prefix_kinds):
        groups.setdefault(name.rstrip("0123456789").rstrip(), []).append(token)
    return list(groups.items())


def short_names(prefix_kinds: Sequence[str]) -> list[str]:
    """Labels for the axes of pictures: ``CLS``, ``DIST``, ``R1``, ``R2``, …; ``REG`` of all."""
    short = {CLASS_TOKEN: "CLS", DISTILLATION_TOKEN: "DIST", REGISTER: "REG"}
    return [short.get(name) or f"{name[0].upper()}{name.split()[-1]}" for name in prefix_kinds]


def cluster_kind(cluster: int, num_clusters: int, kinds: Sequence[str]) -> str:
    """What a cluster of prefix tokens alone is, such as ``class token``; empty for the others.

    Parameters
    ----------
    kinds : sequence of str
        What the last clusters are (`Features.kinds`).
    """
    place = cluster - (num_clusters - len(kinds))
    return kinds[place] if place >= 0 else ""


def cluster_names(num_clusters: int, kinds: Sequence[str]) -> list[str]:
    """Each cluster in words, such as ``cluster 3``, or ``class token`` where it is nothing else."""
    found = (cluster_kind(k, num_clusters, kinds) for k in range(num_clusters))
    return [kind or f"cluster {k}" for k, kind in enumerate(found)]
