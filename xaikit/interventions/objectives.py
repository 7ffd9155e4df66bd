"""What the effect of an edit is measured on, and ranked by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from xaikit.errors import UsageError
from xaikit.interventions.metrics import (
    COSINE,
    MARGIN,
    Classifier,
    class_margin,
    cosine_distance,
)
from xaikit.statistics.totals import as_float64
from xaikit.towers.class_names import class_names
from xaikit.towers.text import text_features

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.towers import Outputs, Tower

OBJECTIVES = ("embedding", "margin", "toward")
TOWARD = "toward"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A number that each image's output has, or how far it is from the clean one.

    Attributes
    ----------
    kind : str
        ``embedding``: the effect of an edit is ``1 − cos`` to the clean embedding. ``margin``
        and ``toward`` are scalars of an image; the effect is their fall, and has a sign.
    toward, against : str
        The prompts or classes of ``toward``.
    classes : tuple of int
        What those are among a head's classes; empty for prompts.
    value : callable, optional
        ``value(outputs, clean, images) -> [B]`` float64; None for ``embedding``.
    """

    kind: str = "embedding"
    toward: str = ""
    against: str = ""
    classes: tuple[int, ...] = ()
    value: Callable[[Outputs, Outputs, Sequence[int]], Tensor] | None = field(
        default=None, repr=False
    )

    @property
    def signed(self) -> bool:
        """Whether effects have a sign: edges push for the objective, or against it."""
        return self.value is not None

    @property
    def metric(self) -> str:
        """The metric that holds its effects."""
        return {"embedding": COSINE, "margin": MARGIN}.get(self.kind, TOWARD)

    def record(self) -> dict[str, Any]:
        """As an artefact keeps it."""
        return {name: asdict(self)[name] for name in ("kind", "toward", "against")}

    def effect(
        self, clean: Outputs, edited: Outputs, images: Sequence[int]
    ) -> Float[Tensor, "image"]:
        """What an edit does to each image, float64: the distance, or the fall of the scalar."""
        if self.value is None:
            return cosine_distance(clean.embedding.detach(), edited.embedding)
        return self.value(clean, clean, images).detach() - self.value(edited, clean, images)


EMBEDDING = Objective()


def objective_for(
    kind: str,
    tower: Tower,
    classifier: Classifier | None = None,
    *,
    toward: str | None = None,
    against: str | None = None,
) -> Objective:
    """Make an objective of what a user asks for.

    Parameters
    ----------
    kind : str
        ``embedding`` or ``margin``; ``toward`` where `toward` is given.
    classifier : Classifier, optional
        For ``margin``, and for the names of a head's classes.
    toward, against : str, optional
        Prompts for a model with a text tower; names or indices of classes for one with a head.

    Raises
    ------
    UsageError
        Where the model has neither, or there is no such class.
    """
    check_direction(kind, toward, against)
    if toward is not None:
        names = classifier.names if classifier is not None else ()
        return _toward(tower, toward, against, names)
    if kind == "embedding":
        return EMBEDDING
    if kind != "margin":
        raise UsageError(
            f"`objective={kind}`: expected embedding or margin, or `toward=TEXT` [`against=TEXT`]"
        )
    if classifier is None:
        raise UsageError(
            "`objective=margin` needs classes: pass `labels=FILE` with one prompt a line, or a "
            "model with a classifier head"
        )
    return _margin(classifier)


def check_direction(kind: str, toward: str | None, against: str | None) -> None:
    """Refuse options that name no direction, whatever the model.

    Raises
    ------
    UsageError
        Naming the option.
    """
    if toward is not None and kind == "margin":
        raise UsageError("`objective=margin` and `toward=` exclude each other: pass one")
    if toward is None and against is not None:
        raise UsageError("`against=TEXT` needs `toward=TEXT`: a direction starts somewhere")
    for argument, text in (("toward", toward), ("against", against)):
        if text is not None and not text.strip():
            raise UsageError(f"`{argument}=` is empty: expected a prompt, a class or its index")


def _margin(classifier: Classifier) -> Objective:
    def value(outputs: Outputs, clean: Outputs, images: Sequence[int]) -> Tensor:
        right = classifier.right(clean, images)
        return class_margin(as_float64(classifier.logits(outputs)), right)

    return Objective(kind="margin", value=value)


def _toward(tower: Tower, toward: str, against: str | None, names: Sequence[str]) -> Objective:
    given = [toward] if against is None else [toward, against]
    classes: list[int] = []
    if tower.info.classes:
        known = names or class_names(tower.info.classes)
        arguments = zip(("toward", "against"), given, strict=False)
        classes = [_class_index(name, text, tower, known) for name, text in arguments]
        given = [_class_name(index, known) for index in classes]
        value = _of_head(classes)
    elif tower.text is not None:
        value = _of_text(text_features(tower, given))
    else:
        raise UsageError(f"`toward={toward}`: {tower.info.model} has no text tower and no head")
    start, end = given if len(given) == 2 else (*given, "")
    return Objective(kind=TOWARD, toward=start, against=end, classes=tuple(classes), value=value)


def _of_text(features: Float[Tensor, "prompt dim"]) -> Callable[..., Tensor]:
    def value(outputs: Outputs, _clean: Outputs, _images: Sequence[int]) -> Tensor:
        unit = F.normalize(as_float64(outputs.embedding), dim=-1)
        cosines = unit @ as_float64(features).to(unit.device).T
        return cosines[:, 0] if len(features) == 1 else cosines[:, 0] - cosines[:, 1]

    return value


def _of_head(classes: list[int]) -> Callable[..., Tensor]:
    def value(outputs: Outputs, _clean: Outputs, _images: Sequence[int]) -> Tensor:
        assert outputs.class_logits is not None
        logits = as_float64(outputs.class_logits)
        if len(classes) == 2:
            return logits[:, classes[0]] - logits[:, classes[1]]
        own = torch.full((len(logits),), classes[0], device=logits.device)
        return class_margin(logits, own)

    return value


def _class_name(index: int, names: Sequence[str]) -> str:
    """What names a class and no other."""
    name = names[index] if index < len(names) else ""
    alike = [each for each in names if each.casefold() == name.casefold()]
    return name if len(alike) == 1 else f"class {index}"


def _class_index(argument: str, text: str, tower: Tower, names: Sequence[str]) -> int:
    """The class of a head that a name or an index means."""
    found = [place for place, name in enumerate(names) if name.casefold() == text.casefold()]
    if len(found) == 1:
        return found[0]
    number = text.casefold().removeprefix("class ").strip()
    if number.isdecimal() and int(number) < tower.info.classes:
        return int(number)
    what = "names several classes" if found else "is no class of the head"
    near = [] if found else get_close_matches(text.casefold(), names, 1)
    hint = f" such as {near[0]}" if near else ""
    raise UsageError(
        f"`{argument}={text}`: {what}; expected one of {len(names)} names{hint}, or an index below "
        f"{tower.info.classes}"
    )
