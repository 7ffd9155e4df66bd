"""How the model is run on edited attention: the options of everything that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xaikit.artifacts.options import all_at_zero, option
from xaikit.interventions.edits import ABLATIONS
from xaikit.interventions.objectives import Objective, check_direction, objective_for

if TYPE_CHECKING:
    from xaikit.interventions.metrics import Classifier
    from xaikit.towers import Tower


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """How the model is run on edited attention.

    Attributes
    ----------
    ablation : str
        ``mean``, ``resample``, ``zero``, ``knockout`` or ``pair`` (see `ablate`).
    objective : str
        What effects are measured on: ``embedding`` or ``margin`` (see `Objective`).
    toward, against : str, optional
        A direction in place of those: prompts, or classes of the model's head.
    ig_steps : int
        Points on the way from the clean to the ablated logits that gradients are averaged over.
    score_images : int, optional
        At most so many discovery images to score rankings on that run the model.
    batch_size, seed : int
    workers : int, optional
        Threads that decode.
    """

    ablation: str = option("mean", "What takes the place of a logit.", choices=ABLATIONS)
    objective: str = option(
        "embedding",
        "What effects are measured on and edges ranked by.",
        choices=("embedding", "margin"),
    )
    toward: str | None = option(
        None,
        "Measure on a direction instead: a prompt, or a class of the model's head (name or index).",
        metavar="TEXT",
    )
    against: str | None = option(
        None, "What --toward is told apart from; also a prompt or a class.", metavar="TEXT"
    )
    ig_steps: int = option(5, "Points that attribution averages the gradient over.", least=1)
    score_images: int | None = option(
        256,
        "Discovery images to score rankings on that run the model, spread evenly; 0 = all.",
        panel="Images",
        least=1,
        parse=all_at_zero,
        metavar="<int>",
    )
    batch_size: int = option(32, "Images a forward pass.", panel="Running", least=1, idle=True)
    seed: int = option(0, "Of everything random.", panel="Running", least=0)
    workers: int | None = option(
        None, "Threads that decode images.", panel="Running", least=1, idle=True
    )

    def check(self) -> None:
        """Refuse what names no direction."""
        check_direction(self.objective, self.toward, self.against)

    @property
    def directed(self) -> bool:
        """Whether effects have a sign (see `Objective.signed`)."""
        return self.toward is not None or self.objective == "margin"


def chosen_objective(
    tower: Tower, options: LiveOptions, classifier: Classifier | None
) -> Objective:
    """The objective that options name."""
    return objective_for(
        options.objective,
        tower,
        classifier,
        toward=options.toward,
        against=options.against,
    )
