"""Folders of weights and configs: on Hugging Face's hub, in its cache, or anywhere on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError

from xaikit.errors import UsageError, XaikitError
from xaikit.towers.downloads import downloads

HUB, LOCAL = "hf-hub:", "local-dir:"
OPEN_CLIP_CONFIG, CONFIG = "open_clip_config.json", "config.json"
_OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder that holds a model.

    Attributes
    ----------
    name : str
        As it was given.
    root : Path, optional
        Where it is on disk; None for one on the hub.
    """

    name: str
    root: Path | None = None

    def file(self, name: str) -> Path | None:
        """A file of the folder, downloaded where it is the hub's; None where there is none."""
        if self.root is not None:
            path = self.root / name
            return path if path.is_file() else None
        repository, _, revision = self.name.removeprefix(HUB).partition("@")
        try:
            with downloads():
                return Path(hf_hub_download(repository, name, revision=revision or None))
        except HFValidationError:
            raise UsageError(f"{self.name} is no name of the hub: expected {HUB}ORG/NAME") from None
        except Exception:
            # Not there, not allowed, not to be reached: whichever, the caller says what to pass.
            return None

    def config(self, name: str) -> dict[str, Any] | None:
        """A JSON object of the folder; None where there is none.

        Raises
        ------
        UsageError
            If the file is no JSON object.
        """
        path = self.file(name)
        return None if path is None else read_json(path)

    def weights(self) -> Path:
        """The file of weights: open_clip's own first, which belongs to open_clip's own config.

        Raises
        ------
        UsageError, XaikitError
            If the folder has none, or nothing of it can be had.
        """
        first = _OPEN_CLIP_WEIGHTS if self.file(OPEN_CLIP_CONFIG) else ()
        names = (*first, *_WEIGHTS)
        for name in names:
            path = self.file(name)
            if path is not None:
                return path
        if self.root is None:
            raise unavailable(self)
        others = sorted(
            path for path in self.root.iterdir() if path.suffix in (".safetensors", ".bin", ".pt")
        )
        if len(others) == 1:
            return others[0]
        what = f"several ({', '.join(path.name for path in others[:3])})" if others else "none"
        raise UsageError(
            f"{self.name} should hold one file of weights and holds {what}: expected one of "
            f"{', '.join(names)}, or pass the file itself"
        )


def folder_of(name: str) -> Folder | None:
    """The folder that a ``--model`` or ``--pretrained`` names; None where it names none.

    Raises
    ------
    UsageError
        If it names a folder that does not exist or a cache that holds nothing of the model.
    """
    if name.startswith(HUB):
        return Folder(name=name)
    given = name.removeprefix(LOCAL)
    root = Path(given).expanduser()
    if not given or not root.is_dir():
        if name.startswith(LOCAL):
            raise UsageError(f"{name}: there is no folder {given or '(empty)'}")
        return None
    return Folder(name=name, root=_snapshot(root))


def _snapshot(root: Path) -> Path:
    """The folder itself, or the snapshot that a cache folder of the hub points to."""
    snapshots = root / "snapshots"
    if not snapshots.is_dir():
        return root
    main = root / "refs" / "main"
    if main.is_file():
        chosen = snapshots / main.read_text(encoding="utf-8").strip()
        if chosen.is_dir():
            return chosen
    every = sorted(path for path in snapshots.iterdir() if path.is_dir())
    if len(every) != 1:
        raise UsageError(
            f"{root} is a cache folder of {len(every)} snapshots and no refs/main: pass one of "
            f"{snapshots}"
        )
    return every[0]


def unavailable(folder: Folder) -> XaikitError:
    """One line for what is neither cached nor to be had."""
    return XaikitError(
        f"{folder.name} is not cached here and cannot be downloaded, or holds no model; pass a "
        f"folder ({LOCAL}PATH) or a checkpoint"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    UsageError
        If the file is missing or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"config {path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"config {path} is no readable JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"config {path} is no JSON object")
    return content
