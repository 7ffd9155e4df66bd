"""What an artefact looks like in a notebook: a few lines on what it is and what it is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from xaikit.artifacts.tables import tables, to_pandas
from xaikit.errors import UsageError
from xaikit.text import printable

if TYPE_CHECKING:
    import pandas

_ROWS = 8
"""Records that a notebook shows."""

_OPTIONS = 12
"""Options that a line names."""


class Shown:
    """How artefacts print, compare and turn into tables."""

    def __init_subclass__(cls, **details: Any) -> None:
        super().__init_subclass__(**details)
        # A dataclass would write its own of these, with every number of every tensor.
        for name in ("__repr__", "__eq__"):
            if name not in cls.__dict__:
                setattr(cls, name, getattr(Shown, name))

    def __repr__(self) -> str:
        name, *rest = describe(self)
        return "\n".join([name, *(f"  {line}" for line in rest)])

    def _repr_html_(self) -> str:
        name, *rest = map(escape, describe(self))
        lines = "".join(f"<div>{line}</div>" for line in rest)
        return f"<div><strong>{name}</strong>{lines}{_table(self)}</div>"

    def __eq__(self, other: object) -> bool:
        """Whether both are of one kind and have the same content."""
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        return bool(_content(self) == _content(other))

    __hash__ = None  # type: ignore[assignment]

    def to_pandas(self, table: str | None = None) -> pandas.DataFrame:
        """The records as a data frame, see `xaikit.artifacts.tables`."""
        return to_pandas(self, table)

    to_dataframe = to_pandas


def _content(artifact: Any) -> Any:
    """What two artefacts are compared by: their fields, tensors by the hash of their content."""
    if hasattr(artifact, "to_dict"):
        return artifact.to_dict()
    if hasattr(artifact, "info"):
        return artifact.identity
    return artifact.identity, artifact._fields()


def describe(artifact: Any) -> list[str]:
    """Its name and sizes, then what it was made from, one fact a line."""
    sizes = _SIZES.get(getattr(artifact, "STAGE", "trace"))
    name = type(artifact).__name__
    lines = [f"{name}: {sizes(artifact)}" if sizes else name]
    made = artifact.provenance
    lines.append(
        f"of {made.origin.model} ({made.origin.pretrained}), gates of layer {made.layer} → "
        f"attention of layer {made.next_layer}"
    )
    chosen = [f"{key}={_short(value)}" for key, value in made.options.items() if key != "request"]
    if chosen:
        more = [f"… {len(chosen) - _OPTIONS} more"] if len(chosen) > _OPTIONS else []
        lines.append("made with " + ", ".join([*chosen[:_OPTIONS], *more]))
    path = getattr(artifact, "path", None)
    if path is not None:
        lines.append(f"kept in {path}")
    return lines


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _table(artifact: Any) -> str:
    """The first records, as HTML; nothing where there are none."""
    if getattr(artifact, "STAGE", "") == "fit":
        return ""
    try:
        columns = next(iter(tables(artifact).values()))
    except UsageError:
        return ""
    names = [name for name in columns if any(value is not None for value in columns[name])]
    count = len(next(iter(columns.values()), []))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(columns[name][at]))}</td>" for name in names) + "</tr>"
        for at in range(min(count, _ROWS))
    )
    more = f"<div>… {count - _ROWS} more</div>" if count > _ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _held(images: Sequence[int]) -> str:
    return f"{len(images):,} held out" if images else "none held out"


def _trace(found: Any) -> str:
    i = found.info
    return (
        f"{len(found):,} images × {i.tokens} tokens, {i.heads} heads, {i.ffn_width:,} gates a token"
    )


def _features(found: Any) -> str:
    images, tokens = found.labels.shape
    return (
        f"{found.num_clusters} clusters of {images:,} images × {tokens} tokens, "
        f"{_held(found.heldout)}"
    )


def _fit(found: Any) -> str:
    space = found.space
    ends = "clusters" if space.to_clusters else "tokens"
    return (
        f"{len(space):,} edges ({space.clusters} clusters × {space.heads} heads × {space.width} "
        f"{ends}), R² {found.r2:.3f}, {found.num_images:,} images, tested on "
        f"{found.num_test_images:,}"
    )


def _circuit(found: Any) -> str:
    shown = f"{len(found.paths)} edges to {found.destination}s by {found.rank}"
    if found.significant is None:
        return f"{shown}, none tested"
    return f"{shown}, {found.significant:,} of {found.tested:,} significant at q ≤ 0.05"


_SIZES: dict[str, Callable[[Any], str]] = {
    "trace": _trace,
    "cluster": _features,
    "fit": _fit,
    "circuit": _circuit,
    "causal": lambda c: f"effects of {len(c.effects)} clusters, {c.num_permutations} permutations",
    "target-causal": lambda c: (
        f"effects of {len(c.effects)} edges, {c.num_permutations} permutations"
    ),
    "intervene": lambda c: (
        f"{len(c.curves)} curves and {len(c.effects)} edges on {c.num_images} images, "
        f"{'held out' if c.heldout else 'not held out'}, ablation {c.ablation}"
    ),
    "explain": lambda c: (
        f"{len(c.edges)} edges of {printable(c.image)} by {c.rank}, measured on {len(c.tested)} "
        "other views"
    ),
    "groups": lambda c: f"circuits of {len(c.groups)} groups of images by {c.rank}",
    "baselines": lambda c: f"{len(c.rows)} predictions, tested on {c.num_test_images:,} images",
    "stability": lambda c: f"{len(c.rows)} numbers of clusters, {c.seeds} seeds",
    "choose-clusters": lambda c: f"{c.num_clusters} clusters, of {len(c.rows)} numbers",
}
