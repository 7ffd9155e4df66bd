"""Images of a Hugging Face data set: a folder that it was saved to, or its name on the hub.

The files are read as the data set stores them, by the same decoder as every other source's.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.decoding import BadImage, decode, read_image
from xaikit.images.digests import digest_of, digest_of_failure

_FORM = "NAME[@CONFIG][:SPLIT[:COLUMN]]"


class Spec(NamedTuple):
    """What `open_dataset` is asked for."""

    name: str
    config: str | None
    split: str | None
    column: str | None

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read ``NAME[@CONFIG][:SPLIT[:COLUMN]]``; a folder that exists may have any name."""
        parts = text.split(":")
        cuts = [len(parts) - i for i in range(3)]
        folders = (cut for cut in cuts if cut > 0 and _is_folder(":".join(parts[:cut])))
        cut = next(folders, 1)
        name, rest, config = ":".join(parts[:cut]), parts[cut:], None
        if not _is_folder(name) and "@" in name:
            name, _, config = name.rpartition("@")
        if not name or len(rest) > 2:
            raise UsageError(f"`dataset={text!r}`: expected {_FORM}")
        split, column = [*(each or None for each in rest), None, None][:2]
        return cls(name, config or None, split, column)

    def __str__(self) -> str:
        config = f"@{self.config}" if self.config else ""
        rest = [each or "" for each in (self.split, self.column)]
        return ":".join([self.name + config, *rest]).rstrip(":")


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """An `ImageSource` of one column of one split.

    Attributes
    ----------
    rows : datasets.Dataset
        The column alone, its images as ``bytes`` and ``path``.
    spec : Spec
        With split and column filled in.
    ids : list of str
        ``SPLIT/ROW``.
    groups : list of str, optional
        Names of the labels, where there are labels.
    limit : int, optional
        Usable images wanted.
    """

    rows: Any = field(repr=False)
    spec: Spec
    ids: list[str] = field(repr=False)
    groups: list[str] | None = field(repr=False)
    limit: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, i: int) -> Image.Image:
        """Decode the image of row `i`, see `decode`."""
        return decode(io.BytesIO(self._read(i)), self.ids[i])

    def digest(self, i: int) -> str:
        """The digest of the bytes of row `i`, or of why they cannot be had."""
        try:
            return digest_of(self._read(i))
        except BadImage as error:
            return digest_of_failure(error.reason)

    def _read(self, i: int) -> bytes:
        try:
            stored = self.rows[i][self.spec.column]
        # pyarrow and datasets raise what they like on a damaged file.
        except Exception as error:
            raise BadImage(self.ids[i], "its row cannot be read") from error
        if stored is None:
            raise BadImage(self.ids[i], "no image in this row")
        if stored["bytes"] is not None:
            return bytes(stored["bytes"])
        if not stored["path"] or "://" in stored["path"]:
            raise BadImage(self.ids[i], "its file is not in the data set")
        return read_image(Path(stored["path"]), self.ids[i])[0]

    def describe(self) -> dict[str, Any]:
        """What it takes to open the same rows again."""
        return {"kind": "datasets", "spec": str(self.spec), "count": len(self.ids)}


def open_dataset(text: str | os.PathLike[str], *, limit: int | None = None) -> DatasetSource:
    """Open one split of a data set.

    Parameters
    ----------
    text : str or path
        ``NAME[@CONFIG][:SPLIT[:COLUMN]]``: a folder that ``save_to_disk`` wrote, any folder that
        ``datasets.load_dataset`` reads, or a name on the hub. Where there is one split, or one
        column of images, it need not be named.
    limit : int, optional
        Usable images wanted.

    Raises
    ------
    UsageError
        The package is not installed, there is no such data set, or the split or the column is
        not the only one.
    """
    spec = Spec.parse(os.fspath(text))
    rows, split = _split(_loaded(spec), spec)
    column = _column(rows, spec)
    # Optional, and slow to import.
    from datasets import Image as ImageFeature

    groups = _labels(rows)
    stored = rows.select_columns([column]).cast_column(column, ImageFeature(decode=False))
    if not len(stored):
        raise UsageError(f"`dataset={spec}`: no rows in split {split}")
    folder = os.path.abspath(os.path.expanduser(spec.name))
    name = folder if _is_folder(spec.name) else spec.name
    return DatasetSource(
        rows=stored,
        spec=Spec(name, spec.config, split, column),
        ids=[f"{split}/{row:08d}" for row in range(len(stored))],
        groups=groups,
        limit=limit,
    )


def _is_folder(name: str) -> bool:
    return bool(name) and os.path.isdir(os.path.expanduser(name))


def _loaded(spec: Spec) -> Any:
    try:
        # Optional, and slow to import.
        import datasets
    except ImportError:
        raise UsageError(
            "`dataset=` needs the package datasets: pip install 'xaikit[datasets]'"
        ) from None
    folder = Path(spec.name).expanduser()
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if any((folder / name).exists() for name in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(str(folder) if folder.is_dir() else spec.name, spec.config)
    # From a missing file to a hub that does not answer: what matters is the first line.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"`dataset={spec}`: datasets says: {lines[0]}") from error
    finally:
        if not shown:
            datasets.enable_progress_bars()


def _split(loaded: Any, spec: Spec) -> tuple[Any, str]:
    """The rows of the split asked for, and its name."""
    if not hasattr(loaded, "keys"):
        own = str(loaded.split) if loaded.split is not None else "all"
        if spec.split not in (None, own):
            raise UsageError(f"`dataset={spec}`: its only split is {own}")
        return loaded, own
    names = sorted(map(str, loaded))
    wanted = names[0] if spec.split is None and len(names) == 1 else spec.split
    if wanted not in names:
        example = Spec(spec.name, spec.config, names[0] if names else "train", spec.column)
        raise UsageError(
            f"`dataset={spec}`: its splits are {', '.join(names)}; name one, as in {example}"
        )
    return loaded[wanted], str(wanted)


def _column(rows: Any, spec: Spec) -> str:
    found = [name for name, kind in rows.features.items() if type(kind).__name__ == "Image"]
    if spec.column is not None and spec.column in found:
        return spec.column
    if spec.column is None and len(found) == 1:
        return str(found[0])
    if not found:
        raise UsageError(
            f"`dataset={spec}`: no column of images among {', '.join(rows.features) or 'none'}"
        )
    raise UsageError(
        f"`dataset={spec}`: its columns of images are {', '.join(found)}; name one as {_FORM}"
    )


def _labels(rows: Any) -> list[str] | None:
    """Names of the only column of class labels, or of the one that is called ``label``.

    Without classes, the values of a column of that name.
    """
    kinds = rows.features
    classes = [name for name, kind in kinds.items() if type(kind).__name__ == "ClassLabel"]
    if len(classes) > 1:
        classes = [name for name in classes if name == "label"]
    if classes:
        names = kinds[classes[0]].names
        found = list(rows.select_columns(classes)[classes[0]])
        return ["" if each is None or each < 0 else str(names[each]) for each in found]
    if getattr(kinds.get("label"), "dtype", None) in ("string", "large_string", "int64", "int32"):
        found = list(rows.select_columns(["label"])["label"])
        return ["" if each is None else str(each) for each in found]
    return None
