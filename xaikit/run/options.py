"""Options of `run-all`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from xaikit.artifacts.options import like, option
from xaikit.artifacts.storage import Storage
from xaikit.interventions.live_options import LiveOptions
from xaikit.stages.bootstrap import BootstrapOptions
from xaikit.stages.causal import CausalOptions
from xaikit.stages.circuit import CircuitOptions
from xaikit.stages.cluster import ClusterOptions
from xaikit.stages.fit import FitOptions
from xaikit.stages.target_causal import TargetCausalOptions
from xaikit.stages.trace import TraceOptions

Live = TypeVar("Live", bound=LiveOptions)


def gibibytes(text: str) -> int:
    """Read a number of GiB."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0.0 < found < 1e9:
        raise ValueError("a number of GiB above 0, such as 4 or 0.5")
    return int(found * 2**30)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Options that are chosen together; any of them that is given by hand wins."""

    method: str
    prefix: str
    rank: str
    destination: str
    holdout: float


RECIPES = {
    "evidence": Recipe(
        method="guided", prefix="own", rank="reach", destination="cluster", holdout=0.5
    ),
    "seed": Recipe(
        method="kmeans", prefix="mixed", rank="weight", destination="token", holdout=0.0
    ),
}
"""``evidence``: what the live model and the stability tests favour. ``seed``: the original
definitions."""


def _by_recipe(kind: Any, name: str) -> Any:
    """A stage's option that the recipe decides where it is not given."""
    stage = next(each for each in fields(kind) if each.name == name)
    known = stage.metadata["xaikit"].help.rstrip(".")
    return like(kind, name, default=None, help=f"{known}; default: the recipe's.")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every stage, with the defaults of ``run-all``.

    Attributes
    ----------
    memory : int, optional
        Bytes that passes may use beside the model; by default a share of what there is.
    """

    max_images: int | None = like(TraceOptions, "max_images")
    batch_size: int = like(TraceOptions, "batch_size")
    storage: Storage = Storage(store_qk=True)
    workers: int | None = like(TraceOptions, "workers")
    strict: bool = like(TraceOptions, "strict")
    num_clusters: int | None = like(ClusterOptions, "num_clusters")
    sample_tokens: int = like(ClusterOptions, "sample_tokens")
    recipe: str = option(
        "evidence",
        "What decides clusters, ranking, destination and holdout where they are not given: "
        "evidence (guided, own, reach, cluster, .5) or seed (kmeans, mixed, weight, token, 0).",
        choices=tuple(RECIPES),
    )
    method: str | None = _by_recipe(ClusterOptions, "method")
    prefix: str | None = _by_recipe(ClusterOptions, "prefix")
    seed: int = like(ClusterOptions, "seed")
    holdout: float | None = _by_recipe(ClusterOptions, "holdout")
    destination: str | None = _by_recipe(FitOptions, "destination")
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
    rank: str | None = _by_recipe(CircuitOptions, "rank")
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
    objective: str = like(LiveOptions, "objective")
    toward: str | None = like(LiveOptions, "toward")
    against: str | None = like(LiveOptions, "against")
    group: str | None = option(
        None,
        "A circuit for each group of images beside the common one: `folder`, or a CSV or JSON file "
        "of image or folder and its group.",
        metavar="folder|FILE",
    )
    memory: int | None = option(
        None,
        "GiB that passes may use beside the model; default: half of what is free.",
        panel="Running",
        idle=True,
        parse=gibibytes,
        metavar="GIB",
    )
    labels: str | None = option(
        None,
        "Prompts, one a line, or a JSON object of folder to prompt; a model with a classifier "
        "head uses the head.",
    )

    def check(self) -> None:
        """Refuse what names no direction."""
        self.live().check()

    def settled(self) -> Options:
        """The options with what was not given filled in by the recipe."""
        chosen = vars(RECIPES[self.recipe])
        return replace(self, **{k: v for k, v in chosen.items() if getattr(self, k) is None})

    def cluster(self) -> ClusterOptions:
        """Options of `xaikit.cluster`."""
        return ClusterOptions(
            **self._of("num_clusters", "sample_tokens", "seed", "holdout", "method", "prefix")
        )

    def fit(self) -> FitOptions:
        """Options of `xaikit.fit`."""
        names = ("destination", "num_permutations", "null", "null_block", "seed")
        return FitOptions(**self._of(*names))

    def circuit(self) -> CircuitOptions:
        """Options of `xaikit.circuit`."""
        return CircuitOptions(**self._of("top_k", "rank", "max_qvalue"))

    def causal(self) -> CausalOptions:
        """Options of `xaikit.causal`."""
        return CausalOptions(**self._of("max_clusters", "num_permutations", "seed"))

    def target_causal(self) -> TargetCausalOptions:
        """Options of `xaikit.target_causal`."""
        return TargetCausalOptions(**self._of("top_n", "num_permutations", "seed"))

    def live(self) -> LiveOptions:
        """Options of what runs the model on edited attention."""
        return self.live_as(LiveOptions)

    def live_as(self, kind: type[Live], **more: Any) -> Live:
        """The same as the record of a stage that has `more` options."""
        names = ("objective", "toward", "against", "batch_size", "workers", "seed")
        return kind(**self._of(*names), **more)

    def _of(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}
