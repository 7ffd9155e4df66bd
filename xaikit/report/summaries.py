"""What the command line prints of each artefact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from xaikit.artifacts.edges import HasName, source_name
from xaikit.report.directions import direction

if TYPE_CHECKING:
    from xaikit.artifacts.edges import Edge
    from xaikit.artifacts.results import Causal, Circuit, TargetCausal
    from xaikit.artifacts.tensors import Features, Fit

ROWS = 10
"""Rows of a table; the file has all."""
NOT_TESTABLE = "not testable"
NO_TESTS = (
    "no p-, q- or z-values: guided clusters have seen the attention of all these images; keep "
    "some back with --holdout"
)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """A borderless table; columns named with a leading ``<`` are aligned left."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        left = column.startswith("<")
        found.add_column(column.removeprefix("<"), justify="left" if left else "right")
    for row in rows:
        found.add_row(*row)
    # A title of the table's own would be broken where a narrow table ends.
    return Group(title, found) if title else found


def probability(value: float | None, *, testable: bool = True) -> str:
    """A p- or q-value, short; says so where a permutation can change nothing.

    None, where no image is fit for a test, is an empty cell.
    """
    if not testable:
        return NOT_TESTABLE
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def cluster_lines(features: Features) -> list[Any]:
    """Sizes of the clusters and what to know about them."""
    sizes = sorted(features.cluster_sizes.tolist(), reverse=True)
    used = [size for size in sizes if size]
    total = sum(sizes)
    lines: list[Any] = [
        f"{len(used)} of {features.num_clusters} clusters used, sizes {used[0]:,} … {used[-1]:,} "
        f"of {total:,} tokens; mean squared distance {features.inertia:,.1f}"
    ]
    if used[0] > 0.9 * total:
        lines.append(f"note: one cluster holds {used[0] / total:.0%} of all tokens")
    empty = features.num_clusters - len(used)
    if empty:
        lines.append(
            f"note: {empty} clusters are empty ({features.distinct_points:,} distinct gate "
            "patterns in the sample)"
        )
    if features.kinds:
        lines.append(f"clusters by position: {positions(features)}")
    if not features.testable:
        lines.append(f"note: fits of these clusters have {NO_TESTS}")
    if features.heldout:
        lines.append(
            f"learnt on {len(features.discovery):,} images, {len(features.heldout):,} held out"
        )
    return lines


def fit_fields(fit: Fit) -> dict[str, Any]:
    """The numbers of a fit."""
    occupied = fit.support[:, None, :].expand(fit.prototypes.shape) > 0
    return {
        "destination": fit.destination,
        "mse": fit.mse,
        "r2": fit.r2,
        "r2_mean": fit.r2_mean,
        "r2_position": fit.r2_position,
        "r2_position_cluster": fit.r2_position_cluster,
        "heldout_r2": fit.heldout_r2,
        "controls": fit.controls,
        "num_images": fit.num_images,
        "num_test_images": fit.num_test_images,
        "edges": int(occupied.sum()),
        "edges_q05": int((fit.edge_qvalues <= 0.05).sum()) if fit.testable else None,
        "edges_untestable": int((fit.untestable & occupied).sum()),
    }


def added(fit: Fit) -> float:
    """R-squared that clusters add to position: held out where images were held out."""
    scores = fit.heldout_r2 or fit_fields(fit)
    return scores["r2_position_cluster"] - scores["r2_position"]


def control_text(controls: dict[str, float]) -> str:
    """What the controls of a fit add in place of its clusters."""
    parts = []
    if "shuffled_added" in controls:
        spread = f"{controls['shuffled_added']:+.4f} ± {controls['shuffled_added_sd']:.4f}"
        parts.append(f"{spread} with images shuffled")
    if "position_added" in controls:
        # Zero but for rounding: these clusters are a function of position.
        parts.append(f"{round(controls['position_added'], 4) + 0.0:+.4f} as k-means of positions")
    if "random_weights_added" in controls:
        parts.append(f"{controls['random_weights_added']:+.4f} in a model of random weights")
    return f"; controls: {', '.join(parts)}" if parts else ""


def fit_lines(fit: Fit) -> list[Any]:
    """What clusters add beyond position, then the R-squared table."""
    fields = fit_fields(fit)
    where = f"held-out images ({fit.num_test_images:,})" if fit.heldout_r2 else "the same images"
    names = {
        "r2_position_cluster": "position + cluster",
        "r2_position": "position only",
        "r2_mean": "mean only",
        "r2": "cluster prototypes alone",
    }
    columns = ["<prediction of the logits", f"R² on {fit.num_images:,} discovery images"]
    rows = [[label, f"{fields[key]:.4f}"] for key, label in names.items()]
    if fit.heldout_r2:
        columns.append(f"R² on {where}")
        for row, key in zip(rows, names, strict=True):
            row.append(f"{fit.heldout_r2[key]:.4f}")
    return [
        f"clusters add {added(fit):+.4f} R² to position, on {where}{control_text(fit.controls)}",
        table("", columns, rows),
        *_tests_lines(fit, fields),
    ]


def tested_on(found: Fit | Causal | TargetCausal) -> str:
    """The images behind tests, and in words what it means where none of them was held out."""
    if found.heldout:
        return f"tested on {found.num_test_images:,} held-out images"
    return (
        f"tested on {found.num_test_images:,} images, none of them held out: clusters were learnt "
        "and edges chosen on the same ones; `xaikit cluster --holdout 0.5` keeps some back"
    )


def _tests_lines(fit: Fit, fields: dict[str, Any]) -> list[str]:
    """How many edges are significant, and how many no permutation can test."""
    if not fit.testable:
        return [NO_TESTS]
    share = fields["edges_q05"] / max(fields["edges"], 1)
    lines = [
        f"{fields['edges_q05']:,} of {fields['edges']:,} edges ({share:.1%}) have q ≤ 0.05 "
        f"(Benjamini–Hochberg over all edges, {fit.null} null, {fit.num_test_images:,} images)"
    ]
    if not fit.heldout:
        lines.append(tested_on(fit))
    if fields["edges_untestable"]:
        lines.append(
            f"{fields['edges_untestable']:,} edges are not testable: their cluster sits at the "
            "same tokens in every image"
        )
    return lines


def positions(features: Features) -> str:
    """Which clusters are prefix tokens: ``15 the class token``; empty where none is."""
    first = features.num_clusters - len(features.kinds)
    return ", ".join(f"{first + at} the {kind}" for at, kind in enumerate(features.kinds))


def edge_cells(edges: Sequence[Edge]) -> tuple[list[str], list[list[str]]]:
    """Columns, and a row for each edge; those of several layers and of a direction say so."""
    several = any(edge.layer is not None for edge in edges)
    directed = any(edge.side for edge in edges)
    columns = [*(["layer"] if several else []), *EDGE_COLUMNS, *(["<pushes"] if directed else [])]
    rows = [
        [
            *([str(edge.layer)] if several else []),
            *_edge_row(edge),
            *([edge.side or ""] if directed else []),
        ]
        for edge in edges
    ]
    return columns, rows


def ranked_title(circuit: Circuit, shown: int) -> str:
    """What a table of a circuit's first edges is called; a direction is named."""
    title = f"first {shown} of {len(circuit.paths)} edges by {circuit.rank}"
    directed = any(edge.side for edge in circuit.paths)
    return f"{title}, for and against {direction(circuit)}" if directed else title


def _edge_row(edge: Edge) -> list[str]:
    return [
        source_cell(edge),
        str(edge.head),
        edge.dst_name or edge.dst_kind,
        f"{edge.weight:+.3f}",
        f"{edge.contrast:+.3f}",
        "" if edge.zscore is None or not edge.testable else f"{edge.zscore:+.1f}",
        probability(edge.qvalue, testable=edge.testable),
        f"{edge.support:,}",
    ]


def source_cell(edge: HasName) -> str:
    """The query side in a column called *cluster*: its number, or what it is and nothing else."""
    return source_name(edge).removeprefix("cluster ")


EDGE_COLUMNS = ["cluster", "head", "<destination", "weight", "contrast", "z", "q", "support"]


def circuit_lines(circuit: Circuit) -> list[Any]:
    """The first edges."""
    if not circuit.paths:
        limit = f" with q ≤ {circuit.max_qvalue}" if circuit.max_qvalue is not None else ""
        return [f"no edge{limit}: the circuit is empty ({circuit.tested:,} edges tested)"]
    title = ranked_title(circuit, min(ROWS, len(circuit.paths)))
    return [
        table(title, *edge_cells(circuit.paths[:ROWS])),
        *significant_lines(circuit),
        *stability_lines(circuit),
    ]


def significant_lines(circuit: Circuit) -> list[str]:
    """How many edges are significant, where tests are given."""
    if circuit.significant is None:
        return [NO_TESTS]
    return [f"{circuit.significant:,} of all {circuit.tested:,} edges have q ≤ 0.05"]


def stability_lines(circuit: Circuit) -> list[str]:
    """How far circuits of resampled images agree with this one, where there were any."""
    s = circuit.stability
    if not s:
        return []
    lasting = sum((edge.survival or 0.0) >= 0.9 for edge in circuit.paths)
    return [
        f"{s['resamples']} resamples of the images: Jaccard {s['jaccard']:.2f} ± "
        f"{s['jaccard_sd']:.2f} with this circuit (by chance {s['jaccard_chance']:.2f}), "
        f"{lasting} of {len(circuit.paths)} edges survive 90% of them"
    ]


def causal_lines(causal: Causal) -> list[Any]:
    """The clusters' effects."""
    rows = [
        [
            source_cell(effect),
            f"{effect.support:,}",
            f"{effect.ablation_effect:.4f}",
            probability(effect.ablation_pvalue, testable=effect.ablation_testable),
            f"{effect.injection_effect:.4f}",
            probability(effect.injection_pvalue, testable=effect.injection_testable),
        ]
        for effect in causal.effects[:ROWS]
    ]
    columns = ["cluster", "support", "ablation", "p", "injection", "p"]
    return [
        table("effects of whole clusters on the predicted logits", columns, rows),
        tested_on(causal),
    ]


def target_causal_lines(found: TargetCausal) -> list[Any]:
    """The edges' effects."""
    rows = [
        [
            source_cell(effect),
            str(effect.head),
            effect.dst_name or effect.dst_kind,
            f"{effect.edge_effect:.4f}",
            probability(effect.edge_pvalue, testable=effect.testable),
            f"{effect.alignment_gain:+.4f}",
            probability(effect.alignment_pvalue, testable=effect.testable),
        ]
        for effect in found.effects[:ROWS]
    ]
    columns = ["cluster", "head", "<destination", "effect", "p", "alignment", "p"]
    if not rows:
        return ["the circuit has no edges to test"]
    return [
        table("effects of single edges on the predicted logits", columns, rows),
        tested_on(found),
    ]
