"""Options of `run-all`."""

from __future__ import annotations

from dataclasses import dataclass

from xaikit.artifacts.options import like, option
from xaikit.artifacts.trace_writer import Storage
from xaikit.stages.bootstrap import BootstrapOptions
from xaikit.stages.causal import CausalOptions
from xaikit.stages.circuit import CircuitOptions
from xaikit.stages.cluster import ClusterOptions
from xaikit.stages.fit import FitOptions
from xaikit.stages.target_causal import TargetCausalOptions
from xaikit.stages.trace import TraceOptions


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every stage, with the defaults of ``run-all``."""

    max_images: int | None = like(TraceOptions, "max_images")
    batch_size: int = like(TraceOptions, "batch_size")
    storage: Storage = Storage()
    workers: int | None = like(TraceOptions, "workers")
    strict: bool = like(TraceOptions, "strict")
    num_clusters: int = like(ClusterOptions, "num_clusters")
    sample_tokens: int = like(ClusterOptions, "sample_tokens")
    seed: int = like(ClusterOptions, "seed")
    holdout: float = like(ClusterOptions, "holdout", default=0.5)
    destination: str = like(FitOptions, "destination")
    num_permutations: int = like(FitOptions, "num_permutations")
    null: str = like(FitOptions, "null")
    null_block: int = like(FitOptions, "null_block")
    stream: bool = option(
        False,
        "Keep no trace: two passes over the images, in memory that does not depend on their "
        "number.",
        panel="Running",
    )
    top_k: int = like(CircuitOptions, "top_k")
    rank: str = like(CircuitOptions, "rank")
    max_qvalue: float | None = like(CircuitOptions, "max_qvalue")
    bootstrap: int = like(
        BootstrapOptions,
        "resamples",
        default=0,
        help="Resamples of the images: which edges survive? 0 leaves it out.",
        flag="--bootstrap",
        least=0,
    )
    max_clusters: int = like(CausalOptions, "max_clusters")
    top_n: int = like(TargetCausalOptions, "top_n")
    intervene: bool = option(True, "Also edit edges in the live model.")
    labels: str | None = option(
        None,
        "Prompts, one a line, or a JSON object of folder to prompt; a model with a classifier "
        "head uses the head.",
    )
