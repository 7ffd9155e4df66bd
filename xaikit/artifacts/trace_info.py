"""What a trace says beside its tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.records import Provenance
from xaikit.errors import UsageError


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
        Images that could not be used (the first thousand; `skipped_count` counts all).
    tokens, heads, prefix_tokens, width, ffn_width : int
    grid : list of int
        Rows and columns of patches.
    """

    provenance: Provenance
    images: list[str]
    groups: list[str] | None
    skipped: list[list[str]] = field(default_factory=list)
    skipped_count: int = 0
    tokens: int
    heads: int
    prefix_tokens: int
    width: int
    ffn_width: int
    grid: list[int]
    source: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)

    SHARED = (
        "groups",
        "skipped",
        "skipped_count",
        "tokens",
        "heads",
        "prefix_tokens",
        "width",
        "ffn_width",
        "grid",
        "source",
        "preprocess",
    )

    @property
    def identity(self) -> str:
        """Hash of weights, images, layers and what shapes the numbers."""
        p = self.provenance
        shaping = {key: p.options.get(key) for key in ("precision", "store_dtype")}
        return fingerprint(p.origin.key(), p.layer, p.next_layer, self.preprocess, shaping)

    def fields(self) -> dict[str, Any]:
        """Header fields of a trace file."""
        own = {name: getattr(self, name) for name in self.SHARED}
        return {**self.provenance.fields("trace"), "images": self.images, **own}

    @classmethod
    def from_fields(cls, fields: dict[str, Any], path: object) -> TraceInfo:
        """Read the fields of a header."""
        try:
            return cls(
                provenance=Provenance.from_fields(fields, path),
                images=list(fields["images"]),
                **{name: fields[name] for name in cls.SHARED},
            )
        except KeyError as error:
            raise UsageError(f"{path} lacks the field {error}; it is no complete trace") from None
