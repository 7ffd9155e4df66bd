"""What the command line prints of an intervention: the ranking table and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xaikit.report.curves import IN_NUMBERS, as_drawn, curve_name
from xaikit.report.directions import direction, full_words, moved
from xaikit.report.summaries import ROWS, probability, source_cell, table
from xaikit.report.terminal import terminal_chart

if TYPE_CHECKING:
    from xaikit.artifacts.results import Intervention

AT = 0.1
"""Share of the entries that the verdict quotes."""
COLUMNS = (0.01, 0.1)
LEVEL = 0.05


def at_share(record: Mapping[str, Any], share: float, values: str = "fractions") -> float:
    """A curve's value at a share, linear in the logarithm of the share between its points."""
    shares: list[float] = record["shares"]
    found: list[float] = record[values]
    if share <= shares[0]:
        return found[0] * share / shares[0]
    for left in range(len(shares) - 1):
        if share <= shares[left + 1]:
            low, high = math.log(shares[left]), math.log(shares[left + 1])
            part = (math.log(share) - low) / (high - low)
            return found[left] + part * (found[left + 1] - found[left])
    return found[-1]


def removal_curves(found: Intervention, metric: str = "cosine") -> list[dict[str, Any]]:
    """Removal curves of one metric, largest area on the log axis first."""
    wanted = ("remove", metric, found.ablation)
    curves = [
        c
        for c in found.curves
        if (c["mode"], c["metric"], c.get("ablation", found.ablation)) == wanted
    ]
    return sorted(curves, key=lambda curve: -as_drawn(curve, found)["area_log"])


def band(found: Intervention, mode: str = "remove", metric: str = "cosine") -> dict[str, Any]:
    """The random band of one mode and metric; empty where none was drawn."""
    bands = (b for b in found.random if (b["mode"], b["metric"]) == (mode, metric))
    return next(bands, {})


def verdict(found: Intervention) -> str:
    """One sentence with numbers: does the model use what the best ranking puts first?"""
    where = f"{found.num_images:,} {'held-out ' if found.heldout else ''}images"
    metric = chosen_metric(found)
    curves = removal_curves(found, metric)
    if not curves:
        return f"no removal curve was measured ({where})"
    chance = found.chance
    if metric == IN_NUMBERS:
        return _direction(found, where)
    best = max(curves, key=lambda curve: at_share(curve, AT))
    reached = at_share(best, AT)
    if chance:
        full = found.full_effect[metric] or 1.0
        key, side = chance["best"], chance.get("side", "")
        best, reached = {"ranking": key, "side": side}, chance["effect"] / full
    name = f"`{curve_name(best)}`"
    sentence = (
        f"removing the {AT:.0%} of logit entries that {name} puts first does "
        f"{reached:.0%} of what removing all of them does "
        f"({full_words(metric, found.full_effect[metric])}, {where})"
    )
    if not chance:
        return sentence
    return sentence + _beside_chance(chance, f"do {chance['random_mean'] / full:.1%}")


def _beside_chance(chance: Mapping[str, Any], random: str) -> str:
    many = chance["rankings"]
    others = "a random order" if many == 1 else f"the best of {many} random orders"
    text = f"; random orders {random} on average, and {others} as much with p = "
    text += probability(chance["pvalue"])
    return text if chance["pvalue"] <= LEVEL else text + ": no better than chance"


def _direction(found: Intervention, where: str) -> str:
    """The verdict on a direction: how far its own edges hold it up."""
    chance, full = found.chance, found.full_effect[IN_NUMBERS]
    if not chance:
        return f"removing all logit entries {moved(full, direction(found))} ({where})"
    best = {"ranking": chance["best"], "side": chance.get("side", "")}
    sentence = (
        f"removing the {AT:.0%} of logit entries that `{curve_name(best)}` puts first "
        f"{moved(chance['effect'], direction(found))} (removing all of them {moved(full, 'it')}, "
        f"{where})"
    )
    return sentence + _beside_chance(chance, moved(chance["random_mean"], "it", several=True))


def chosen_metric(found: Intervention) -> str:
    """The metric of the objective that rankings and edges were judged by."""
    kind = found.objective.get("kind", "embedding")
    return "cosine" if kind == "embedding" else kind


def edges_sentence(found: Intervention) -> str:
    """How many single edges matter live."""
    tested = [e for e in found.effects if e.live_qvalue is not None]
    if not tested:
        return "no single edge was tested"
    good = sum((e.live_qvalue or 0.0) <= 0.05 for e in tested)
    return (
        f"{good} of {len(tested)} single edges change the output more than random edges of like "
        "cover (q ≤ 0.05)"
    )


def exponent(value: float | None) -> str:
    """A live effect, short; an empty cell where it was not measured."""
    return "" if value is None else f"{value:.1e}"


def edge_table(found: Intervention) -> list[Any]:
    """The first single edges: the test on recorded logits, and the live effect beside it."""
    rows = [
        [
            *([] if effect.layer is None else [str(effect.layer)]),
            source_cell(effect),
            str(effect.head),
            effect.dst_name or effect.dst_kind,
            probability(effect.edge_pvalue, testable=effect.testable),
            exponent(effect.live_effect),
            probability(effect.live_qvalue),
        ]
        for effect in found.effects[:ROWS]
    ]
    if not rows:
        return []
    columns = ["cluster", "head", "<destination", "p", "live effect", "live q"]
    if len(rows[0]) > len(columns):
        columns = ["layer", *columns]
    return [table(f"first {len(rows)} single edges", columns, rows)]


def agreement_sentence(found: Intervention) -> str:
    """How far the prototype-space effects of clusters agree with the live ones."""
    rho = found.agreement.get("ablation")
    if rho is None:
        return ""
    words = [f"ablation ρ = {rho:+.2f}"]
    if found.agreement.get("injection") is not None:
        words.append(f"injection ρ = {found.agreement['injection']:+.2f}")
    return (
        f"prototype-space effects of {found.agreement['clusters']} clusters against live ones: "
        + ", ".join(words)
    )


def intervene_fields(found: Intervention) -> dict[str, Any]:
    """The numbers of an intervention, for scripts."""
    return {
        "images": found.num_images,
        "heldout": found.heldout,
        "destination": found.destination,
        "ablation": found.ablation,
        "full_effect": found.full_effect,
        "rankings": {
            curve_name(curve): {
                "area_log": curve["area_log"],
                "area_linear": curve["area_linear"],
                **{f"at_{share:g}": at_share(curve, share) for share in COLUMNS},
            }
            for curve in removal_curves(found, chosen_metric(found))
        },
        "chance": found.chance,
        "random": {name: band(found)[name] for name in ("area_log", "area_linear") if band(found)},
        "circuit": found.completeness,
        "agreement": found.agreement,
        "verdict": verdict(found),
    }


def ranking_rows(found: Intervention) -> list[list[str]]:
    """Cells of the table of rankings."""
    metric = chosen_metric(found)
    kept = {
        (c["ranking"], c.get("side")): c
        for c in found.curves
        if (c["mode"], c["metric"], c.get("ablation")) == ("keep", metric, found.ablation)
    }
    drawn, rows = band(found, "remove", metric), []
    for curve in [*removal_curves(found, metric), *([drawn] if drawn else [])]:
        keep = kept.get((curve["ranking"], curve.get("side")))
        keep = keep if curve is not drawn else band(found, "keep", metric)
        removed, left = as_drawn(curve, found), as_drawn(keep, found) if keep else {}
        values = [at_share(removed, share) for share in COLUMNS]
        values += [removed["area_log"], removed["area_linear"]]
        last = f"{left['area_log']:.3f}" if left else ""
        rows.append([curve_name(curve), *(f"{value:.3f}" for value in values), last])
    return rows


def intervene_lines(found: Intervention) -> list[Any]:
    """The table of rankings, the curve and the verdict, for people."""
    names = ["<ranking", *(f"at {share:.0%}" for share in COLUMNS)]
    names += ["area, log", "area, linear", "keep area, log"]
    rows = ranking_rows(found)
    if not any(row[-1] for row in rows):
        # Nothing was kept alone, as in `run-all`.
        names, rows = names[:-1], [row[:-1] for row in rows]
    what = f"fall of {direction(found)}" if _in_numbers(found) else "share of the full effect"
    title = f"{what}, {found.ablation} ablation, destination {found.destination}"
    lines: list[Any] = [table(title, names, rows), *_classes(found)]
    lines += _chart(found)
    if found.completeness:
        lines.append(_circuit(found))
    lines += [edges_sentence(found), agreement_sentence(found), verdict(found)]
    return [line for line in lines if line]


def _classes(found: Intervention) -> Sequence[str]:
    names = {
        "kl": "KL {:.3g} nats",
        "margin": "margin {:+.3g}",
        "accuracy": "accuracy {:+.1%}",
    }
    words = [
        # Falls are positive in the artefact; here a fall reads as one.
        text.format(found.full_effect[name] * (1 if name == "kl" else -1) + 0.0)
        for name, text in names.items()
        if name in found.full_effect
    ]
    if not words:
        return []
    return [f"all entries removed, {found.classifier}: {', '.join(words)}"]


def _in_numbers(found: Intervention) -> bool:
    return chosen_metric(found) == IN_NUMBERS


def _chart(found: Intervention) -> list[Any]:
    metric = chosen_metric(found)
    curves = [as_drawn(curve, found) for curve in removal_curves(found, metric)]
    drawn = band(found, "remove", metric)
    what = f"fall of {direction(found)}" if _in_numbers(found) else ""
    drawn = as_drawn(drawn, found) if drawn else {}
    return [terminal_chart(curves, drawn, what=what)] if curves else []


def _circuit(found: Intervention) -> str:
    record = found.completeness
    if _in_numbers(found):
        full = found.full_effect[IN_NUMBERS]
        text = (
            f"the circuit's {record['edges']:,} edges cover {record['share']:.2%} of the entries: "
            f"removing them {moved(record['removed'] * full, direction(found))}"
        )
        if record["random_mean"] is not None:
            random = moved(record["random_mean"] * full, "it", several=True)
            text += f" (random edges {random})"
        return f"{text}, keeping only them {moved(record['kept'] * full, 'it')}"
    text = (
        f"the circuit's {record['edges']:,} edges cover {record['share']:.2%} of the entries: "
        f"removing them does {record['removed']:.1%} of the full effect"
    )
    if record["random_mean"] is not None:
        text += f" (random {record['random_mean']:.1%}, p = {probability(record['pvalue'])})"
    # Adding 0.0 leaves no minus before a zero.
    return f"{text}, keeping only them avoids {round(record['faithfulness'], 3) + 0.0:.1%}"
