"""Options of `run-all`."""

from __future__ import annotations

from dataclasses import dataclass, field

from xaikit.artifacts.trace_writer import Storage


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every stage, with the defaults of ``run-all``."""

    max_images: int | None = None
    batch_size: int = 32
    storage: Storage = field(default_factory=Storage)
    workers: int | None = None
    strict: bool = False
    num_clusters: int = 16
    sample_tokens: int = 20000
    seed: int = 0
    holdout: float = 0.5
    destination: str = "token"
    num_permutations: int = 200
    null: str = "auto"
    null_block: int = 0
    stream: bool = False
    top_k: int = 50
    rank: str = "weight"
    max_qvalue: float | None = None
    bootstrap: int = 0
    max_clusters: int = 16
    top_n: int = 20
    intervene: bool = True
    labels: str | None = None
