"""Clusters in words: which word's score over images goes with a cluster's share of them.

A word's score of an image is the cosine of the image's embedding with the word's text embedding
(a classifier head: the class logit), less the mean over words. A word is chosen for a cluster on
one half of the images, by the correlation of its score with the number of the cluster's tokens,
less the mean of that correlation over the other clusters; the same correlation on the other half
is the check. A word that does not pass it is never given as a name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from xaikit.errors import UsageError, XaikitError
from xaikit.images.drawing import SHAPES, TEXTURES
from xaikit.images.pipeline import iter_batches
from xaikit.images.scenes import COLOURS, QUADRANTS
from xaikit.progress import Progress, silent
from xaikit.report.page.parts import LayerParts
from xaikit.report.page.pictures import Pictures
from xaikit.text import printable
from xaikit.towers import load_tower, text_features
from xaikit.towers.class_names import class_names

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from xaikit.towers import Tower

DEMO = "xaikit-demo"
MOST_IMAGES = 128
"""Of each half."""
LEAST_IMAGES = 8
LEVEL = 0.05
TEMPLATES = ("a photo of a {}.", "a photo with {} in it.", "{}")
DEMO_WORDS = (*COLOURS, *SHAPES, *TEXTURES, *QUADRANTS)


@dataclass(frozen=True)
class Halves:
    """Places of images that words are chosen on, and of those that check them."""

    choose: list[int]
    check: list[int]

    @classmethod
    def of(cls, parts: LayerParts) -> Halves:
        """Discovery and held-out images; without any held out, every other image."""
        features = parts.features
        if features.heldout:
            return cls(_spread(features.discovery), _spread(features.heldout))
        every = list(range(len(features.labels)))
        return cls(_spread(every[::2]), _spread(every[1::2]))


def _spread(images: Sequence[int]) -> list[int]:
    at = np.unique(np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).astype(int))
    return [images[place] for place in at]


@dataclass(frozen=True)
class Scores:
    """Scores of words ``[image, word]`` for the images of both halves, which may differ in size."""

    words: list[str]
    choose: Float[np.ndarray, "chosen word"]
    check: Float[np.ndarray, "checked word"]


def model_of(parts: LayerParts) -> Tower:
    """The run's model with its text tower or head, checked to have the run's weights.

    Raises
    ------
    XaikitError
        Where it cannot be had, or is another one.
    """
    origin = parts.fit.provenance.origin
    own = origin.pretrained == origin.model
    tower = load_tower(
        origin.model,
        None if own else origin.pretrained,
        with_text=not origin.model.startswith("timm/"),
    )
    if tower.weights_fingerprint != origin.weights_fingerprint:
        raise XaikitError(f"the weights of {origin.model} are no longer those of the run")
    return tower


def read_vocabulary(path: str | Path | None) -> list[str]:
    """Words or prompts, one a line; by default those that come with xaikit.

    Raises
    ------
    UsageError
        Where the file cannot be read or holds nothing.
    """
    if path is None:
        asset = files("xaikit.report").joinpath("assets", "vocabulary.txt")
        return asset.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"`vocabulary={path}`: {reason}") from None
    words = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if len(words) < 2:
        raise UsageError(f"`vocabulary={path}`: expected two words or more, one a line")
    return words


def word_scores(
    tower: Tower,
    pictures: Pictures,
    halves: Halves,
    vocabulary: str | Path | None = None,
    progress: Progress = silent,
) -> Scores:
    """Run the model on the images of both halves and score every word.

    Raises
    ------
    UsageError
        Where the vocabulary cannot be read.
    XaikitError
        Where the images or the words of this model cannot be had.
    """
    if min(len(halves.choose), len(halves.check)) < LEAST_IMAGES:
        raise XaikitError(f"fewer than {LEAST_IMAGES} images in a half: too few to check a word")
    words, score = _words(tower, vocabulary)
    values = [
        _scored(tower, pictures, half, score, progress) for half in (halves.choose, halves.check)
    ]
    return Scores([printable(word) for word in words], *values)


Score = Callable[[Any], "Tensor"]


def _words(tower: Tower, vocabulary: str | Path | None) -> tuple[list[str], Score]:
    """The words of a model, and what scores them given its outputs."""
    if tower.text is not None:
        demo = tower.info.model == DEMO and vocabulary is None
        words = list(DEMO_WORDS) if demo else read_vocabulary(vocabulary)
        encoded = torch.stack([_encoded(tower, word, demo) for word in words])
        return words, lambda outputs: F.normalize(outputs.embedding, dim=-1) @ encoded.T
    if not tower.info.classes:
        raise XaikitError(f"{tower.info.model} has neither a text tower nor a classifier head")
    if vocabulary is not None:
        raise UsageError(
            f"`vocabulary=`: {tower.info.model} has no text tower; its classes take its place"
        )
    return class_names(tower.info.classes), lambda outputs: outputs.class_logits


def _encoded(tower: Tower, word: str, demo: bool) -> Float[Tensor, " dim"]:
    """Mean text embedding of a word in several prompts, of unit length."""
    prompts = demo_prompts(word) if demo else [each.format(word) for each in TEMPLATES]
    # A line of several words is a prompt already.
    prompts = prompts if demo or len(word.split()) <= 3 else [word]
    return F.normalize(text_features(tower, prompts).mean(0), dim=-1)


def demo_prompts(word: str) -> list[str]:
    """What the demo's captions say around one of `DEMO_WORDS`."""
    if word in COLOURS:
        return [f"{half} {word} {shape}" for half in ("top", "bottom") for shape in SHAPES]
    if word in SHAPES:
        return [f"{half} {colour} {word}" for half in ("top", "bottom") for colour in COLOURS]
    things = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    if word in QUADRANTS:
        return [f"{word} {thing}" for thing in things]
    return [f"top {thing} on {word} ground" for thing in things]


def _scored(
    tower: Tower, pictures: Pictures, images: list[int], score: Score, progress: Progress
) -> Float[np.ndarray, "image word"]:
    source = pictures.source
    if source is None:
        raise XaikitError(pictures.reason)
    places = [pictures.place(image) for image in images]
    if None in places:
        raise XaikitError("some of the run's images are no longer there")
    tower.preprocess = pictures.preprocess
    found, wanted = [], [place for place in places if place is not None]
    for batch in iter_batches(
        source, pictures.preprocess, batch_size=16, indices=wanted, strict=True, progress=progress
    ):
        with torch.inference_mode():
            found.append(score(tower.outputs(batch.pixels.to(tower.device))).float().cpu())
    values = torch.cat(found).numpy().astype(np.float64)
    centred: np.ndarray = values - values.mean(1, keepdims=True)
    return centred


def correlations(
    counts: Float[np.ndarray, "image cluster"], scores: Float[np.ndarray, "image word"]
) -> Float[np.ndarray, "cluster word"]:
    """Pearson's r over images; NaN where a cluster is as frequent in every image."""
    with np.errstate(invalid="ignore", divide="ignore"):
        one, other = ((x - x.mean(0)) / x.std(0) for x in (counts, scores))
        correlation: np.ndarray = one.T @ other / len(counts)
        return correlation


def best_words(
    counts: Float[np.ndarray, "chosen cluster"],
    check: Float[np.ndarray, "checked cluster"],
    scores: Scores,
) -> list[dict[str, Any] | None]:
    """Each cluster's best word with both figures; None where it varies over no image.

    Parameters
    ----------
    counts, check : float ``[image, cluster]``
        Tokens of each cluster in the images that words are chosen on, and in the others.
    scores : Scores
    """
    chosen = correlations(counts, scores.choose)
    checked = correlations(check, scores.check)
    # Beyond the mean of the other clusters; one that varies over no image counts as zero.
    beyond, beyond_check = (values - _others(values) for values in (chosen, checked))
    found: list[dict[str, Any] | None] = []
    for cluster in range(len(chosen)):
        if not (np.isfinite(chosen[cluster]).any() and np.isfinite(checked[cluster]).any()):
            found.append(None)
            continue
        word = int(np.nan_to_num(beyond[cluster], nan=-np.inf).argmax())
        r = float(np.nan_to_num(checked[cluster, word]))
        holds = chosen[cluster, word] > 0 and beyond_check[cluster, word] > 0
        found.append(
            {
                "word": scores.words[word],
                "discovery": float(chosen[cluster, word]),
                "heldout": r,
                "holds": bool(holds and passes(r, len(check), len(chosen))),
            }
        )
    return found


def _others(values: Float[np.ndarray, "cluster word"]) -> Float[np.ndarray, "cluster word"]:
    """Mean of the other clusters' values."""
    known = np.nan_to_num(values)
    others: np.ndarray = (known.sum(0) - known) / max(len(values) - 1, 1)
    return others


def passes(r: float, images: int, clusters: int) -> bool:
    """Whether a correlation over held-out images is above chance, among so many clusters.

    One-sided, by Fisher's transform, at `LEVEL` divided by the number of clusters.
    """
    if images <= 3:
        return False
    strength = np.arctanh(min(r, 1 - 1e-9)) * np.sqrt(images - 3)
    return bool(strength > NormalDist().inv_cdf(1 - LEVEL / max(clusters, 1)))


def counted(parts: LayerParts, images: list[int]) -> Float[np.ndarray, "image cluster"]:
    """Tokens of each cluster in some images."""
    labels = parts.features.labels[images].numpy()
    clusters = range(parts.features.num_clusters)
    return np.stack([(labels == cluster).sum(1) for cluster in clusters], 1).astype(np.float64)
