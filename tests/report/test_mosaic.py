"""Where maps lie beside one another, and where their edges are outlined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xaikit.report import mosaic
from xaikit.report.mosaic import Mosaic
from xaikit.report.plain_figures import blank

GRID = (2, 3)


def test_maps_fill_one_row_after_the_other() -> None:
    found = Mosaic.of(10, GRID)
    across, (down, right) = found.across, found.gap
    assert 1 < across < 10
    (top, left), second, below = (found.corner(place) for place in (0, 1, across))
    assert second == (top, left + GRID[1] + right)
    assert below == (top + GRID[0] + down, left)


def test_an_edge_is_outlined_at_its_patch_of_its_map(monkeypatch: pytest.MonkeyPatch) -> None:
    spots: list[Any] = []
    monkeypatch.setattr(mosaic, "outline", lambda _axes, cells: spots.extend(cells))
    found, axes = Mosaic.of(8, GRID), blank(3, 2).subplots()
    maps = np.arange(48.0).reshape(8, 6)
    found.draw(axes, maps, [f"map {at}" for at in range(8)], {}, [(7, 5), (0, 3)])
    picture = axes.images[0].get_array()
    assert [picture[spot] for spot in spots] == [maps[7, 5], maps[0, 3]]
