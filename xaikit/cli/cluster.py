"""`cluster`: group tokens by which FFN gates they open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xaikit.artifacts.file_names import FEATURES, NUM_CLUSTERS, TRACE
from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.report.studies import sweep_sheet
from xaikit.stages.choose import choose_clusters
from xaikit.stages.cluster import ClusterOptions
from xaikit.stages.cluster import cluster as stage


@o.command(
    "cluster",
    examples=[
        "xaikit cluster --trace trace.safetensors --num-clusters 32",
        "xaikit cluster --trace trace.safetensors --method guided --holdout 0.5",
    ],
)
def cluster(
    session: Session,
    options: ClusterOptions,
    trace: o.TraceFile = Path(TRACE),
    out: o.Out = Path(FEATURES),
) -> None:
    """Group tokens by which FFN gates they open."""
    from xaikit.report.summaries import cluster_lines

    read, chosen, fields = Trace.load(trace), [], {"features": str(out)}
    with session.progress("cluster") as progress:
        if options.num_clusters is None:
            sweep = choose_clusters([read], options, progress=progress)
            fields["sweep"] = str(out.with_name(NUM_CLUSTERS))
            sweep.save(fields["sweep"])
            options = replace(options, num_clusters=sweep.num_clusters)
            chosen = [sweep_sheet(sweep).rich()]
        found = stage(read, options, progress=progress)
    found.save(out)
    session.result({**fields, **_fields(found)}, *chosen, *cluster_lines(found), f"→ {out}")


def _fields(found: Features) -> dict[str, object]:
    sizes = found.cluster_sizes.tolist()
    return {
        "num_clusters": found.num_clusters,
        "inertia": found.inertia,
        "cluster_sizes": sizes,
        "empty_clusters": sum(size == 0 for size in sizes),
        "discovery_images": len(found.discovery),
        "heldout_images": len(found.heldout),
    }
