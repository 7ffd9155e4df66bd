"""Traces in shards as one: whose shards they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from made_traces import made_tensors, write

from xaikit.artifacts.digests import DamagedError
from xaikit.artifacts.storage import Storage
from xaikit.artifacts.trace import Trace


def test_a_shard_of_another_recording_of_the_same_images_is_refused(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for seed, folder in enumerate(folders):
        write(folder, made_tensors(4, seed), storage=Storage(shard_images=2))
        assert len(Trace.load(folder)) == 4
    shutil.copy(folders[1] / "shard-00001.safetensors", folders[0])
    with pytest.raises(DamagedError, match=r"shard-00001\.safetensors does not belong to"):
        Trace.load(folders[0])
