"""Which images a circuit is chosen on, and which it is tested on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xaikit.errors import UsageError


def stratified_split(
    ids: Sequence[str], groups: Sequence[str] | None, holdout: float, seed: int
) -> tuple[list[int], list[int]]:
    """Split images at random, each group in the same proportion.

    ``round(holdout * len(ids))`` images are held out, but at least one, and at least one is
    left, where there are two or more. Every group's share is rounded down or up; where up is a
    matter of choice, as among groups of one image, chance decides. The outcome depends on the
    ids, not on their order.

    Parameters
    ----------
    ids : sequence of str
        One per image.
    groups : sequence of str, optional
        The group of every image.
    holdout : float
        Share of the images to hold out, at least 0 and below 1; 0 holds out none.
    seed : int

    Returns
    -------
    discovery, heldout : list of int
        Positions in `ids`, ascending.

    Raises
    ------
    UsageError
        `holdout` is out of range.
    """
    if not 0 <= holdout < 1:
        raise UsageError(f"`holdout=` is {holdout}: expected at least 0 and below 1")
    total = len(ids)
    if groups is not None and len(groups) != total:
        raise ValueError(f"{len(groups)} groups for {total} ids")
    if holdout == 0 or total < 2:
        return list(range(total)), []
    wanted = min(max(round(holdout * total), 1), total - 1)
    members: dict[str, list[int]] = {}
    for index in sorted(range(total), key=lambda index: ids[index]):
        members.setdefault("" if groups is None else groups[index], []).append(index)
    rng = np.random.default_rng(seed)
    heldout: set[int] = set()
    counts = _shares([len(members[name]) for name in sorted(members)], wanted, rng)
    for name, count in zip(sorted(members), counts, strict=True):
        heldout.update(rng.permutation(members[name])[:count].tolist())
    return [index for index in range(total) if index not in heldout], sorted(heldout)


def _shares(sizes: list[int], wanted: int, rng: np.random.Generator) -> list[int]:
    """Split `wanted` in proportion to `sizes`: the largest remainders are rounded up."""
    # Whole numbers: a quota of 2.9999999999999996 must not lose to one of 2.95.
    quotas = [divmod(wanted * size, sum(sizes)) for size in sizes]
    shares = [whole for whole, _ in quotas]
    chance = rng.permutation(len(sizes))
    order = sorted(range(len(sizes)), key=lambda group: (-quotas[group][1], chance[group]))
    for group in order[: wanted - sum(shares)]:
        shares[group] += 1
    return shares
