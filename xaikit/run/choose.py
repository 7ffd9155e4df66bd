"""`run-all --num-clusters auto`: a small trace in memory, whether the run keeps one or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from xaikit.artifacts.file_names import NUM_CLUSTERS
from xaikit.artifacts.options import deciding
from xaikit.artifacts.studies import ClusterSweep
from xaikit.interventions import spread_evenly
from xaikit.passes.feed import LayerPair
from xaikit.progress import named
from xaikit.run.reuse import Folder, Request
from xaikit.run.stream import candidate_parts
from xaikit.stages import choose
from xaikit.stages.trace import trace_layers

if TYPE_CHECKING:
    from PIL import Image

    from xaikit.images import ImageSource
    from xaikit.run.subject import Subject


class Part:
    """Some images of a source.

    Parameters
    ----------
    source : ImageSource
    images : sequence of int
        Positions in the source, ascending.
    """

    def __init__(self, source: ImageSource, images: Sequence[int]) -> None:
        self._source, self._images = source, list(images)
        self.ids = [source.ids[image] for image in self._images]
        groups = source.groups
        self.groups = None if groups is None else [groups[image] for image in self._images]

    def __len__(self) -> int:
        return len(self._images)

    def load(self, i: int) -> Image.Image:
        """Decode image `i` of the part."""
        return self._source.load(self._images[i])

    def digest(self, i: int) -> str:
        """Digest of image `i` of the part."""
        return self._source.digest(self._images[i])

    def describe(self) -> dict[str, Any]:
        """What the images are some of."""
        return {"kind": "part", "of": self._source.describe(), "count": len(self)}


def choose_number(subject: Subject, pairs: Sequence[LayerPair], root: Path, force: bool) -> None:
    """Put the number of clusters into the subject's options where it is to be found.

    One number for all pairs, the same in every process, by the sweep in ``num_clusters.json``.
    """
    o = subject.options
    if o.num_clusters is not None:
        return
    found: dict[str, Any] | None = None
    if subject.world.leads:
        sweep = _swept(subject, pairs, Folder(root, force))
        found = {"clusters": torch.tensor(sweep.num_clusters)}
    chosen = int(subject.world.broadcast(found)["clusters"])
    subject.options = replace(o, num_clusters=chosen)


def _swept(subject: Subject, pairs: Sequence[LayerPair], folder: Folder) -> ClusterSweep:
    o = subject.options
    destination = o.fit().destination
    request = Request(
        stage="choose-clusters",
        revision=choose.REVISION,
        inputs={f"trace_{pair[0]}": subject.request(pair).key() for pair in pairs},
        options={**deciding(o.cluster()), "destination": destination},
    )

    def build() -> ClusterSweep:
        images = spread_evenly(candidate_parts(subject)["discovery"], choose.IMAGES)
        source = Part(subject.source, images)
        progress = named(subject.progress, "number of clusters")
        traces = (
            trace_layers(
                subject.tower,
                source,
                [pair],
                batch_size=o.batch_size,
                workers=o.workers,
                progress=progress,
            )[0]
            for pair in pairs
        )
        # All of these images are discovery images.
        chosen = replace(o.cluster(), holdout=0.0)
        return choose.choose_clusters(traces, chosen, destination, progress=progress)

    return folder.make(NUM_CLUSTERS, ClusterSweep, request, build)
