"""The curve behind ``--num-clusters auto``: what clusters add by their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xaikit.artifacts.studies import ClusterSweep

WIDTH, HEIGHT, MARGIN = 320.0, 120.0, 14.0


def sweep_figure(found: ClusterSweep | None) -> dict[str, Any] | None:
    """Places of the curve's points and error bars, and the figures themselves, for the page."""
    if found is None:
        return None
    rows = found.rows
    ends = [row["r2_added"] + sign * row["r2_added_se"] for row in rows for sign in (-1, 1)]
    low, high = min(ends), max(ends)
    step = (WIDTH - 2 * MARGIN) / max(len(rows) - 1, 1)

    def down(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN), 2)

    points = [
        {
            "clusters": row["num_clusters"],
            "added": f"{row['r2_added']:+.4f}",
            "error": f"{row['r2_added_se']:.4f}",
            "chosen": row["num_clusters"] == found.num_clusters,
            "x": round(MARGIN + at * step, 2),
            "y": down(row["r2_added"]),
            "top": down(row["r2_added"] + row["r2_added_se"]),
            "bottom": down(row["r2_added"] - row["r2_added_se"]),
        }
        for at, row in enumerate(rows)
    ]
    return {
        "points": points,
        "line": " ".join(f"{point['x']},{point['y']}" for point in points),
        "width": WIDTH,
        "height": HEIGHT,
        "caption": (
            f"R² that {found.method} clusters add to position by their number, edges to "
            f"{found.destination}s, mean and standard error over {found.folds} folds of "
            f"{found.num_images:,} discovery images: {found.num_clusters} is the smallest number "
            "within one standard error of the best."
        ),
    }
