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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xaikit.artifacts.files import FORMAT_VERSION, fingerprint, read_tensors, write_tensors
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace_writer import Storage
from xaikit.distributed import World
from xaikit.errors import UsageError, XaikitError
from xaikit.images import Skipped, SkippedImages
from xaikit.progress import Progress, silent
from xaikit.stages.fit import FitPart, assemble
from xaikit.stages.stream_learn import Learnt, learn
from xaikit.stages.stream_plan import Plan, StreamOptions, make_plan, run_key
from xaikit.stages.stream_sums import STAGE, StreamSums
from xaikit.stages.trace import blank_info, trace_options

if TYPE_CHECKING:
    from xaikit.artifacts.trace import TraceInfo
    from xaikit.images import ImageSource
    from xaikit.stages.trace import LayerPair
    from xaikit.statistics.streaming import BlockSums
    from xaikit.towers import Tower


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """One pair of layers' results.

    Attributes
    ----------
    info : TraceInfo
        What a trace of the same images would say of itself.
    features : Features
    fit : Fit
        Without controls, which need the logits again.
    """

    info: TraceInfo
    features: Features
    fit: Fit


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
    gathered = _gathered(sums, skipped, world)
    found = []
    if world.leads:
        assembly = _Assembly(tower, source, plan, learnt, options, sums, gathered)
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


@dataclass(frozen=True, kw_only=True)
class _Gathered:
    """What all processes read, on rank 0."""

    order: np.ndarray
    labels: dict[int, np.ndarray]
    skipped: list[Skipped]


def _gathered(sums: StreamSums, skipped: SkippedImages, world: World) -> _Gathered:
    """Collect labels, put them into the images' order, and add up what was skipped."""
    import orjson

    mine = orjson.dumps([[item.id, item.reason] for item in skipped])
    parts = world.gather(
        {
            "order": torch.from_numpy(sums.order),
            "skipped": torch.frombuffer(bytearray(mine), dtype=torch.uint8),
        }
    )
    place = np.argsort(np.concatenate([part["order"].numpy() for part in parts])) if parts else None
    labels = {}
    for layer, _ in sums.pairs:
        found = world.gather({"labels": torch.from_numpy(sums.labels(layer))})
        if place is not None:
            labels[layer] = np.concatenate([part["labels"].numpy() for part in found])[place]
    if place is None:
        return _Gathered(order=np.empty(0, np.int64), labels={}, skipped=[])
    said = [orjson.loads(part["skipped"].numpy().tobytes()) for part in parts]
    every = [Skipped(*item) for items in said for item in items]
    own = len(skipped)
    skipped.records.extend(every[own:])
    order = np.concatenate([part["order"].numpy() for part in parts])[place]
    return _Gathered(order=order, labels=labels, skipped=every)


@dataclass(frozen=True)
class _Assembly:
    """Artefacts from sums."""

    tower: Tower
    source: ImageSource
    plan: Plan
    learnt: Learnt
    options: StreamOptions
    sums: StreamSums
    gathered: _Gathered

    def pair(self, pair: LayerPair, features_file: str) -> Streamed:
        info = self._info(pair)
        features = self._features(pair[0], info)
        return Streamed(
            info=info, features=features, fit=self._fit(pair[0], info, features, features_file)
        )

    def _info(self, pair: LayerPair) -> TraceInfo:
        used, skipped = self.gathered.order.tolist(), self.gathered.skipped
        if not used:
            first = f"; the first is {skipped[0].id}: {skipped[0].reason}" if skipped else ""
            raise XaikitError(f"none of the {self.plan.images} images can be used{first}")
        recorded = trace_options(
            self.source, self.options.max_images, self.tower.precision, Storage()
        )
        blank = blank_info(self.tower, self.source, pair, recorded)
        ids, groups = [self.source.ids[i] for i in used], self.source.groups
        origin = replace(blank.provenance.origin, images_fingerprint=fingerprint(ids))
        return replace(
            blank,
            provenance=replace(blank.provenance, origin=origin),
            images=ids,
            groups=[groups[i] for i in used] if groups else None,
            skipped=[[item.id, item.reason] for item in skipped[:1000]],
            skipped_count=len(skipped),
        )

    def _features(self, layer: int, info: TraceInfo) -> Features:
        o, learnt = self.options, self.learnt
        place = {int(image): at for at, image in enumerate(self.gathered.order)}
        split = {
            name: [place[i] for i in images if i in place]
            for name, images in self.plan.parts.items()
        }
        labels = torch.from_numpy(self.gathered.labels[layer].astype(np.int64))
        centroids = learnt[f"{layer}/centroids"]
        made = {
            "num_clusters": o.num_clusters,
            "sample_tokens": o.sample_tokens,
            "seed": o.seed,
            "holdout": o.holdout,
        }
        return Features(
            provenance=info.provenance.child({**made, "stream": True}, trace=info.identity),
            trace_file="",
            num_clusters=o.num_clusters,
            labels=labels,
            centroids=centroids,
            cluster_sizes=torch.bincount(labels.reshape(-1), minlength=o.num_clusters),
            cluster_activation_rates=centroids.mean(1),
            inertia=float(learnt[f"{layer}/inertia"]),
            distinct_points=int(learnt[f"{layer}/distinct"]),
            discovery=split["discovery"],
            heldout=split["heldout"],
        ).identify()

    def _fit(self, layer: int, info: TraceInfo, features: Features, features_file: str) -> Fit:
        o = self.options
        made: dict[str, Any] = {
            "destination": o.destination,
            "num_permutations": o.num_permutations,
            "null": o.null,
            "null_block": o.block,
            "seed": o.seed,
            "stream": True,
        }
        # A part all of whose images are unusable is as good as not there.
        parts = {
            name: _part(self.sums.sums[layer, name])
            for name in ("discovery", "heldout")
            if getattr(features, name)
        }
        if "discovery" not in parts:
            raise XaikitError("none of the discovery images can be used; pass more images")
        norms = self.sums.norms[layer].cpu() / len(info.images)
        return assemble(
            features,
            info,
            train=parts["discovery"],
            test=parts.get("heldout", parts["discovery"]),
            options=made,
            controls={},
            token_norms=norms.float(),
            trace_file="",
            features_file=features_file,
        )


def _part(found: BlockSums) -> FitPart:
    sums = found.sums()
    null = found.null(sums)
    return FitPart(sums=sums, null=null, pair_share=found.pair_share, draw_images=null.draw_images)
