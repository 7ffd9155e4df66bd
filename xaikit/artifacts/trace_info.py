"""What a trace says beside its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from xaikit.artifacts.digests import DamagedError
from xaikit.artifacts.files import again, fingerprint
from xaikit.artifacts.records import Provenance
from xaikit.artifacts.schema import require_schema
from xaikit.errors import UsageError


class Named(Protocol):
    """Images that have names and perhaps groups: a source of them, for one."""

    @property
    def ids(self) -> Sequence[str]:
        """One name an image."""
        ...

    @property
    def groups(self) -> Sequence[str] | None:
        """The group of every image."""
        ...


@dataclass(kw_only=True)
class TraceInfo:
    """Everything a trace says beside its tensors.

    Attributes
    ----------
    provenance : Provenance
    images : list of str
        Ids, in the order of the tensors' first axis.
    groups : list of str or None
        Folder or class of each image.
    skipped : list of [id, reason]
        Images that could not be used.
    skipped_at : list of int
        Where those were among the candidates, ascending.
    skipped_groups : list of str or None
    tokens, heads, width, ffn_width : int
    prefix_kinds : list of str
        What each token before the patches is, such as ``class token`` and ``register 1``.
    grid : list of int
        Rows and columns of patches.
    tower : dict
        Where weights, preprocessing and activation came from, and the outcome of the self-check;
        empty for a model that was built by hand.
    """

    provenance: Provenance
    images: list[str]
    groups: list[str] | None
    skipped: list[list[str]] = field(default_factory=list)
    skipped_at: list[int] = field(default_factory=list)
    skipped_groups: list[str] | None = None
    tokens: int
    heads: int
    prefix_kinds: list[str] = field(default_factory=list)
    width: int
    ffn_width: int
    grid: list[int]
    source: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)
    tower: dict[str, Any] = field(default_factory=dict)

    SHARED = (
        "groups",
        "skipped",
        "skipped_at",
        "skipped_groups",
        "tokens",
        "heads",
        "prefix_kinds",
        "width",
        "ffn_width",
        "grid",
        "source",
        "preprocess",
        "tower",
    )

    @property
    def identity(self) -> str:
        """Hash of weights, images, layers and what shapes the numbers."""
        p = self.provenance
        shaping = {key: p.options.get(key) for key in ("precision", "store_dtype")}
        return fingerprint(p.origin.key(), p.layer, p.next_layer, self.preprocess, shaping)

    @property
    def sizes(self) -> tuple[object, ...]:
        """How images were read: equal for the parts of one trace."""
        found = (self.tokens, self.heads, self.width, self.ffn_width, self.grid)
        return *found, self.prefix_kinds, self.preprocess

    @property
    def prefix_tokens(self) -> int:
        """How many tokens come before the patches."""
        return len(self.prefix_kinds)

    @property
    def skipped_count(self) -> int:
        """Images that could not be used."""
        return len(self.skipped)

    @property
    def candidates(self) -> int:
        """Images that were asked for, usable or not."""
        return len(self.images) + len(self.skipped_at)

    def candidate_positions(self) -> np.ndarray:
        """The candidate behind each used image ``[image]`` int64, ascending."""
        there = np.ones(self.candidates, dtype=bool)
        there[self.skipped_at] = False
        return np.flatnonzero(there)

    def candidate_ids(self) -> tuple[list[str], list[str] | None]:
        """Ids and groups of all candidates, in order."""
        names = [""] * self.candidates
        groups = [""] * self.candidates
        lost = zip(self.skipped_at, self.skipped, self.skipped_groups or [], strict=False)
        for at, (name, _) in zip(self.skipped_at, self.skipped, strict=True):
            names[at] = name
        for at, _, group in lost:
            groups[at] = group
        for row, at in enumerate(self.candidate_positions().tolist()):
            names[at] = self.images[row]
            groups[at] = self.groups[row] if self.groups else ""
        return names, groups if self.groups else None

    def with_skipped(
        self, used: list[int], skipped: list[tuple[int, str]], names: Named, fingerprint: str
    ) -> TraceInfo:
        """What is to be said once it is known which candidates could be used.

        Parameters
        ----------
        used : list of int
            Candidates, ascending.
        skipped : list of (int, str)
            Candidates that could not, and why.
        names : Named
            Whose first images are the candidates.
        fingerprint : str
            Of the used images' content.
        """
        groups, lost = names.groups, sorted(skipped)
        p = self.provenance
        return replace(
            self,
            provenance=replace(p, origin=replace(p.origin, images_fingerprint=fingerprint)),
            images=[names.ids[i] for i in used],
            groups=[groups[i] for i in used] if groups else None,
            skipped=[[names.ids[i], reason] for i, reason in lost],
            skipped_at=[i for i, _ in lost],
            skipped_groups=[groups[i] for i, _ in lost] if groups else None,
        )

    def require_counts(self, path: object, *, whole: bool = True) -> None:
        """Refuse lists that do not go together.

        Parameters
        ----------
        path : object
        whole : bool
            Whether it is a whole trace and no shard, whose candidates start at another one's end.

        Raises
        ------
        UsageError
            Naming `path` and the list.
        """
        used, lost = len(self.images), len(self.skipped)
        lists = (
            ("groups", self.groups, used),
            ("skipped_at", self.skipped_at, lost),
            ("skipped_groups", self.skipped_groups, lost),
        )
        wrong = [name for name, each, count in lists if each is not None and len(each) != count]
        beyond = whole and any(at >= used + lost for at in self.skipped_at)
        if sorted(set(self.skipped_at)) != self.skipped_at or beyond:
            wrong.append("skipped_at")
        if any(len(each) != 2 for each in self.skipped):
            wrong.append("skipped")
        if wrong:
            raise UsageError(
                f"{path}: {wrong[0]} does not go with its {used:,} images, {lost:,} more "
                f"skipped: {again('trace')}"
            )

    def recorded(self) -> dict[str, Any]:
        """The record of a run's images that features carry: `Features.info` reads it back."""
        own = {name: getattr(self, name) for name in self.SHARED}
        return {"options": self.provenance.options, "images": self.images, **own}

    def fields(self) -> dict[str, Any]:
        """Header fields of a trace file."""
        own = {name: getattr(self, name) for name in self.SHARED}
        return {**self.provenance.fields("trace"), "images": self.images, **own}

    @classmethod
    def from_fields(cls, fields: dict[str, Any], path: object, *, whole: bool = True) -> TraceInfo:
        """Read the fields of a header."""
        require_schema(path, fields, "trace", cls)
        found = cls(
            provenance=Provenance.from_fields(fields),
            images=fields["images"],
            **{name: fields[name] for name in cls.SHARED if name in fields},
        )
        found.require_counts(path, whole=whole)
        if fields.get("identity") != found.identity:
            raise DamagedError(
                f"{path} says that its identity is {fields.get('identity')}, its content's is "
                f"{found.identity}: {again('trace')}"
            )
        return found
