"""`export`: the tables of a run for other tools."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xaikit.artifacts.file_names import CAUSAL, CIRCUIT, FEATURES, FIT, INTERVENE, TARGET_CAUSAL
from xaikit.artifacts.replacing import replacing
from xaikit.artifacts.results import Causal, Circuit, Intervention, TargetCausal
from xaikit.artifacts.run_record import fits_of, read_beside, read_together, run_folders
from xaikit.artifacts.tables import Columns, tables
from xaikit.artifacts.tensors import Features, Fit
from xaikit.errors import UsageError, XaikitError

FILES: dict[str, Any] = {
    FEATURES: Features,
    FIT: Fit,
    CIRCUIT: Circuit,
    CAUSAL: Causal,
    TARGET_CAUSAL: TargetCausal,
    INTERVENE: Intervention,
}
"""What a run folder may hold, and how it is read."""

NAMES = {
    (FEATURES, "clusters"): "clusters",
    (CAUSAL, "effects"): "cluster_effects",
    (TARGET_CAUSAL, "effects"): "edge_effects",
    (INTERVENE, "effects"): "live_effects",
    (INTERVENE, "clusters"): "live_cluster_effects",
}
"""Tables whose name alone would not say whose they are."""


def export_run(folder: str | Path) -> dict[str, Columns]:
    """Every table of a run, the layers of one below the other.

    Parameters
    ----------
    folder : path
        What `run_all` wrote, for one layer or for several.

    Returns
    -------
    dict of str to columns
        ``clusters``, ``edges`` (all that were fitted), ``circuit``, ``cluster_effects``,
        ``edge_effects``, ``live_effects``, ``curves``, ``random``, …; tables without rows are
        left out. Every row says its ``layer`` and ``next_layer``; what a run of several layers says
        of all of them together is in tables named ``model_…``.

    Raises
    ------
    UsageError
        Where the folder holds no run.
    """
    root = Path(folder)
    found: dict[str, list[Columns]] = {}
    layers = run_folders(root)
    own = fits_of(layers or [root])
    fits = list(own.values())
    for place in [root, *layers]:
        together = bool(layers) and place is root
        prefix = "model_" if together else ""
        for name, kind in FILES.items():
            path = place / name
            if together:
                made = read_together(kind.load, path, fits)
            else:
                made = read_beside(kind.load, path, own.get(place))
            if made is None:
                continue
            for table, columns in tables(made).items():
                title = prefix + NAMES.get((name, table), table)
                found.setdefault(title, []).append(columns)
    if not found:
        raise UsageError(f"{root} holds no run; expected a folder that `xaikit run-all` wrote")
    joined = {name: _joined(parts) for name, parts in found.items()}
    return {name: columns for name, columns in joined.items() if _length(columns)}


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values()), []))


def _joined(parts: list[Columns]) -> Columns:
    """Tables one below the other; a column that one lacks is None there."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    return {name: _stacked([(part.get(name), _length(part)) for part in parts]) for name in names}


def _stacked(parts: list[tuple[Any, int]]) -> Any:
    """One column of several tables; arrays stay arrays."""
    if all(isinstance(values, np.ndarray) for values, _ in parts):
        return np.concatenate([values for values, _ in parts])
    return [
        value
        for values, count in parts
        for value in ([None] * count if values is None else list(values))
    ]


def write_parquet(found: Mapping[str, Columns], folder: str | Path) -> list[Path]:
    """Write each table as ``<name>.parquet``.

    Raises
    ------
    XaikitError
        Where pyarrow is not installed.
    """
    try:
        # An extra: most users never need it.
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise XaikitError("Parquet needs pyarrow: pip install 'xaikit[parquet]'") from None
    written = []
    for name, columns in found.items():
        with replacing(Path(folder) / f"{name}.parquet") as path:
            parquet.write_table(pyarrow.table(columns), path)
        written.append(Path(folder) / f"{name}.parquet")
    return written


def write_csv(found: Mapping[str, Columns], folder: str | Path) -> list[Path]:
    """Write each table as ``<name>.csv``; what is not known is an empty cell."""
    written = []
    for name, columns in found.items():
        with (
            replacing(Path(folder) / f"{name}.csv") as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        written.append(Path(folder) / f"{name}.csv")
    return written
