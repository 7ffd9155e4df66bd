"""`pairs`: images that differ in one thing, for ``--ablation pair``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from xaikit.artifacts.option_values import INT64
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.errors import OptionError, UsageError
from xaikit.images.scenes import FACTORS


class Kind(StrEnum):
    """Where pairs come from."""

    demo = "demo"
    typographic = "typographic"


@o.command(
    "pairs",
    examples=[
        "xaikit pairs demo --factor colour --out pairs",
        "xaikit pairs typographic photos --words words.txt --out pairs",
        "xaikit intervene --images pairs/images --ablation pair --pairs pairs/pairs.csv",
    ],
)
def pairs(
    session: Session,
    kind: Annotated[
        Kind,
        typer.Argument(help="Scenes with one factor changed, or images with a word written on."),
    ],
    images: Annotated[
        Path | None, typer.Argument(help="Folder of images, for typographic.")
    ] = None,
    words: Annotated[
        Path | None, typer.Option("--words", help="Words, one a line, written on in turn.")
    ] = None,
    factor: Annotated[
        str, typer.Option("--factor", help=f"What demo scenes differ in: {', '.join(FACTORS)}.")
    ] = FACTORS[0],
    count: Annotated[
        int | None, typer.Option("--count", help="Pairs; default: 64 scenes, or all images.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the demo's scenes.")] = 0,
    out: Annotated[Path, typer.Option("--out", help="New folder.")] = Path("pairs"),
) -> None:
    """Make pairs of images that differ in one thing."""
    from xaikit.images import open_images
    from xaikit.images.pairs import demo_pairs, read_words, save_pairs, typographic_pairs
    from xaikit.interventions.pairs import write_pairs

    for name, value, least in (("count", count, 1), ("seed", seed, 0)):
        if value is not None and not least <= value <= INT64:
            raise OptionError(name, value, f"{least} or more, in 64 bits")
    if kind is Kind.demo:
        if images is not None or words is not None:
            raise UsageError("xaikit pairs demo draws its images: leave out IMAGES and --words")
        made, suffix = demo_pairs(count or 64, factor, seed), factor
    else:
        if images is None or words is None:
            raise UsageError("xaikit pairs typographic needs IMAGES and --words FILE")
        source = open_images(images=images, imagenet_root=None, split="val", webdataset=None)
        made, suffix = typographic_pairs(source, read_words(words), count), "word"
    partners = save_pairs(made, out, suffix)
    write_pairs(out / "pairs.csv", partners)
    written = {"images": str(out / "images"), "file": str(out / "pairs.csv")}
    session.result(
        {"pairs": len(partners) // 2, **written},
        f"{len(partners) // 2:,} pairs, each image the other's partner",
        f"→ {out / 'pairs.csv'} · {out / 'images'}",
    )
