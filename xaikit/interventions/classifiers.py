"""Classifiers for the metrics on classes: prompts, or the model's own head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import orjson
import torch

from xaikit.errors import UsageError
from xaikit.images.scenes import SceneSource, labels, prompts
from xaikit.interventions.metrics import Classifier
from xaikit.towers import Tower, zero_shot

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from xaikit.images import ImageSource
    from xaikit.towers import Outputs


def classifier_for(
    tower: Tower, source: ImageSource, labels_file: Path | None, ids: Sequence[str]
) -> Classifier | None:
    """The classifier of a run: the model's head, the prompts of a file, or the demo's prompts.

    Parameters
    ----------
    tower : Tower
        With its text side where prompts are to be used.
    source : ImageSource
    labels_file : Path, optional
        Text, one prompt a line, or a JSON object of image folder to prompt, which also says what
        class each image is of. For a model with a head, a JSON object whose order is the head's.
    ids : sequence of str
        Ids of the traced images, in the order of the features' labels.

    Returns
    -------
    Classifier or None
        None where there is neither a head nor a prompt.

    Raises
    ------
    UsageError
        If the file cannot be read or does not fit the head.
    """
    names, folders = read_labels(labels_file) if labels_file is not None else ([], None)
    targets = folder_targets(source, folders, ids) if folders is not None else None
    classes = tower.info.classes
    if classes:
        if folders is not None and len(folders) != classes:
            raise UsageError(
                f"`labels={labels_file}`: {len(folders)} classes, the head has {classes}"
            )
        return Classifier(name="classifier head", logits=_head, targets=targets, names=names)
    if not names and isinstance(source, SceneSource) and tower.text is not None:
        names, targets = prompts(), scene_targets(source, ids)
    if not names:
        return None
    zero = zero_shot(tower, names)
    return Classifier(
        name=f"zero-shot, {len(names)} prompts",
        logits=lambda outputs: zero(outputs.embedding),
        targets=targets,
        names=names,
    )


def _head(outputs: Outputs) -> Tensor:
    assert outputs.class_logits is not None
    return outputs.class_logits


def read_labels(path: Path) -> tuple[list[str], list[str] | None]:
    """Read prompts, and the folder that each belongs to where the file is a JSON object.

    Raises
    ------
    UsageError
        If there is no such file or nothing in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"`labels={path}`: {reason}") from None
    if path.suffix == ".json":
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"`labels={path}`: not valid JSON ({error})") from None
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            raise UsageError(f"`labels={path}`: expected an object of image folder to prompt")
        return list(found.values()), list(found)
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names:
        raise UsageError(f"`labels={path}`: empty; expected one prompt a line")
    return names, None


def folder_targets(
    source: ImageSource, folders: Sequence[str], ids: Sequence[str]
) -> Int[Tensor, "image"] | None:
    """Class of every traced image, by its folder; None where images lie in no folders.

    A folder is named as the images' ids begin, or by its last name alone, so that one file serves
    ``photos``, ``photos/val`` and whatever they lie in.

    Raises
    ------
    UsageError
        If an image lies in a folder that has no class.
    """
    if source.groups is None:
        return None
    classes = {folder: index for index, folder in enumerate(folders)}
    groups = dict(zip(source.ids, source.groups, strict=True))
    wanted = {groups[name] for name in ids if name in groups}
    found = {group: classes.get(group, classes.get(PurePosixPath(group).name)) for group in wanted}
    missing = sorted(group for group, place in found.items() if place is None)
    if missing:
        others = f" (and {len(missing) - 1:,} others)" if len(missing) > 1 else ""
        raise UsageError(f"`labels=` has no prompt for the folder {missing[0]}{others}")
    return torch.tensor([found.get(groups.get(name, ""), 0) for name in ids])


def scene_targets(source: SceneSource, ids: Sequence[str]) -> Int[Tensor, "image"]:
    """Class of every demo scene."""
    known = dict(zip(source.ids, labels(source.factors()).tolist(), strict=True))
    return torch.tensor([known.get(name, 0) for name in ids])
