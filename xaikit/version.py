"""The version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def xaikit_version() -> str:
    """The installed version, or ``unknown`` in a bare source tree."""
    try:
        return version("xaikit")
    except PackageNotFoundError:
        return "unknown"
