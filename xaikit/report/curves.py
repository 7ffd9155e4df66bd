"""Removal and keep curves as a picture, with the band of random edge sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.report.plain_figures import blank, plain_figures, save_as

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xaikit.artifacts.explanation import Explanation
    from xaikit.artifacts.results import Intervention

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
"""Okabe & Ito's colours, told apart with any colour vision."""

MARKERS = "os^DvPX"
METRICS = {
    "cosine": "1 − cos to the clean embedding",
    "kl": "KL of the class distribution",
    "margin": "loss of margin",
    "accuracy": "loss of accuracy",
    "toward": "fall of the objective",
}
IN_NUMBERS = "toward"
"""The metric whose curves are no shares: ablating everything says nothing of a direction."""
MODES = {"remove": "edges removed", "keep": "only these edges kept"}


@plain_figures()
def plot_curves(found: Intervention, out: str | Path, *, dpi: int = 130) -> Path:
    """Draw a panel for each metric and mode.

    Horizontal: share of logit entries edited (`remove`) or left alone (`keep`), logarithmic.
    Vertical: effect as a share of the effect of ablating everything, of a direction the effect
    itself. The grey band holds 95% of the random edge sets.

    Parameters
    ----------
    found : Intervention
    out : path
        ``.png``, ``.pdf`` or ``.svg``; PNG otherwise.

    Returns
    -------
    Path
    """
    metrics = list(dict.fromkeys(curve["metric"] for curve in found.curves)) or ["cosine"]
    modes = [mode for mode in MODES if any(c["mode"] == mode for c in found.curves)] or ["remove"]
    figure = blank(1.9 + 4.6 * len(modes), 0.7 + 3.5 * len(metrics))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(metrics), len(modes), squeeze=False, sharex=True)
    rankings = ranking_order(found.curves)
    handles: dict[str, Any] = {}
    records = [as_drawn(record, found) for record in (*found.random, *found.curves)]
    for row, metric in enumerate(metrics):
        for column, mode in enumerate(modes):
            axes = panels[row][column]
            for record in records:
                if (record["metric"], record["mode"]) != (metric, mode):
                    continue
                if "mean" in record:
                    handles.setdefault("random, 95%", _draw_band(axes, record))
                else:
                    name = curve_name(record)
                    handles.setdefault(name, _draw_curve(axes, record, rankings.index(name)))
            shares = metric != IN_NUMBERS
            words = METRICS.get(metric, metric)
            axes.set_ylabel(f"{words}\nshare of full effect" if shares else words)
            axes.set_title(MODES[mode], fontsize=10)
            _finish(axes, last=row == len(metrics) - 1, mode=mode, shares=shares)
    names = [name for name in (*rankings, "random, 95%") if name in handles]
    # Beside the panels: in the corner it would lie on the title of a narrow figure.
    figure.legend([handles[n] for n in names], names, loc="outside right center", frameon=False)
    kind = "held-out images" if found.heldout else "images, none held out"
    figure.suptitle(
        f"{found.ablation} ablation, destination {found.destination}, {found.num_images:,} {kind}",
        fontsize=11,
    )
    return save_as(figure, out, dpi)


def ranking_order(curves: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rankings, largest area of the first metric's removal curve first."""
    first = curves[0]["metric"] if curves else ""

    def key(curve: Mapping[str, Any]) -> tuple[bool, bool, float]:
        return curve["metric"] != first, curve["mode"] != "remove", -curve["area_log"]

    return list(dict.fromkeys(curve_name(curve) for curve in sorted(curves, key=key)))


def curve_name(curve: Mapping[str, Any]) -> str:
    """A ranking, and the end that it was read from where it is signed: ``attribution for``."""
    return " ".join(filter(None, (curve["ranking"], curve.get("side"))))


def as_drawn(record: Mapping[str, Any], found: Intervention | Explanation) -> dict[str, Any]:
    """A curve or band with ``fractions``, areas, ``low`` and ``high`` in the unit it is drawn in.

    That is the share of what ablating everything does; of a direction the effect itself, since
    what ablating everything does to it may be next to nothing, or of the other sign: shares of it
    would be of the size of anything.
    """
    full = found.full_of(record)
    if record["metric"] != IN_NUMBERS:
        ends = [end for end in ("low", "high") if end in record]
        return {**record, **{end: [each / (full or 1.0) for each in record[end]] for end in ends}}
    areas = {name: record[name] * full for name in ("area_log", "area_linear") if name in record}
    return {**record, "fractions": record["mean" if "mean" in record else "effects"], **areas}


def _draw_curve(axes: Axes, curve: Mapping[str, Any], place: int) -> Any:
    (line,) = axes.plot(
        curve["shares"],
        curve["fractions"],
        color=PALETTE[place % len(PALETTE)],
        marker=MARKERS[place % len(MARKERS)],
        markersize=4.5,
        linewidth=1.6,
        zorder=3 - place / 100,
    )
    return line


def _draw_band(axes: Axes, record: Mapping[str, Any]) -> Any:
    band = axes.fill_between(
        record["shares"], record["low"], record["high"], color="#999999", alpha=0.35, linewidth=0
    )
    (mean,) = axes.plot(record["shares"], record["fractions"], "--", color="#555555", linewidth=1)
    return band, mean


def _finish(axes: Axes, *, last: bool, mode: str, shares: bool) -> None:
    # Slow to import, and `plain_figures` has to be first.
    from matplotlib.ticker import NullFormatter, PercentFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(percent)
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    if shares:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(min(0, low), max(1.03, high))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if last:
        what = "edited" if mode == "remove" else "left alone"
        axes.set_xlabel(f"share of logit entries {what}")


def percent(share: float, _: float = 0) -> str:
    """A tick of a share: ``0.1%``."""
    return f"{share:.4%}".replace("%", "").rstrip("0").rstrip(".") + "%"
