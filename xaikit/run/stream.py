"""`run-all --stream`: clusters and fits of any number of images, with no trace on disk.

Two passes over the images. The first learns the clusters of every requested layer from a sample
of tokens; the second labels all tokens and adds up what a fit needs, logits being dropped layer
by layer as the forward pass goes on. Memory does not depend on the number of images, but for one
or two bytes a token for its label.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xaikit.artifacts.files import FORMAT_VERSION, fingerprint, read_tensors, write_tensors
from xaikit.distributed import World
from xaikit.errors import UsageError
from xaikit.images import SkippedImages
from xaikit.passes.plan import StreamOptions, make_plan, run_key
from xaikit.passes.sample import Learnt, learn
from xaikit.passes.sums import STAGE, StreamSums
from xaikit.progress import Progress, silent
from xaikit.run.assembly import Assembly, Streamed, gather

if TYPE_CHECKING:
    from xaikit.images import ImageSource
    from xaikit.passes.record import LayerPair
    from xaikit.towers import Tower


def stream(
    tower: Tower,
    source: ImageSource,
    pairs: Sequence[LayerPair],
    *,
    options: StreamOptions | None = None,
    scratch: str | Path | None = None,
    features_files: Mapping[int, str] | None = None,
    world: World | None = None,
    skipped: SkippedImages | None = None,
    progress: Progress = silent,
) -> list[Streamed]:
    """Cluster and fit several pairs of layers in two passes over the images.

    Parameters
    ----------
    tower : Tower
    source : ImageSource
    pairs : sequence of (int, int)
        FFN layer and attention layer of each.
    options : StreamOptions, optional
    scratch : path, optional
        Folder for checkpoints, removed at the end; a run that finds those of an interrupted one
        with the same options and number of processes goes on from them.
    features_files : mapping of int to str, optional
        By layer, the features file's name to record in the fit.
    world : World, optional
        The processes that share the work.
    skipped : SkippedImages, optional
        Receives the images that could not be used.

    Returns
    -------
    list of Streamed
        One for each pair; empty in all processes but the first.

    Raises
    ------
    UsageError
        Where an option is out of range.
    XaikitError
        Where no image is usable, or a logit is not finite.
    """
    options, world = options or StreamOptions(), world or World()
    skipped = SkippedImages() if skipped is None else skipped
    pairs = list(pairs)
    plan = make_plan(source, tower.info.tokens, options)
    key = run_key(tower, source, pairs, options)
    kept = _Kept(None if scratch is None else Path(scratch), key, options, world)
    learnt = kept.learnt()
    if learnt is None:
        # Its unusable images are met again in the second pass, which names them.
        unnamed = SkippedImages()
        learnt = learn(tower, source, pairs, plan, options, world, unnamed, progress)
        kept.keep_learnt(learnt)
    sums = StreamSums(tower, pairs, plan, learnt, options, world)
    kept.resume(sums, skipped)
    sums.run(source, skipped, progress, lambda: kept.keep(sums, skipped))
    sums.reduce(world)
    gathered = gather(sums, skipped, world)
    found = []
    if world.leads:
        assembly = Assembly(tower, source, plan, learnt, options, sums, gathered)
        files = features_files or {}
        found = [assembly.pair(pair, files.get(pair[0], "")) for pair in pairs]
    kept.forget()
    return found


class _Kept:
    """What an interrupted run leaves for the next one."""

    def __init__(self, folder: Path | None, key: str, options: StreamOptions, world: World) -> None:
        self.folder, self.key, self.world = folder, key, world
        # Passes are counted, so their size matters too.
        self._sums_key = fingerprint(key, options.blocks_a_pass)

    @property
    def _sums(self) -> Path:
        assert self.folder is not None
        return self.folder / f"sums-{self.world.rank}-of-{self.world.size}.safetensors"

    def learnt(self) -> Learnt | None:
        """The first pass's result, in every process or in none."""
        found: Learnt = {}
        if self.world.leads and self.folder is not None:
            with contextlib.suppress(UsageError):
                fields, tensors = read_tensors(self.folder / "clusters.safetensors", STAGE)
                found = tensors if fields.get("key") == self.key else {}
        return self.world.broadcast(found if self.world.leads else None) or None

    def keep_learnt(self, learnt: Learnt) -> None:
        if self.folder is not None and self.world.leads:
            fields = {"stage": STAGE, "format_version": FORMAT_VERSION, "key": self.key}
            write_tensors(self.folder / "clusters.safetensors", learnt, fields)

    def resume(self, sums: StreamSums, skipped: SkippedImages) -> None:
        if self.folder is not None:
            sums.resume(self._sums, self._sums_key, skipped)

    def keep(self, sums: StreamSums, skipped: SkippedImages) -> None:
        if self.folder is not None:
            sums.save(self._sums, self._sums_key, skipped)

    def forget(self) -> None:
        """Remove the checkpoints, once every process is done with them."""
        self.world.barrier()
        if self.folder is not None and self.world.leads:
            shutil.rmtree(self.folder, ignore_errors=True)
