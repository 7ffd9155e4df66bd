"""One trace written by several processes: each writes shards, the first writes the index."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.trace_writer import TraceWriter, write_index
from xaikit.errors import XaikitError

if TYPE_CHECKING:
    from xaikit.artifacts.trace import TraceInfo
    from xaikit.distributed import World


def finish_together(writer: TraceWriter, world: World) -> None:
    """Finish every process's part of a trace; the index comes last.

    Raises
    ------
    XaikitError
        Where no process had a usable image.
    """
    import torch

    if world.size == 1:
        writer.finish()
        return
    shards = writer.finish_shards()
    info = writer.finished_info()
    own = {
        "images": info.images,
        "groups": info.groups,
        "skipped": info.skipped,
        "skipped_count": info.skipped_count,
        "shards": shards,
    }
    data = torch.frombuffer(bytearray(orjson.dumps(own)), dtype=torch.uint8)
    found = world.gather({"part": data})
    if found:
        parts = [orjson.loads(each["part"].numpy().tobytes()) for each in found]
        whole = _joined(info, parts)
        if not whole.images:
            raise XaikitError("none of the images can be used")
        write_index(writer.path, whole, [shard for part in parts for shard in part["shards"]])
    world.barrier()


def _joined(info: TraceInfo, parts: list[dict[str, Any]]) -> TraceInfo:
    images = [name for part in parts for name in part["images"]]
    origin = replace(info.provenance.origin, images_fingerprint=fingerprint(images))
    groups = [name for part in parts for name in part["groups"] or []]
    return replace(
        info,
        provenance=replace(info.provenance, origin=origin),
        images=images,
        groups=groups or None,
        skipped=[item for part in parts for item in part["skipped"]][:1000],
        skipped_count=sum(part["skipped_count"] for part in parts),
    )
