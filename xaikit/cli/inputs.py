"""What commands open: the model, the images, and the artefacts of a fit that is asked about."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xaikit.artifacts.inputs import (
    DEMO,
    FitModelOptions,
    FormatOptions,
    ImageOptions,
    ModelOptions,
    PreprocessOptions,
)
from xaikit.artifacts.options import flags
from xaikit.artifacts.results import Circuit, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.errors import UsageError, XaikitWarning
from xaikit.interventions.live_options import LiveOptions
from xaikit.stages.trace import PairOptions, ReadOptions

if TYPE_CHECKING:
    from xaikit.artifacts.records import Origin
    from xaikit.artifacts.trace_info import TraceInfo
    from xaikit.cli.console import Session
    from xaikit.images import ImageSource, SkippedImages
    from xaikit.progress import Progress
    from xaikit.towers import Tower

Live = TypeVar("Live", bound=LiveOptions)


TRACED = (ModelOptions, ImageOptions, ReadOptions, PairOptions, FormatOptions, PreprocessOptions)
"""Options of what is traced, and how."""


def refuse_beside_trace(given: Mapping[str, Any], but: Collection[str] = ()) -> None:
    """Refuse what says what is traced, and how, where a trace is there already.

    Parameters
    ----------
    given : mapping
        Options that were given by hand.
    but : collection of str
        Names of options that a trace leaves a use for.

    Raises
    ------
    UsageError
        Naming them.
    """
    void = [
        flag.typed
        for kind in TRACED
        for flag in flags(kind)
        if flag.name in given and not flag.option.idle and flag.name not in ("seed", *but)
    ]
    if void:
        raise UsageError(
            f"{', '.join(void)}: --trace has its own model and images; leave out one or the other"
        )


def open_tower(
    model: ModelOptions,
    form: FormatOptions,
    preprocess: PreprocessOptions | None = None,
    *,
    with_text: bool = False,
    session: Session | None = None,
) -> Tower:
    """Load the tower that the options name; say to a session what is not known of its weights."""
    from xaikit.towers import load_tower

    own = preprocess or PreprocessOptions()
    with warnings.catch_warnings():
        # The session says it, with flags in place of arguments.
        warnings.simplefilter("ignore", XaikitWarning)
        tower = load_tower(
            model.model,
            model.pretrained,
            device=form.device,
            precision=form.precision,
            seed=form.seed,
            like_tag=model.like_tag,
            quick_gelu=model.quick_gelu,
            resize_mode=own.resize_mode,
            mean=_three(own.mean),
            std=_three(own.std),
            resize=own.resize,
            with_text=with_text,
        )
    if session is not None:
        for line in tower.loaded.get("warnings", []):
            session.warn(line)
        for line in tower.loaded.get("notes", []):
            session.note(line)
    return tower


def _three(values: tuple[float, ...] | None) -> tuple[float, float, float] | None:
    if values is None:
        return None
    red, green, blue = values
    return red, green, blue


def open_source(
    images: ImageOptions, model: ModelOptions, *, seed: int, max_images: int | None = None
) -> ImageSource:
    """Open the images that the options name; the demo model falls back on its scenes."""
    demo = not images.given and model.model == DEMO
    return _opened(images, demo=demo, seed=seed, max_images=max_images)


def source_of(info: TraceInfo, images: ImageOptions) -> ImageSource:
    """The images that the options name, or those that a trace says it read."""
    if images.given:
        return _opened(images)
    from xaikit.images.reopening import reopen

    return reopen(info.source)


def _opened(images: ImageOptions, **more: Any) -> ImageSource:
    from xaikit.images import open_images

    return open_images(
        images=images.images,
        imagenet_root=images.imagenet_root,
        split=images.split,
        webdataset=images.webdataset,
        dataset=images.dataset,
        **more,
    )


def warn_left_out(session: Session, source: ImageSource) -> None:
    """Name what lies beside the images and is not read."""
    if left_out := getattr(source, "left_out", ""):
        session.warn(left_out)


def warn_skipped(session: Session, skipped: SkippedImages) -> None:
    """Name the images that could not be used."""
    if len(skipped):
        session.warn(skipped.summary())


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
        self.fit: Fit = Fit.load(fit)
        self.features: Features = Features.load(features or self.fit.features_file)
        self.circuit: Circuit | None = Circuit.load(circuit) if circuit else None
        self.target: TargetCausal | None = TargetCausal.load(target) if target else None
        self.trace: Trace | None = Trace.load(trace) if trace else None

    def source(self, images: ImageOptions) -> ImageSource:
        """The images that the options name, or those that the trace says it read."""
        return source_of(self.features.info, images)

    def tower(
        self,
        model: FitModelOptions,
        form: FormatOptions,
        preprocess: PreprocessOptions | None = None,
        *,
        labels: Path | None = None,
        toward: str | None = None,
    ) -> Tower:
        """The model of the fit, preparing images as the trace did unless told otherwise."""
        origin = self.fit.provenance.origin
        named = ModelOptions(
            model=model.model or origin.model,
            pretrained=model.pretrained or weights_of(origin, model.model),
            like_tag=model.like_tag,
            quick_gelu=model.quick_gelu,
        )
        text = wants_text(origin.model, labels or toward)
        tower = _as_traced(named, origin, form, preprocess, text)
        if preprocess is None or preprocess == PreprocessOptions():
            self._use_preprocess(tower)
        return tower

    def ids(self, source: ImageSource) -> list[str]:
        """Ids of the images behind the features' labels."""
        from xaikit.rankings.live import image_ids

        return image_ids(source, self.features, self.trace)

    def _use_preprocess(self, tower: Tower) -> None:
        """Prepare images as the trace did."""
        from xaikit.artifacts.preprocess import Preprocess

        known = self.features.info.preprocess
        listed: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in known.items()
        }
        tower.preprocess = Preprocess(**listed)


def _as_traced(
    model: ModelOptions,
    origin: Origin,
    form: FormatOptions,
    preprocess: PreprocessOptions | None,
    with_text: bool,
) -> Tower:
    """The tower, with the activation that it was traced with where none is given."""
    tower = open_tower(model, form, preprocess, with_text=with_text)
    for quick in (True, False) if model.quick_gelu is None and model.like_tag is None else ():
        if tower.weights_fingerprint == origin.weights_fingerprint or not tower.loaded.get("file"):
            break
        other = replace(model, quick_gelu=quick)
        found = open_tower(other, form, preprocess, with_text=with_text)
        if found.weights_fingerprint == origin.weights_fingerprint:
            return found
    return tower


def weights_of(origin: Origin, model: str | None) -> str | None:
    """What ``--pretrained`` was when the trace was made; the demo brings its own weights."""
    own = model is not None or origin.pretrained == origin.model
    return None if own else origin.pretrained


def of_the_circuit(
    session: Session, options: Live, by_hand: Mapping[str, Any], circuit: Circuit | None
) -> Live:
    """The options with the objective that a circuit was ranked by, where none was given."""
    aim = circuit.objective if circuit is not None else {}
    named = ("objective", "toward", "against")
    if aim.get("kind", "embedding") == "embedding" or set(named) & set(by_hand):
        return options
    from xaikit.report.directions import direction

    assert circuit is not None
    session.note(
        f"measured on what the circuit was ranked by, {direction(circuit)} "
        "(--objective embedding for the embedding)"
    )
    if aim["kind"] == "margin":
        return replace(options, objective="margin")
    return replace(options, toward=aim["toward"], against=aim["against"] or None)


def wants_text(model: str, labels: Path | str | None) -> bool:
    """Whether prompts are to be encoded; timm models have a head instead."""
    if model == DEMO or labels is None:
        return model == DEMO
    from xaikit.towers import resolve

    return resolve(model).family != "timm"


def recorded(
    tower: Tower, source: ImageSource, pair: PairOptions, reading: ReadOptions, progress: Progress
) -> Trace:
    """A trace in memory."""
    from xaikit.stages.trace import TraceOptions, trace

    return trace(
        tower,
        source,
        target_layer=pair.target_layer,
        next_attn_layer=pair.next_attn_layer,
        options=TraceOptions(**vars(reading)),
        progress=progress,
    )
