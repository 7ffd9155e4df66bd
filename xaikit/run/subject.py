"""What a run is of: a model, the images it is shown, and the pairs of layers that are read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.files import fingerprint
from xaikit.distributed import World
from xaikit.images import SkippedImages
from xaikit.images.content import Contents
from xaikit.images.survey import candidate_count
from xaikit.passes.checkpoint import Checkpoint
from xaikit.passes.feed import LayerPair
from xaikit.passes.record import blank_info
from xaikit.passes.running import ModelFeed
from xaikit.progress import Progress, silent
from xaikit.run.options import Options
from xaikit.run.reuse import Request

if TYPE_CHECKING:
    from xaikit.artifacts.trace_info import TraceInfo
    from xaikit.images import ImageSource
    from xaikit.towers import Tower

RECORDING = 2
"""Raised where the same model and images give other gates or logits than before."""


@dataclass
class Subject:
    """A model and its images.

    Attributes
    ----------
    skipped : SkippedImages
        Images that could not be used.
    """

    tower: Tower
    source: ImageSource
    options: Options
    world: World = field(default_factory=World)
    skipped: SkippedImages = field(default_factory=SkippedImages)
    progress: Progress = silent

    @cached_property
    def contents(self) -> Contents:
        """Digests of the source's images."""
        return Contents(self.source, workers=self.options.workers)

    @cached_property
    def candidates(self) -> int:
        """How many of the source's images the run is of, usable or not."""
        o = self.options
        return candidate_count(self.source, self.tower.preprocess, o.max_images, o.workers)

    @cached_property
    def content(self) -> str:
        """Fingerprint of the candidates' content."""
        return self.contents.fingerprint(range(self.candidates), self.progress)

    def request(self, pair: LayerPair) -> Request:
        """What decides the trace of a pair, or what a streamed run reads in its place."""
        tower, storage = self.tower, self.options.storage
        return Request(
            stage="trace",
            revision=RECORDING,
            inputs={
                "weights": tower.weights_fingerprint,
                "images": self.content,
                "preprocess": fingerprint(asdict(tower.preprocess)),
            },
            options={
                "layer": pair[0],
                "next_layer": pair[1],
                "precision": tower.precision,
                "store_dtype": "float32" if self.options.stream else storage.dtype,
            },
        )

    def infos(self, pairs: list[LayerPair]) -> dict[LayerPair, TraceInfo]:
        """What traces say before their images are known."""
        return {pair: blank_info(self.tower, self.source, pair) for pair in pairs}

    def feed(self, pairs: list[LayerPair], checkpoint: Checkpoint | None = None) -> ModelFeed:
        """Blocks of the images, read by running the model."""
        o = self.options
        return ModelFeed(
            tower=self.tower,
            source=self.source,
            infos=self.infos(pairs),
            batch_size=o.batch_size,
            workers=o.workers,
            strict=o.strict,
            world=self.world,
            checkpoint=checkpoint,
            skipped=self.skipped,
        )

    def described(self) -> dict[str, Any]:
        """For a record of the run."""
        return {"model": self.tower.info.model, "images": self.source.describe()}
