"""One trace of two processes: each one's shards, images and reasons, under one index."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace as Some

import pytest
import torch
from made_traces import blank_info, candidates_of, ids_of, made_tensors, write

from xaikit.artifacts.shared_trace import finish_together
from xaikit.artifacts.storage import Storage
from xaikit.artifacts.trace import Trace
from xaikit.artifacts.trace_writer import writing
from xaikit.errors import XaikitError

STORAGE = Storage(shard_images=2)


def written(folder, tensors, unusable):
    """Both parts of a trace, and how far each process came: the first one is told of the other."""
    images = len(tensors["h_l"])
    steps: list[str] = []
    parts: list[dict[str, torch.Tensor]] = []

    def gather(part):
        parts.insert(0, part)
        # The second process comes first here, and is told nothing.
        return parts if len(parts) == 2 else []

    with ExitStack() as stack:
        for rank in (1, 0):
            every = candidates_of(images)
            own = replace(every, own=every.part(rank, 2), total=images)
            prefix = f"part-{rank}-of-2-"
            opened = writing(folder, blank_info(), STORAGE, own, prefix=prefix)
            writer = stack.enter_context(opened)
            used = [i for i in own.own if i not in unusable]
            writer.skipped += [(i, "torn") for i in own.own if i in unusable]
            if used:
                writer.add(used, {name: tensor[used] for name, tensor in tensors.items()})
            barrier = lambda rank=rank: steps.append(  # noqa: E731
                f"{rank} {(folder / 'index.json').exists()}"
            )
            finish_together(writer, Some(size=2, gather=gather, barrier=barrier))
    return steps


def test_two_processes_write_the_trace_that_one_does(tmp_path):
    tensors, unusable = made_tensors(11), {1, 5, 6}
    steps = written(tmp_path / "two", tensors, unusable)
    # Nobody goes on before the index is there.
    assert steps == ["1 False", "0 True"]
    write(tmp_path / "one", tensors, storage=STORAGE, skipped=unusable)
    found, alone = Trace.load(tmp_path / "two"), Trace.load(tmp_path / "one")
    used = [i for i in range(11) if i not in unusable]
    assert found.images == alone.images == [ids_of(11)[i] for i in used]
    assert found.identity == alone.identity
    assert found.info.skipped_at == [1, 5, 6]
    assert found.info.skipped == [[ids_of(11)[i], "torn"] for i in (1, 5, 6)]
    assert torch.equal(found.h_l, tensors["h_l"][used])
    assert torch.equal(found.attn_logits_l1, alone.attn_logits_l1)


def test_a_part_without_a_usable_image_is_none_where_another_has_some(tmp_path):
    tensors = made_tensors(4)
    written(tmp_path, tensors, {0, 1})
    assert Trace.load(tmp_path).images == ids_of(4)[2:]


def test_no_usable_image_in_any_process_is_an_error(tmp_path):
    with pytest.raises(XaikitError, match="none of the images can be used"):
        written(tmp_path, made_tensors(4), set(range(4)))
    assert not (tmp_path / "index.json").exists()
