"""The field's figures of an intervention, as a table: faithfulness, CPR, CMD, and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xaikit.report.curves import curve_name
from xaikit.report.live import at_share, band, chosen_metric
from xaikit.report.studies import Sheet

if TYPE_CHECKING:
    from xaikit.artifacts.results import Intervention

SHARES = (0.01, 0.1)
KEEP = ("cpr", "cmd", "cpr_log", "cmd_log")


def figures_sheet(found: Intervention) -> Sheet:
    """One line a ranking, and random edges at equal cover.

    Removal: the share of the full effect. Keep: what is held, ``1 −`` that share, and MIB's
    figures. Where curves were measured under several ablations, the spread behind a figure is its
    range over them.
    """
    metric = chosen_metric(found)
    removals, keeps = (_by_ranking(found, mode, metric) for mode in ("remove", "keep"))
    columns = ["<ranking", *(f"removed {share:.0%}" for share in SHARES)]
    columns += [*(f"kept {share:.0%}" for share in SHARES), "CPR", "CMD", "CPR log", "CMD log"]
    names = list(dict.fromkeys([*removals, *keeps]))
    rows = []
    for name in names:
        removed, kept = removals.get(name, []), keeps.get(name, [])
        cells = [_spread([at_share(curve, share) for curve in removed]) for share in SHARES]
        cells += [_spread([1 - at_share(curve, share) for curve in kept]) for share in SHARES]
        cells += [_spread([c[key] for c in kept if key in c]) for key in KEEP]
        rows.append([name, *cells])
    return Sheet(title=_title(found, metric), columns=columns, rows=rows)


def _by_ranking(found: Intervention, mode: str, metric: str) -> dict[str, list[dict[str, Any]]]:
    """Curves of one mode and metric by ranking, the main ablation's first."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for curve in found.curves:
        if (curve["mode"], curve["metric"]) == (mode, metric):
            curves.setdefault(curve_name(curve), []).append(curve)
    drawn = band(found, mode, metric)
    return curves | ({"random": [drawn]} if drawn else {})


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{values[0]:.3f} ({min(values):.3f} to {max(values):.3f})"


def _title(found: Intervention, metric: str) -> str:
    ablations = list(found.full_effects) or [found.ablation]
    words = [f"shares of the full effect ({metric} {found.full_effect[metric]:.3g})"]
    words.append(f"{found.ablation} ablation" if len(ablations) == 1 else "")
    if len(ablations) > 1:
        words.append(f"{ablations[0]} ablation (range over {', '.join(ablations)})")
    layers = f"{len(found.layers)} layers together" if found.layers else f"layer {found.layer}"
    words += [layers, f"{found.num_images:,} {'held-out ' if found.heldout else ''}images"]
    return ", ".join(filter(None, words))
