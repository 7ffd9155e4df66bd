"""What a run will need, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xaikit.report.summaries import table

_GIB = 2**30


def forecast_lines(found: Mapping[str, Any]) -> list[Any]:
    """Lines of `xaikit run-all --plan`; `found` is what `Forecast.to_dict` gives."""
    rows = [
        [
            each["what"],
            f"{each['images']:,}",
            f"{each['forward']:,.1f}",
            f"{each['backward']:,.1f}" if each["backward"] else "",
        ]
        for each in found["passes"]
    ]
    return [
        f"{found['images']:,} images, {_pairs(found['pairs'])}",
        table("passes", ["pass", "images", "forward an image", "backward an image"], rows),
        f"memory beside the model: {_bytes(found['memory'])} of {_bytes(found['memory_budget'])} "
        "(--memory)",
        f"disk: {_bytes(found['disk'])}",
        f"{found['forward_passes']:,.0f} forward and {found['backward_passes']:,.0f} backward "
        f"passes of an image: about {_duration(found['seconds'])} of running the model here",
    ]


def _pairs(count: int) -> str:
    return f"{count} pair{'s' * (count != 1)} of layers"


def _bytes(size: float) -> str:
    if size < _GIB:
        return f"{size / 2**20:,.0f} MiB"
    return f"{size / _GIB:,.1f} GiB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
