"""`baselines`: what clusters explain, beside what explains as much without them.

Like `run_all`, it runs other stages: the random-weights control is the whole pipeline again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.options import option, resolve
from xaikit.artifacts.preprocess import Preprocess
from xaikit.artifacts.records import file_of
from xaikit.artifacts.studies import Baselines
from xaikit.artifacts.tensors import Features
from xaikit.artifacts.trace import Trace
from xaikit.errors import UsageError
from xaikit.progress import Progress, silent
from xaikit.stages.cluster import ClusterOptions, cluster
from xaikit.stages.trace import trace_layers
from xaikit.statistics.controls import (
    DESTINATIONS,
    Part,
    control_scores,
    image_part,
    label_scores,
)

if TYPE_CHECKING:
    from xaikit.images import ImageSource
    from xaikit.towers import Tower


HELD_OUT = ClusterOptions(holdout=0.5)
"""Half of the images are kept back, unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class BaselinesOptions:
    """How controls are drawn.

    Attributes
    ----------
    draws : int
        Of labels shuffled over images.
    """

    draws: int = option(20, "Shuffles of the labels.", panel="Statistics", least=1)
    seed: int = option(0, "Of everything random.", panel="Running", least=0)


def baselines(
    trace: Trace,
    features: Features,
    options: BaselinesOptions | None = None,
    *,
    random: tuple[Trace, Features] | None = None,
    progress: Progress = silent,
    **given: Any,
) -> Baselines:
    """Score predictions of the logits, learnt on the discovery and tested on held-out images.

    Parameters
    ----------
    trace : Trace
    features : Features
        Clusters of that trace.
    options : BaselinesOptions, optional
    random : (Trace, Features), optional
        Of `random_weights`: the control of an untrained model.
    **given
        Fields of `BaselinesOptions`, in place of or beside the record.

    Returns
    -------
    Baselines
        Rows ``mean``, ``position``, ``position + clusters``, ``position + shuffled clusters``,
        ``position + position clusters``, ``clusters``, ``position clusters``, and with `random`
        ``random weights: position`` and ``random weights: position + clusters`` (of the random
        model's own logits).
    """
    o = resolve(BaselinesOptions, options, given)
    parts = _parts(trace, features)
    found = _scores(*parts, features.num_clusters)
    controls = control_scores(
        *parts,
        features.num_clusters,
        DESTINATIONS,
        prefix=trace.info.prefix_tokens,
        grid=trace.info.grid,
        draws=o.draws,
        seed=o.seed,
    )
    progress("models scored", 1, 1 + (random is not None))
    rows = _rows(found, controls)
    if random is not None:
        rows += _random_rows(*random)
        progress("models scored", 2, 2)
    return Baselines(
        provenance=features.provenance.child(
            {"draws": o.draws, "seed": o.seed, "random_weights": random is not None},
            features=features.identity,
        ),
        trace_file=file_of(trace),
        num_clusters=features.num_clusters,
        holdout=float(features.provenance.options.get("holdout", 0.0)),
        draws=o.draws,
        seed=o.seed,
        num_images=len(features.discovery),
        num_test_images=len(features.test_images),
        rows=rows,
    ).identify()


def random_weights(
    tower: Tower,
    source: ImageSource,
    trace: Trace,
    features: Features,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    progress: Progress = silent,
) -> tuple[Trace, Features]:
    """Trace and cluster the same images with an untrained tower, options as they were.

    Parameters
    ----------
    tower : Tower
        The same architecture with random weights; it is given the trace's preprocessing.
    source : ImageSource
        The images behind `trace`.

    Raises
    ------
    UsageError
        Where the images are not those of the trace.
    """
    recorded: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in trace.info.preprocess.items()
    }
    tower.preprocess = Preprocess(**recorded)
    own = trace_layers(
        tower,
        source,
        [(trace.layer, trace.next_layer)],
        max_images=len(trace),
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )[0]
    if own.images != trace.images:
        raise UsageError(
            "`control=random-weights`: the images are not those of the trace; pass the same ones"
        )
    names = {each.name for each in fields(ClusterOptions)}
    options = {name: o for name, o in features.provenance.options.items() if name in names}
    return own, cluster(own, **options, progress=progress)


def random_added(random: tuple[Trace, Features], destination: str) -> dict[str, float]:
    """`Fit.controls` of an untrained model: what its clusters add to its own position mean."""
    scores = _scores(*_parts(*random), random[1].num_clusters)[destination]
    return {"random_weights_added": scores["added"], "random_weights_r2": scores["r2"]}


def _parts(trace: Trace, features: Features) -> tuple[Part, Part]:
    """Discovery and test images; one and the same without a holdout."""
    train, test = (
        image_part(trace, features.labels, images) if images else None
        for images in (features.discovery, features.heldout)
    )
    assert train is not None
    return train, test or train


def _scores(train: Part, test: Part, clusters: int) -> dict[str, dict[str, float]]:
    maps = [(train.labels, test.labels)]
    found = label_scores(train, test, maps, [clusters], DESTINATIONS)
    return {name: scores[0] for name, scores in found.items()}


def _rows(
    found: dict[str, dict[str, float]], controls: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """What each prediction explains, of both destinations, from scores and `control_scores`."""
    shared = found["token"]
    rows = [
        _row("mean", None, shared["r2_mean"]),
        _row("position", None, shared["r2_position"]),
    ]
    for name in DESTINATIONS:
        own, other = found[name], controls[name]
        base, places = own["r2_position"], other["position_added"]
        shuffled, sd = other["shuffled_added"], other["shuffled_added_sd"]
        rows += [
            _row("position + clusters", name, own["r2_position_cluster"], own["added"]),
            _row("position + shuffled clusters", name, base + shuffled, shuffled, sd),
            _row("position + position clusters", name, base + places, places),
            _row("clusters", name, own["r2"]),
            _row("position clusters", name, other["position_r2"]),
        ]
    return rows


def _random_rows(trace: Trace, features: Features) -> list[dict[str, Any]]:
    found = _scores(*_parts(trace, features), features.num_clusters)
    rows = [_row("random weights: position", None, found["token"]["r2_position"])]
    for name in DESTINATIONS:
        own = found[name]
        total, added = own["r2_position_cluster"], own["added"]
        rows.append(_row("random weights: position + clusters", name, total, added))
    return rows


def _row(
    prediction: str,
    destination: str | None,
    r2: float,
    added: float | None = None,
    sd: float | None = None,
) -> dict[str, Any]:
    return {
        "prediction": prediction,
        "destination": destination,
        "r2": r2,
        "added": added,
        "added_sd": sd,
    }
