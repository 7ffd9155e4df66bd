"""Tables of `baselines` and `stability`, for a terminal and for a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xaikit.report.summaries import table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from xaikit.artifacts.studies import Baselines, ClusterSweep, Stability

NAMES = {
    "mean": "mean",
    "position": "position",
    "position + clusters": "position + clusters of gates",
    "position + shuffled clusters": "position + the same clusters, images shuffled",
    "position + position clusters": "position + k-means of positions",
    "clusters": "clusters of gates alone",
    "position clusters": "k-means of positions alone",
    "random weights: position": "random weights: position",
    "random weights: position + clusters": "random weights: position + clusters of gates",
}
"""Predictions in words, in the order of the table."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table; columns named with a leading ``<`` are aligned left."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> RenderableType:
        """For a terminal."""
        return table(self.title, self.columns, self.rows)

    def markdown(self) -> str:
        """For a page."""
        heads = [column.removeprefix("<") for column in self.columns]
        rules = ["---" if column.startswith("<") else "---:" for column in self.columns]
        lines = [heads, rules, *self.rows]
        body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"{self.title}\n\n{body}\n"


def baselines_sheet(found: Baselines) -> Sheet:
    """One line for each prediction, one pair of columns for each kind of destination."""
    by_name: dict[str, dict[str | None, dict[str, Any]]] = {}
    for row in found.rows:
        by_name.setdefault(row["prediction"], {})[row["destination"]] = row
    rows = []
    for key, name in NAMES.items():
        if key not in by_name:
            continue
        cells = [name]
        for destination in ("token", "cluster"):
            row = by_name[key].get(destination) or by_name[key][None]
            cells += [f"{row['r2']:.3f}", _added(row)]
        rows.append(cells)
    where = "held-out images" if found.holdout else "the same images"
    return Sheet(
        title=f"{_layers(found)}, {found.num_clusters} clusters: R² of the attention logits, "
        f"learnt on {found.num_images:,} images, scored on {where} ({found.num_test_images:,})",
        columns=["<prediction", "→ token", "beyond position", "→ cluster", "beyond position"],
        rows=rows,
    )


def _added(row: dict[str, Any]) -> str:
    if row["added"] is None:
        return ""
    # An exact zero comes out as a rounding error of either sign.
    value = row["added"] if abs(row["added"]) >= 5e-5 else 0.0
    text = f"{value:+.4f}" if value else "0.0000"
    if row["added_sd"] is not None:
        return f"{text} ± {row['added_sd']:.4f}"
    if not value:
        return text
    # Models whose position means explain less leave more to explain.
    return f"{text} ({value / (1 - (row['r2'] - value)):.0%} of the rest)"


def stability_sheet(found: Stability) -> Sheet:
    """Two lines for each number of clusters, one for each kind of destination."""
    columns = ["clusters", "used", "inertia", "ARI of seeds", "of halves", "<edges end at"]
    columns += ["R² added", "Jaccard", "by chance", "of seeds", "of halves", "between patches"]
    rows = []
    for row in found.rows:
        cells = [
            str(row["num_clusters"]),
            f"{row['clusters_used']:.4g}",
            f"{row['inertia']:.1f}",
            _share(row["ari"]),
            _share(row["ari_halves"]),
        ]
        for name in ("token", "cluster"):
            own = row[name]
            rows.append(
                [
                    *cells,
                    name,
                    f"{own['r2_added']:+.3f} ± {own['r2_added_sd']:.3f}",
                    f"{own['jaccard']:.2f} ± {own['jaccard_sd']:.2f}",
                    _share(own["jaccard_chance"]),
                    _share(own["jaccard_seeds"]),
                    _share(own["jaccard_halves"]),
                    _share(own["jaccard_halves_patches"]),
                ]
            )
            cells = [""] * len(cells)
    guided = found.provenance.options.get("method") == "guided"
    kind = "guided clusters, which no seed enters" if guided else f"{found.seeds} k-means seeds"
    return Sheet(
        title=f"{_layers(found)}: {kind}; circuits of {found.top_k} edges by {found.rank} "
        f"on {found.num_images:,} images, resampled {found.resamples} times; R² on "
        f"{found.num_test_images:,} "
        + ("held-out images" if found.holdout else "images, the same ones"),
        columns=columns,
        rows=rows,
    )


def sweep_sheet(found: ClusterSweep) -> Sheet:
    """One line for each number of clusters of a sweep."""
    layers = ", ".join(f"{low} → {high}" for low, high in found.layers)
    rows = [
        [
            str(row["num_clusters"]),
            f"{row['r2_added']:+.4f} ± {row['r2_added_se']:.4f}",
            "chosen" if row["num_clusters"] == found.num_clusters else "",
        ]
        for row in found.rows
    ]
    return Sheet(
        title=f"layers {layers}: R² that {found.method} clusters add to position, edges to "
        f"{found.destination}s, over {found.folds} folds of {found.num_images:,} discovery images; "
        "chosen is the smallest number within one standard error of the best",
        columns=["clusters", "R² added", "<"],
        rows=rows,
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value >= 0.005 else f"{value:.3f}"


def _layers(found: Baselines | Stability) -> str:
    model = found.provenance.origin.model
    return f"{model}, gates of layer {found.layer} → attention of layer {found.next_layer}"
