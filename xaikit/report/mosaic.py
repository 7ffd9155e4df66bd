"""Small maps of the patch grid, side by side in one picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes

EDGE_COLOUR, EDGE_BORDER = "#111111", "white"


def outline(axes: Axes, cells: Iterable[tuple[float, float]], widen: float = 0.0) -> None:
    """Outline (row, column) cells of a picture, `widen` columns wider than they are."""
    # Slow to import, and `plain_figures` has to be first.
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    boxes = [Rectangle((j - 0.5 - widen / 2, k - 0.5), 1 + widen, 1) for k, j in cells]
    lines = PatchCollection(boxes, facecolor="none", edgecolor=EDGE_COLOUR, linewidth=0.9)
    # Dark lines are lost on the ends of a diverging map, light ones in its middle.
    lines.set_path_effects([withStroke(linewidth=2.4, foreground=EDGE_BORDER)])
    axes.add_collection(lines, autolim=False)


@dataclass(frozen=True)
class Mosaic:
    """Small maps in one image, a blank border between them; sizes in inches."""

    grid: tuple[int, int]
    across: int
    down: int
    gap: tuple[int, int]
    width: float
    height: float

    @classmethod
    def of(cls, maps: int, grid: tuple[int, int]) -> Mosaic:
        across = min(maps, int(np.clip(np.ceil(np.sqrt(4 * maps)), 6, 16)))
        down = -(-maps // across)
        patch = min(10.65 / (across * grid[1] * 1.12), 1.7 / grid[0])
        gap = (max(1, round(0.24 / patch)), max(1, round(0.12 * grid[1])))
        width = across * (grid[1] + gap[1]) * patch
        return cls(grid, across, down, gap, width, down * (grid[0] + gap[0]) * patch)

    def corner(self, place: int) -> tuple[int, int]:
        """Row and column of a map's first patch."""
        down, across = divmod(place, self.across)
        pitch = (self.grid[0] + self.gap[0], self.grid[1] + self.gap[1])
        return down * pitch[0] + self.gap[0], across * pitch[1]

    def draw(
        self,
        axes: Axes,
        patches: Float[np.ndarray, "K P"],
        labels: Sequence[str],
        style: dict[str, Any],
        cells: Sequence[tuple[int, int]],
    ) -> None:
        """Draw the maps; `cells` are (map, patch) pairs to outline."""
        rows, columns = self.grid
        pitch = (rows + self.gap[0], columns + self.gap[1])
        picture = np.full((self.down * pitch[0], self.across * pitch[1]), np.nan)
        for place, values in enumerate(patches):
            top, left = self.corner(place)
            picture[top : top + rows, left : left + columns] = values.reshape(rows, columns)
            label = labels[place] if self.across <= 12 else labels[place].split(" ")[0]
            axes.text(left - 0.5, top - 0.9, label, fontsize=7, va="bottom")
        axes.imshow(picture, aspect="auto", **style)
        axes.set_axis_off()
        spots = []
        for place, patch in cells:
            top, left = self.corner(place)
            row, column = divmod(patch, columns)
            spots.append((top + row, left + column))
        outline(axes, spots)
