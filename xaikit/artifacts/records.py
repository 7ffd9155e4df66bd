"""What every artefact says of where it came from, and how parts are matched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, ClassVar

from xaikit.artifacts.digests import DamagedError
from xaikit.artifacts.display import Shown
from xaikit.artifacts.files import FORMAT_VERSION, again, fingerprint
from xaikit.errors import UsageError
from xaikit.version import xaikit_version


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The model and the images behind an artefact.

    Attributes
    ----------
    model, pretrained : str
        As passed to ``--model`` and ``--pretrained``.
    weights_fingerprint : str
        Hash of the vision tower's weights.
    images_fingerprint : str
        Hash of the used images in order: their ids, groups and the bytes that were decoded.
    """

    model: str
    pretrained: str
    weights_fingerprint: str
    images_fingerprint: str

    def key(self) -> str:
        """One hash of model weights and images: equal for artefacts that belong together."""
        return fingerprint(self.weights_fingerprint, self.images_fingerprint)


@dataclass(kw_only=True)
class Provenance:
    """Header fields that all artefacts share.

    Attributes
    ----------
    origin : Origin
    layer, next_layer : int
        The FFN's layer and the attention's layer, from 0.
    options : dict
        Options that made the artefact.
    parents : dict
        Identity of each artefact it was made from, by stage.
    """

    origin: Origin
    layer: int
    next_layer: int
    options: dict[str, Any] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)

    def fields(self, stage: str) -> dict[str, Any]:
        """Header fields, flat, as they are written."""
        return {
            "stage": stage,
            "format_version": FORMAT_VERSION,
            "xaikit_version": xaikit_version(),
            **asdict(self.origin),
            "layer": self.layer,
            "next_layer": self.next_layer,
            "options": self.options,
            "parents": self.parents,
        }

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Provenance:
        """Read the shared fields of a header or a JSON artefact, which have been checked."""
        return cls(
            origin=Origin(**{each.name: fields[each.name] for each in dataclass_fields(Origin)}),
            layer=fields["layer"],
            next_layer=fields["next_layer"],
            options=fields["options"],
            parents=fields["parents"],
        )

    def child(self, options: dict[str, Any], **parents: str) -> Provenance:
        """Provenance of an artefact made from this one."""
        return Provenance(
            origin=self.origin,
            layer=self.layer,
            next_layer=self.next_layer,
            options=options,
            parents={**self.parents, **parents},
        )


def identity_of(
    fields: Mapping[str, Any],
    files: Sequence[str],
    digests: Mapping[str, list[str]] | None = None,
) -> str:
    """Hash of what an artefact says and holds.

    Parameters
    ----------
    fields : mapping
        Everything that is written of it; where its parents are kept and what wrote it are left
        out.
    files : sequence of str
        Names of the fields that say where its parents are kept.
    digests : mapping, optional
        Of its tensors.
    """
    skip = {"identity", "xaikit_version", *files}
    own = {name: value for name, value in fields.items() if name not in skip}
    return fingerprint(own, dict(digests or {}))


def require_identity(
    fields: Mapping[str, Any],
    files: Sequence[str],
    path: object,
    digests: Mapping[str, list[str]] | None = None,
) -> None:
    """Refuse an artefact whose identity is not that of its content.

    Raises
    ------
    DamagedError
        Naming the file and what to do.
    """
    found = identity_of(fields, files, digests)
    if fields.get("identity") != found:
        raise DamagedError(
            f"{path} says that its identity is {fields.get('identity')}, its content's is "
            f"{found}: {again(str(fields.get('stage')))}"
        )


@dataclass(kw_only=True)
class Artifact(Shown):
    """What every artefact knows: where it comes from, what it is, and where it is kept.

    Attributes
    ----------
    identity : str
        Hash of the content, see `identify` of the subclasses.
    path : Path or None
        Set by `load` and `save`; None for one that is in memory alone.
    """

    FILES: ClassVar[tuple[str, ...]] = ()
    """Fields that name the files of its parents: relative to its own folder in a file, as paths
    that can be opened in memory; empty where a parent was never written."""

    provenance: Provenance
    identity: str = ""
    path: Path | None = field(default=None, compare=False, repr=False)

    def _written_files(self, path: Path) -> dict[str, Any]:
        """`FILES` as they are written into a file at `path`."""
        folder = os.path.abspath(path.parent)
        return {
            name: _each(getattr(self, name), lambda value: _recordable(value, folder))
            for name in self.FILES
        }

    @classmethod
    def _read_files(cls, fields: dict[str, Any], path: Path) -> dict[str, Any]:
        """`FILES` as they are to be opened, of an artefact read from `path`."""
        return {
            name: _each(fields.get(name, ""), lambda value: os.path.normpath(path.parent / value))
            for name in cls.FILES
        }

    @property
    def layer(self) -> int:
        """The layer whose FFN was read."""
        return self.provenance.layer

    @property
    def next_layer(self) -> int:
        """The layer whose attention was read."""
        return self.provenance.next_layer


def _recordable(path: str, folder: str) -> str:
    """A path as seen from a folder; refused where JSON, which is Unicode, cannot hold it."""
    relative = os.path.relpath(path, folder)
    try:
        relative.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{relative} is a name of bytes that are no UTF-8, which a result cannot record: "
            "rename it, or write elsewhere"
        ) from None
    return relative


def _each(value: str | list[str], change: Callable[[str], str]) -> str | list[str]:
    """Change a path, or each of several; one that names nothing stays empty."""
    if isinstance(value, list):
        return [change(one) for one in value]
    return change(value) if value else ""


def file_of(parent: Any) -> str:
    """Where a parent is kept, for a field of `Artifact.FILES`; empty where it is in memory."""
    return str(parent.path) if parent.path is not None else ""


def require_parent(child: Any, stage: str, parent: Any, *, child_name: str) -> None:
    """Refuse parts that do not belong together, such as features of another trace.

    Raises
    ------
    UsageError
        Naming both and what to do.
    """
    expected = child.provenance.parents.get(stage)
    if expected != parent.identity:
        raise UsageError(
            f"the {child_name} file was not made from this {stage} file "
            f"({child_name} of {stage} {expected}, given {stage} {parent.identity}): "
            f"pass the {stage} it was made from, or make the {child_name} again"
        )
