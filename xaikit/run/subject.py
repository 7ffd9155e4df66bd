"""What a run is of: a model, the images it is shown, and the pairs of layers that are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.files import fingerprint
from xaikit.distributed import World
from xaikit.images import SkippedImages
from xaikit.images.content import Contents
from xaikit.images.survey import candidate_count
from xaikit.interventions import chosen_objective
from xaikit.interventions.classifiers import classifier_for
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
    from xaikit.interventions import Classifier, Objective
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

    @property
    def labels(self) -> Path | None:
        """Where the classes are named."""
        return Path(self.options.labels) if self.options.labels else None

    @property
    def text(self) -> dict[str, str]:
        """Fingerprint of what encodes prompts; nothing where nothing does."""
        text = self.tower.text
        if text is None or self.tower.info.classes:
            return {}
        return {"text": text.fingerprint}

    @property
    def classes(self) -> dict[str, str]:
        """Fingerprints of what decides the classes: the file's content, and `text`."""
        content = fingerprint(self.labels.read_bytes()) if self.labels is not None else ""
        return {"labels": content, **self.text}

    def classifier(self, ids: Sequence[str]) -> Classifier | None:
        """The classifier for images of these ids, see `classifier_for`."""
        return classifier_for(self.tower, self.source, self.labels, ids)

    def objective(self, ids: Sequence[str]) -> Objective:
        """What edges of images of these ids are ranked by.

        Raises
        ------
        UsageError
            Where the model and the classes have no such objective.
        """
        live = self.options.live()
        by_class = live.toward is None or bool(self.tower.info.classes)
        classifier = self.classifier(ids) if live.directed and by_class else None
        return chosen_objective(self.tower, live, classifier)

    @cached_property
    def aim(self) -> dict[str, Any]:
        """What decides the objective; empty for the embedding."""
        live = self.options.live()
        if not live.directed:
            return {}
        named = {name: getattr(live, name) for name in ("objective", "toward", "against")}
        if live.toward is None:
            return {**named, **self.classes}
        # Of a file of classes no more counts than which ones are meant.
        return {**named, "classes": list(self.objective(()).classes), **self.text}

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
