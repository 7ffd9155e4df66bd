"""The field's figures of an intervention, as a table: faithfulness, CPR, CMD, and their spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xaikit.report.curves import IN_NUMBERS, as_drawn, curve_name
from xaikit.report.directions import direction, moved
from xaikit.report.live import at_share, band, chosen_metric
from xaikit.report.studies import Sheet

if TYPE_CHECKING:
    from xaikit.artifacts.results import Intervention

SHARES = (0.01, 0.1)
KEEP = ("cpr", "cmd", "cpr_log", "cmd_log")
AREAS = ("area log", "area linear", "keep area log", "keep area linear")
Curves = Sequence[Mapping[str, Any]]


def figures_sheet(found: Intervention) -> Sheet:
    """One line a ranking, and random edges at equal cover.

    Removal: the share of the full effect. Keep: what is held, ``1 −`` that share, and MIB's
    figures. Of a direction, whose curves are no shares: its falls, and areas in their place. Where
    curves were measured under several ablations, the spread behind a figure is its range over them.
    """
    metric = chosen_metric(found)
    directed = metric == IN_NUMBERS
    removals, keeps = (_by_ranking(found, mode, metric) for mode in ("remove", "keep"))
    cells = _falls if directed else _shares
    names = list(dict.fromkeys([*removals, *keeps]))
    rows = [[name, *cells(removals.get(name, []), keeps.get(name, []))] for name in names]
    columns = [f"{what} {share:.0%}" for what in ("removed", "kept") for share in SHARES]
    columns += AREAS if directed else ("CPR", "CMD", "CPR log", "CMD log")
    return Sheet(title=_title(found, metric), columns=["<ranking", *columns], rows=rows)


def _shares(removed: Curves, kept: Curves) -> list[str]:
    cells = [_spread([at_share(curve, share) for curve in removed]) for share in SHARES]
    cells += [_spread([1 - at_share(curve, share) for curve in kept]) for share in SHARES]
    return cells + [_spread([c[key] for c in kept if key in c]) for key in KEEP]


def _falls(removed: Curves, kept: Curves) -> list[str]:
    both = (removed, kept)
    cells = [_spread([at_share(c, share) for c in curves]) for curves in both for share in SHARES]
    keys = ("area_log", "area_linear")
    return cells + [_spread([c[key] for c in curves]) for curves in both for key in keys]


def _by_ranking(found: Intervention, mode: str, metric: str) -> dict[str, list[dict[str, Any]]]:
    """Curves of one mode and metric by ranking, the main ablation's first."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for curve in found.curves:
        if (curve["mode"], curve["metric"]) == (mode, metric):
            curves.setdefault(curve_name(curve), []).append(as_drawn(curve, found))
    drawn = band(found, mode, metric)
    return curves | ({"random": [as_drawn(drawn, found)]} if drawn else {})


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(values[0])} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    """Three decimals; no minus before a zero."""
    return f"{round(value, 3) + 0.0:.3f}"


def _title(found: Intervention, metric: str) -> str:
    ablations = list(found.full_effects) or [found.ablation]
    full = found.full_effect[metric]
    words = [f"shares of the full effect ({metric} {full:.3g})"]
    if metric == IN_NUMBERS:
        words = [f"falls of {direction(found)} (removing all entries {moved(full, 'it')})"]
    words.append(f"{found.ablation} ablation" if len(ablations) == 1 else "")
    if len(ablations) > 1:
        words.append(f"{ablations[0]} ablation (range over {', '.join(ablations)})")
    layers = f"{len(found.layers)} layers together" if found.layers else f"layer {found.layer}"
    words += [layers, f"{found.num_images:,} {'held-out ' if found.heldout else ''}images"]
    return ", ".join(filter(None, words))
