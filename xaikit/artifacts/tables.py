"""The records of artefacts as tables: plain columns, for pandas, Parquet and CSV alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from xaikit.errors import UsageError, XaikitError

if TYPE_CHECKING:
    import pandas

Columns = dict[str, Any]
"""Name to values: lists or arrays, all of one length."""

_PLACE = ("layer", "next_layer")


def tables(artifact: Any) -> dict[str, Columns]:
    """The tables of an artefact by name; the first is what it is about.

    A circuit has ``circuit`` (its edges); a fit ``edges`` (every edge that was fitted); features
    ``clusters``; the effects of clusters and of edges ``effects``; an intervention also
    ``curves`` and ``random`` (one row a point), and so has one image's explanation; circuits of
    groups ``groups`` (one row a figure) and ``paths``; a study ``rows``.
    """
    build = _BUILD.get(getattr(artifact, "STAGE", ""))
    if build is None:
        raise UsageError(f"{type(artifact).__name__} has no records to make a table of")
    place = {name: getattr(artifact, name) for name in _PLACE}
    found = build(artifact)
    return {name: _placed(columns, place) for name, columns in found.items()}


def to_pandas(artifact: Any, table: str | None = None) -> pandas.DataFrame:
    """One table of an artefact as a data frame, by default the first.

    Raises
    ------
    XaikitError
        Where pandas is not installed.
    UsageError
        Where there is no such table.
    """
    try:
        # An extra: most users never need it.
        import pandas
    except ImportError:
        raise XaikitError(
            "tables as data frames need pandas: pip install 'xaikit[pandas]'"
        ) from None
    found = tables(artifact)
    name = next(iter(found)) if table is None else table
    if name not in found:
        raise UsageError(f"no table {name}: expected one of {', '.join(found)}")
    return pandas.DataFrame(found[name])


def columns_of(records: Iterable[Mapping[str, Any]]) -> Columns:
    """Columns of records; a record without a field has None there."""
    rows = list(records)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _placed(columns: Columns, place: dict[str, int]) -> Columns:
    """Put the layers first: those of the records, or where these say none, the artefact's."""
    count = len(next(iter(columns.values()), []))
    own = {
        name: [value if each is None else each for each in columns.get(name, [None] * count)]
        for name, value in place.items()
    }
    return {**own, **{name: values for name, values in columns.items() if name not in own}}


def _circuit(found: Any) -> dict[str, Columns]:
    return {"circuit": columns_of(asdict(edge) for edge in found.paths)}


def _effects(found: Any) -> dict[str, Columns]:
    return {"effects": columns_of(asdict(effect) for effect in found.effects)}


def _intervene(found: Any) -> dict[str, Columns]:
    return {
        **_effects(found),
        "curves": columns_of(_points(found.curves)),
        "random": columns_of(_points(found.random)),
        "clusters": columns_of(found.clusters),
    }


def _explain(found: Any) -> dict[str, Columns]:
    return {
        "edges": columns_of(asdict(edge) for edge in found.edges),
        "common_edges": columns_of(asdict(edge) for edge in found.common_edges),
        **_effects(found),
        "curves": columns_of(_points(found.curves)),
        "random": columns_of(_points(found.random)),
    }


def _groups(found: Any) -> dict[str, Columns]:
    whole = ("name", "images", "test_images", "full_effect")
    return {
        "groups": columns_of(
            {**{name: group[name] for name in whole}, **figure}
            for group in found.groups
            for figure in group["figures"]
        ),
        "paths": columns_of(
            {"name": group["name"], **path} for group in found.groups for path in group["paths"]
        ),
    }


def _points(curves: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """One record a point of each curve; what is one number a curve stands in each."""
    for curve in curves:
        length = len(curve["shares"])
        lists = {k: v for k, v in curve.items() if isinstance(v, list) and len(v) == length}
        whole = {k: v for k, v in curve.items() if not isinstance(v, list | dict)}
        for at in range(length):
            points = {_SINGULAR.get(name, name): values[at] for name, values in lists.items()}
            yield {**whole, **points}


_SINGULAR = {"shares": "share", "effects": "effect", "fractions": "fraction"}


def _rows(found: Any) -> dict[str, Columns]:
    return {"rows": columns_of(map(_flat, found.rows))}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose inner records become columns of their own."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= {f"{name}_{inner}": each for inner, each in value.items()}
        else:
            found[name] = value
    return found


def _features(found: Any) -> dict[str, Columns]:
    return {
        "clusters": {
            "cluster_id": np.arange(found.num_clusters),
            "size": found.cluster_sizes.numpy(),
            "activation_rate": found.cluster_activation_rates.numpy(),
        }
    }


def _fit(found: Any) -> dict[str, Columns]:
    space = found.space
    cluster, head, end = (part.ravel() for part in np.indices(space.shape))
    columns: Columns = {"cluster_id": cluster, "head": head}
    columns["dst_cluster" if space.to_clusters else "dst_token"] = end
    support = found.support[:, None, :].expand(found.prototypes.shape)
    for name, values in {
        "weight": found.prototypes,
        "support": support,
        "contrast": found.contrast,
        "energy": found.energy,
        "zscore": found.edge_zscores,
        "pvalue": found.edge_pvalues,
        "qvalue": found.edge_qvalues,
        "testable": ~found.untestable,
    }.items():
        columns[name] = values.reshape(-1).numpy()
    return {"edges": columns}


_BUILD = {
    "cluster": _features,
    "fit": _fit,
    "circuit": _circuit,
    "causal": _effects,
    "target-causal": _effects,
    "intervene": _intervene,
    "explain": _explain,
    "groups": _groups,
    "baselines": _rows,
    "stability": _rows,
    "choose-clusters": _rows,
}
