"""The page of one image: what every layer and head of a model attends to in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaikit.artifacts.replacing import replacing
from xaikit.artifacts.tokens import CLASS_TOKEN
from xaikit.images.digests import digest_of
from xaikit.images.transform import framed, pixels_for
from xaikit.report.page.attention import Attended, attended, head_figures, packed_attention
from xaikit.report.page.pictures import data_uri
from xaikit.report.page.shell import page_text
from xaikit.text import printable
from xaikit.towers.class_names import class_names
from xaikit.version import xaikit_version

if TYPE_CHECKING:
    from PIL.Image import Image

    from xaikit.report.page.own_circuit import OwnCircuit
    from xaikit.towers import Tower

SCRIPTS = (
    "base.js",
    "paint.js",
    "shell.js",
    "curves.js",
    "explain.js",
    "explain_run.js",
    "explain_start.js",
)


@dataclass(kw_only=True)
class Explained:
    """One image seen by one model.

    Attributes
    ----------
    tower : Tower
    name : str
        The image's path or id; untrusted text.
    picture : PIL.Image.Image
        Mode RGB.
    seen : Attended
    own : OwnCircuit, optional
        Of a run.
    heads : list of dict
        See `head_figures`.
    """

    tower: Tower
    name: str
    picture: Image
    seen: Attended
    own: OwnCircuit | None = None
    heads: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        info = self.tower.info
        self.heads = head_figures(self.seen.attention, info.prefix_tokens, info.grid)

    @classmethod
    def of(cls, tower: Tower, name: str, picture: Image) -> Explained:
        """Run the model on the image."""
        pixels = pixels_for(picture, tower.preprocess)[None].to(tower.device)
        return cls(tower=tower, name=name, picture=picture, seen=attended(tower, pixels))

    @property
    def digest(self) -> str:
        """Of the image's pixels."""
        return digest_of(self.picture.tobytes())

    @property
    def classes(self) -> list[dict[str, Any]]:
        """The head's most probable classes by name."""
        names = class_names(self.tower.info.classes) if self.seen.classes else []
        return [{"class": names[at], "index": at, "p": p} for at, p in self.seen.classes]

    def fields(self) -> dict[str, Any]:
        """What a script may want of it."""
        info = self.tower.info
        return {
            "image": self.name,
            "image_digest": self.digest,
            "model": info.model,
            "pretrained": self.tower.pretrained,
            "weights_fingerprint": self.tower.weights_fingerprint,
            "tokens": info.tokens,
            "prefix_kinds": list(info.prefix_kinds),
            "grid": list(info.grid),
            "classes": self.classes,
            "heads": self.heads,
            **({"circuit": self.own.found.to_dict()} if self.own else {}),
        }


def write_explained(found: Explained, out: str | Path, *, command: str = "") -> Path:
    """Write the page of one image: one HTML file that loads nothing.

    Parameters
    ----------
    found : Explained
    out : path
    command : str
        What was typed, for the page to show.

    Returns
    -------
    Path
    """
    tower, info = found.tower, found.tower.info
    frame = framed(found.picture, tower.preprocess)
    layers, least = packed_attention(found.seen.attention, info.prefix_tokens)
    name, model = printable(found.name), printable(info.model)
    data = {
        "format": "xaikit-explain",
        "tokens": info.tokens,
        "prefix": info.prefix_tokens,
        "prefixKinds": list(info.prefix_kinds),
        "grid": list(info.grid),
        "heads": int(found.seen.attention.shape[1]),
        "images": [{"name": name, "src": data_uri(frame), "size": [frame.width, frame.height]}],
        "attention": layers,
        "figures": found.heads,
        "clusters": [],
        "own": found.own.data() if found.own else None,
    }
    text = page_text(
        "explain.html.j2",
        SCRIPTS,
        data,
        title=f"{name}: attention of {model}",
        name=name,
        model=f"{model} ({printable(tower.pretrained)})",
        info=info,
        heads=data["heads"],
        sentences=sentences(found),
        figures=found.heads,
        least=least,
        own=data["own"],
        rows=_provenance(found),
        command=printable(command),
    )
    path = Path(out)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def sentences(found: Explained) -> list[str]:
    """What there is to say of the image, in plain words."""
    said, info = found.own.sentences() if found.own else [], found.tower.info
    if found.classes:
        best, *others = [f"“{printable(c['class'])}” ({c['p']:.0%})" for c in found.classes]
        said.append(f"The model calls it {best}; then {', '.join(others[:3])}.")
    if info.prefix_tokens:
        share = found.seen.attention[:, :, info.prefix_tokens :, : info.prefix_tokens]
        by_layer = share.sum(-1).mean((1, 2))
        most = int(by_layer.argmax())
        kinds = _listed(info.prefix_kinds)
        said.append(
            f"Patches give {by_layer.mean():.0%} of their attention to the {kinds}, the most in "
            f"layer {most} ({by_layer[most]:.0%})."
        )
    widest = max(found.heads, key=lambda head: head["distance"])
    nearest = min(found.heads, key=lambda head: head["distance"])
    said.append(
        f"Of {len(found.heads)} heads, layer {nearest['layer']} head {nearest['head']} looks "
        f"closest by ({nearest['distance']:.1f} patches away on average), layer "
        f"{widest['layer']} head {widest['head']} farthest ({widest['distance']:.1f})."
    )
    return said


def _listed(kinds: tuple[str, ...]) -> str:
    registers = sum(kind.startswith("register") for kind in kinds)
    words = [kind for kind in kinds if not kind.startswith("register")]
    words += [f"{registers} register{'s' * (registers > 1)}"] if registers else []
    return " and the ".join(words)


def _provenance(found: Explained) -> list[tuple[str, str]]:
    tower, picture = found.tower, found.picture
    p = tower.preprocess
    return [
        ("image", printable(found.name)),
        ("digest of its pixels", found.digest),
        ("its size", f"{picture.width} × {picture.height} pixels"),
        ("seen by the model at", f"{p.size[1]} × {p.size[0]} pixels, {p.mode} resized"),
        ("model", printable(tower.info.model)),
        ("weights", printable(tower.pretrained)),
        ("fingerprint of the weights", tower.weights_fingerprint),
        ("page written by", f"xaikit {xaikit_version()}, {datetime.now(UTC):%Y-%m-%d %H:%M UTC}"),
    ]


def mean_rows(found: Explained) -> np.ndarray:
    """Attention of the class token ``[layer, head, key]``; the patches' mean without one."""
    attention, info = found.seen.attention, found.tower.info
    if CLASS_TOKEN in info.prefix_kinds:
        return attention[:, :, info.prefix_kinds.index(CLASS_TOKEN)]
    mean: np.ndarray = attention[:, :, info.prefix_tokens :].mean(2)
    return mean
