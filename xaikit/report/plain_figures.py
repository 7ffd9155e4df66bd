"""Pictures drawn with matplotlib's own defaults, whatever the user's settings are."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.file_names import MAKER
from xaikit.artifacts.replacing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Dates would make two files of the same content differ. A run knows its pictures by their maker.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": MAKER},
    "svg": {"Creator": MAKER, "Date": None},
    "pdf": {"Creator": MAKER, "CreationDate": None},
}
_SALT = "xaikit"
MORE, LESS = "#0a5ea8", "#be5408"
"""Blue for more than average and orange for less, as on the page."""


@contextlib.contextmanager
def plain_figures() -> Iterator[None]:
    """Draw with matplotlib's defaults; text is text, dollar signs and all.

    Settings in a matplotlibrc and a backend from a notebook are for what people draw themselves.
    Also a decorator.
    """
    _import_matplotlib()
    # Imported by now, in an environment of our own.
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"text.parse_math": False, "svg.hashsalt": _SALT})
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches that no window belongs to."""
    # Slow to import, and `plain_figures` has to be first.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, kind: str, dpi: int) -> None:
    """Write a figure as ``png``, ``svg`` or ``pdf``; equal figures give equal bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi, metadata=_METADATA[kind])


def save_as(figure: Figure, out: str | Path, dpi: int) -> Path:
    """Write a figure as its name ends: ``.png``, ``.pdf`` or ``.svg``; PNG otherwise."""
    path = Path(out)
    kind = path.suffix.lstrip(".").lower()
    save(figure, path, kind if kind in ("pdf", "svg") else "png", dpi)
    return path


def _import_matplotlib() -> None:
    """Import it without the settings of the environment, which can make the import fail."""
    if "matplotlib" in sys.modules:
        return
    own = {name: os.environ.pop(name, None) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
    try:
        os.environ["MATPLOTLIBRC"] = os.devnull
        # Slow to import, which is for those who draw.
        import matplotlib
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update({name: value for name, value in own.items() if value is not None})
    # What the user draws in the same process later is drawn as the user wants it.
    log = logging.getLogger("matplotlib")
    before, log.disabled = log.disabled, True
    with contextlib.suppress(Exception):
        matplotlib.rc_file(matplotlib.matplotlib_fname())
    log.disabled = before
    with contextlib.suppress(Exception):
        matplotlib.rcParams["backend"] = own["MPLBACKEND"] or matplotlib.rcParams["backend"]
