"""What an intervention measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from xaikit.errors import UsageError
from xaikit.interventions.curves import BAND_SHARES, MODES, SHARES, check_shares
from xaikit.rankings import ranking

DEFAULT_RANKINGS = ("reach", "attribution", "energy", "weight")


@dataclass(frozen=True, kw_only=True)
class InterveneOptions:
    """Options of an intervention.

    Attributes
    ----------
    rankings : sequence of str
        Whose curves to measure; the first one names the edges to test where there is no circuit.
    ablation : str
        ``mean``, ``resample``, ``zero`` or ``knockout`` (see `xaikit.interventions.ablate`).
    modes : sequence of str
        ``remove``, ``keep`` or both.
    shares, band_shares : sequence of float
        Shares of the logit entries at which curves, and random sets, are measured.
    draws : int
        Random edge sets behind each band.
    max_images : int, optional
        At most so many images to test on, spread evenly.
    score_images : int, optional
        At most so many discovery images to score rankings on that run the model.
    edges, edge_draws : int
        Single edges to test, and random edges that each is compared with.
    nodes : bool
        Ablate and inject whole clusters as well.
    ig_steps, batch_size, seed : int
    workers : int, optional
    """

    rankings: Sequence[str] = DEFAULT_RANKINGS
    ablation: str = "mean"
    modes: Sequence[str] = MODES
    shares: Sequence[float] = SHARES
    band_shares: Sequence[float] = BAND_SHARES
    draws: int = 20
    max_images: int | None = 128
    score_images: int | None = 256
    edges: int = 20
    edge_draws: int = 39
    nodes: bool = True
    ig_steps: int = 5
    batch_size: int = 32
    seed: int = 0
    workers: int | None = None

    def checked(self) -> InterveneOptions:
        """The options with shares in order.

        Raises
        ------
        UsageError
            Naming the option that is out of range.
        """
        for key in self.rankings:
            ranking(key)
        if not self.rankings:
            raise UsageError("--rank: expected at least one ranking")
        for mode in self.modes:
            if mode not in MODES:
                raise UsageError(f"--mode {mode}: expected remove, keep or both")
        least: list[tuple[str, int | None, int]] = [
            ("--draws", self.draws, 0),
            ("--edges", self.edges, 0),
            ("--edge-draws", self.edge_draws, 1),
            ("--max-images", self.max_images, 1),
            ("--score-images", self.score_images, 1),
        ]
        for name, value, low in least:
            if value is not None and value < low:
                raise UsageError(f"{name} {value}: expected {low} or more")
        shares = check_shares(self.shares)
        bands = check_shares(self.band_shares)[:-1]
        return replace(self, shares=shares, band_shares=bands)

    def record(self) -> dict[str, Any]:
        """The options as the artefact keeps them."""
        found = asdict(self)
        for name in ("batch_size", "workers"):
            found.pop(name)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in found.items()}


def spread_evenly(images: Sequence[int], most: int | None) -> list[int]:
    """At most `most` of the images, evenly spaced, so that sorted folders are all seen."""
    ordered = sorted(images)
    if most is None or len(ordered) <= most:
        return ordered
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
    return [ordered[place] for place in places]
