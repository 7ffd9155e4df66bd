"""How much an edited output differs from the clean one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from xaikit.statistics.totals import as_float64
from xaikit.towers.class_names import class_names

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from xaikit.towers import Outputs

COSINE = "cosine"
MARGIN = "margin"
CLASS_METRICS = ("kl", MARGIN, "accuracy")


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A classifier on a tower's outputs.

    Attributes
    ----------
    name : str
        For the record: ``zero-shot, 18 prompts`` or ``classifier head``.
    logits : callable
        ``logits(outputs) -> [B, C]``.
    targets : Int[Tensor, "image"], optional
        Class of every image of the trace. Without it the class that the clean model gives counts
        as right, so that `accuracy` is agreement with the clean model.
    names : sequence of str
        Of the classes, where they were given.
    """

    name: str
    logits: Callable[[Outputs], Tensor]
    targets: Int[Tensor, "image"] | None = None
    names: Sequence[str] = ()

    def right(self, clean: Outputs, images: Sequence[int] | None) -> Int[Tensor, "image"]:
        """The class that counts as right for each image of a batch."""
        if self.targets is None:
            return self.logits(clean).argmax(-1)
        wanted = self.targets if images is None else self.targets[torch.as_tensor(images)]
        return wanted.to(clean.embedding.device)

    def first_classes(self, outputs: Outputs, most: int) -> list[dict[str, Any]]:
        """`name` and `probability` of the likeliest classes of a batch's first image."""
        with torch.no_grad():
            chances = as_float64(self.logits(outputs)[0]).softmax(0)
        best = torch.topk(chances, min(most, len(chances)))
        names = self.names or class_names(len(chances))
        return [
            {
                "name": names[index] if index < len(names) else f"class {index}",
                "probability": value,
            }
            for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def cosine_distance(
    clean: Float[Tensor, "image dim"], edited: Float[Tensor, "image dim"]
) -> Float[Tensor, "image"]:
    """``1 − cos``, as half the squared distance of the unit vectors.

    In float64: the direct formula loses effects below 1e-7 to rounding, and single edges have
    such effects.
    """
    difference = F.normalize(as_float64(clean), dim=-1) - F.normalize(as_float64(edited), dim=-1)
    return difference.square().sum(-1) / 2


def class_changes(
    clean: Float[Tensor, "image class"],
    edited: Float[Tensor, "image class"],
    targets: Int[Tensor, "image"] | None,
) -> dict[str, Float[Tensor, "image"]]:
    """What an edit does to class logits.

    Returns
    -------
    dict
        ``kl``: KL divergence of the edited class distribution from the clean one, nats.
        ``margin``: fall of the logit margin between the right class and the best other one.
        ``accuracy``: 1 where the right class was on top and no longer is, −1 the other way round.
    """
    clean, edited = as_float64(clean), as_float64(edited)
    right = clean.argmax(-1) if targets is None else targets.to(clean.device)
    before, after = clean.log_softmax(-1), edited.log_softmax(-1)
    correct = as_float64(clean.argmax(-1) == right), as_float64(edited.argmax(-1) == right)
    return {
        "kl": (before.exp() * (before - after)).sum(-1),
        MARGIN: class_margin(clean, right) - class_margin(edited, right),
        "accuracy": correct[0] - correct[1],
    }


def class_margin(
    logits: Float[Tensor, "image class"], right: Int[Tensor, "image"]
) -> Float[Tensor, "image"]:
    """Logit of the right class above the best other one (above zero where there is no other)."""
    right = right.to(logits.device)
    own = logits.gather(-1, right[:, None])
    others = logits.scatter(-1, right[:, None], -torch.inf)
    best = others.amax(-1) if logits.shape[-1] > 1 else torch.zeros_like(own[:, 0])
    return own[:, 0] - best


def changes(
    clean: Outputs,
    edited: Outputs,
    classifier: Classifier | None = None,
    images: Sequence[int] | None = None,
) -> dict[str, Float[Tensor, "image"]]:
    """All metrics of a batch, by name.

    Parameters
    ----------
    images : sequence of int, optional
        Where the batch's images are among the classifier's targets.
    """
    found = {COSINE: cosine_distance(clean.embedding, edited.embedding)}
    if classifier is not None:
        before, after = classifier.logits(clean), classifier.logits(edited)
        found |= class_changes(before, after, classifier.right(clean, images))
    return found


def metric_names(classifier: Classifier | None) -> tuple[str, ...]:
    """Names of the metrics that `changes` gives."""
    return (COSINE,) if classifier is None else (COSINE, *CLASS_METRICS)
