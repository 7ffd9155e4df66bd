"""One trace written by several processes: each writes shards, the first writes the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import torch

from xaikit.artifacts.trace_shards import write_index
from xaikit.artifacts.trace_writer import TraceWriter
from xaikit.errors import XaikitError

if TYPE_CHECKING:
    from xaikit.distributed import World


def finish_together(writer: TraceWriter, world: World) -> None:
    """Finish every process's part of a trace; the index comes last.

    Raises
    ------
    XaikitError
        Where no process had a usable image.
    """
    if world.size == 1:
        writer.finish()
        return
    shards = writer.finish_shards()
    own = {"used": writer.used, "skipped": writer.skipped, "shards": shards}
    data = torch.frombuffer(bytearray(orjson.dumps(own)), dtype=torch.uint8)
    found = world.gather({"part": data})
    if found:
        parts = [orjson.loads(each["part"].numpy().tobytes()) for each in found]
        writer.used = [i for part in parts for i in part["used"]]
        writer.skipped = [(at, reason) for part in parts for at, reason in part["skipped"]]
        if not writer.used:
            raise XaikitError("none of the images can be used")
        shards = [shard for part in parts for shard in part["shards"]]
        write_index(writer.path, writer.finished_info(), shards)
    world.barrier()
