"""Words and known factors for the cards of a page, or one line that says why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.errors import UsageError, XaikitError
from xaikit.progress import Progress
from xaikit.report.page.factors import known_factors
from xaikit.report.page.names import (
    Halves,
    best_words,
    counted,
    model_of,
    read_vocabulary,
    word_scores,
)
from xaikit.report.page.parts import RunParts
from xaikit.report.page.pictures import Pictures

if TYPE_CHECKING:
    from xaikit.towers import Tower


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How clusters get words.

    Attributes
    ----------
    wanted : bool
        Whether the model is run for them.
    vocabulary : path, optional
        Words, one a line; by default a list that comes with xaikit.
    tower : Tower, optional
        The run's model where it is loaded already.
    """

    wanted: bool = True
    vocabulary: Path | None = None
    tower: Tower | None = None


def model_for(run: RunParts, pictures: Pictures, naming: Naming) -> tuple[Tower | None, str]:
    """The run's model, or one line that says why it is not run.

    Raises
    ------
    UsageError
        Where a vocabulary was asked for that cannot be read.
    """
    if naming.vocabulary is not None:
        read_vocabulary(naming.vocabulary)
    if not naming.wanted:
        return None, "they were not asked for"
    if pictures.reason:
        return None, pictures.reason
    tower = naming.tower
    try:
        if tower is None or not (tower.text or tower.info.classes):
            tower = model_of(run.layers[0])
    except XaikitError as error:
        return None, str(error)
    return tower, ""


def add_factors(run: RunParts, pictures: Pictures, cards: list[dict[str, Any]]) -> None:
    """Set ``factor`` of each card of a run on the demo's scenes."""
    by_card = {(card["layer"], card["cluster"]): card for card in cards}
    for parts in run.layers:
        for cluster, factor in enumerate(known_factors(parts, pictures) or []):
            if (parts.layer, cluster) in by_card:
                by_card[parts.layer, cluster]["factor"] = factor


def add_words(
    run: RunParts,
    pictures: Pictures,
    cards: list[dict[str, Any]],
    tower: Tower,
    vocabulary: Path | None,
    progress: Progress,
) -> str:
    """Set ``words`` of each card; return why there are none, or nothing.

    Raises
    ------
    UsageError
        Where a vocabulary was asked for that does not go with the model.
    """
    by_card = {(card["layer"], card["cluster"]): card for card in cards}
    halves = Halves.of(run.layers[0])
    try:
        scores = word_scores(tower, pictures, halves, vocabulary, progress)
    except UsageError as error:
        if vocabulary is not None:
            raise
        return str(error)
    except XaikitError as error:
        return str(error)
    for parts in run.layers:
        choose, check = (counted(parts, images) for images in (halves.choose, halves.check))
        for cluster, words in enumerate(best_words(choose, check, scores)):
            if (parts.layer, cluster) in by_card:
                by_card[parts.layer, cluster]["words"] = words
    return ""
