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
    memory, room = found["memory"] / _GIB, found["memory_budget"] / _GIB
    return [
        f"{found['images']:,} images, {found['pairs']} pairs of layers",
        table("passes", ["pass", "images", "forward an image", "backward an image"], rows),
        f"memory beside the model: {memory:,.2f} GiB of {room:,.1f} GiB (--memory)",
        f"disk: {found['disk'] / _GIB:,.2f} GiB",
        f"{found['forward_passes']:,.0f} forward and {found['backward_passes']:,.0f} backward "
        f"passes of an image: about {_duration(found['seconds'])} of running the model here",
    ]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
