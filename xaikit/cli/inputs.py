"""What the commands that run the model on a fit share: its artefacts, images and model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.cli.trace import DEMO, open_tower

if TYPE_CHECKING:
    from xaikit.artifacts.records import Origin
    from xaikit.artifacts.results import Circuit, TargetCausal
    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.artifacts.trace import Trace
    from xaikit.images import ImageSource
    from xaikit.towers import Tower


class Parts:
    """The artefacts that the options name, and where they say their images are."""

    def __init__(
        self,
        trace: Path | None,
        features: Path | None,
        fit: Path,
        circuit: Path | None = None,
        target: Path | None = None,
    ) -> None:
        from xaikit.artifacts.results import Circuit, TargetCausal
        from xaikit.artifacts.tensors import Features, Fit
        from xaikit.artifacts.trace import Trace

        self.fit: Fit = Fit.load(fit)
        self.features: Features = Features.load(features or self.fit.features_file)
        self.circuit: Circuit | None = Circuit.load(circuit) if circuit else None
        self.target: TargetCausal | None = TargetCausal.load(target) if target else None
        known = Path(self.features.trace_file) if self.features.trace_file else None
        if trace is None and known is not None and known.exists():
            trace = known
        self.trace: Trace | None = Trace.load(trace) if trace else None

    def source(
        self, images: Path | None, imagenet_root: Path | None, split: str, webdataset: str | None
    ) -> ImageSource:
        """The images that the options name, or those that the trace says it read."""
        from xaikit.images import open_images

        described: dict[str, Any] = self.trace.info.source if self.trace else {}
        if images is None and imagenet_root is None and webdataset is None:
            from xaikit.images.reopening import reopen

            if not described and self.fit.provenance.origin.model == DEMO:
                described = {"kind": "demo", "count": len(self.features.labels), "seed": 0}
            return reopen(described)
        return open_images(
            images=images, imagenet_root=imagenet_root, split=split, webdataset=webdataset
        )

    def tower(
        self,
        model: str | None,
        pretrained: str | None,
        device: str,
        precision: str,
        seed: int,
        *,
        preprocess: tuple[str | None, str | None, int | None] = (None, None, None),
        labels: Path | None = None,
    ) -> Tower:
        """The model of the fit, preparing images as the trace did unless told otherwise."""
        origin = self.fit.provenance.origin
        mean, std, resize = preprocess
        tower = open_tower(
            model or origin.model,
            pretrained or weights_of(origin, model),
            device,
            precision,
            seed,
            mean=mean,
            std=std,
            resize=resize,
            with_text=wants_text(origin.model, labels),
        )
        if preprocess == (None, None, None):
            self._use_preprocess(tower)
        return tower

    def ids(self, source: ImageSource) -> list[str]:
        """Ids of the images behind the features' labels."""
        from xaikit.rankings.live import image_ids

        return image_ids(source, self.features, self.trace)

    def _use_preprocess(self, tower: Tower) -> None:
        """Prepare images as the trace did."""
        from xaikit.artifacts.preprocess import Preprocess

        known = self.trace.info.preprocess if self.trace else {}
        if known:
            listed: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in known.items()
            }
            tower.preprocess = Preprocess(**listed)


def weights_of(origin: Origin, model: str | None) -> str | None:
    """What ``--pretrained`` was when the trace was made; the demo brings its own weights."""
    own = model is not None or origin.pretrained == origin.model
    return None if own else origin.pretrained


def wants_text(model: str, labels: Path | None) -> bool:
    """Whether prompts are to be encoded; timm models have a head instead."""
    return model == DEMO or (labels is not None and not model.startswith("timm/"))
