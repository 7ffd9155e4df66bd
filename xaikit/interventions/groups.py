"""Which image is in which group: what ``--group`` takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xaikit.errors import UsageError
from xaikit.interventions.pairs import read_rows

FOLDER = "folder"
HEADER = ("image", "group")


def image_groups(
    given: str, ids: Sequence[str], folders: Sequence[str] | None
) -> dict[str, list[int]]:
    """Rows of the images of each group, groups in the order of their names.

    Parameters
    ----------
    given : str
        ``folder``, or a file: CSV of two columns (a first line ``image,group`` is a heading), or
        JSON: an object of image to group. In place of an image a folder stands for all of its
        images. Images that it does not name are in no group.
    ids : sequence of str
        Of the images of a run.
    folders : sequence of str, optional
        Folder of each image, where there are any.

    Raises
    ------
    UsageError
        Where images lie in no folders, the file cannot be read, or it names none of the images.
    """
    if given == FOLDER:
        if folders is None:
            raise UsageError("`group=folder`: the images lie in no folders; pass a file")
        named: Sequence[str | None] = folders
    else:
        named = _of_file(Path(given), ids, folders)
    found: dict[str, list[int]] = {}
    for row, name in enumerate(named):
        if name is not None:
            found.setdefault(name, []).append(row)
    if len(found) < 2:
        raise UsageError(f"`group={given}`: {len(found)} group of images; expected two or more")
    return dict(sorted(found.items()))


def _of_file(path: Path, ids: Sequence[str], folders: Sequence[str] | None) -> list[str | None]:
    where = f"`group={path}`"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UsageError(f"{where}: {reason}") from None
    known = {*ids, *(folders or ())}
    groups: dict[str, str] = {}
    for place, row in read_rows(where, path, text, HEADER):
        if len(row) != 2 or not all(isinstance(name, str) and name.strip() for name in row):
            raise UsageError(f"{where}, {place}: expected an image or a folder, and its group")
        name, group = (each.strip() for each in row)
        if name not in known:
            raise UsageError(f"{where}, {place}: {name} is no image and no folder of the run")
        if groups.setdefault(name, group) != group:
            raise UsageError(f"{where}, {place}: {name} is in the group {groups[name]} already")
    own = [None] * len(ids) if folders is None else [groups.get(each) for each in folders]
    return [groups.get(name, folder) for name, folder in zip(ids, own, strict=True)]
