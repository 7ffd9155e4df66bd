"""`explain`: one image, and what every layer and head of a model attends to in it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xaikit.artifacts.inputs import (
    DEMO,
    FitModelOptions,
    FormatOptions,
    ImageOptions,
    ModelOptions,
    PreprocessOptions,
)
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.inputs import Parts, open_source, open_tower

if TYPE_CHECKING:
    from xaikit.images import ImageSource
    from xaikit.report.page.explained import Explained
    from xaikit.towers import Tower


@o.command(
    "explain",
    examples=[
        "xaikit explain demo/0/000003",
        "xaikit explain cat.jpg --model ViT-B-32 --pretrained openai --plot attention.svg",
        "xaikit explain photos/val/cat.jpg --run xaikit-out",
    ],
)
def explain(
    session: Session,
    given: o.Given,
    model: ModelOptions,
    form: FormatOptions,
    preprocess: PreprocessOptions,
    image: Annotated[
        str,
        typer.Argument(help="A file, or the id of an image of the run (or of the demo's scenes)."),
    ],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Folder of `run-all`, whose model sees the image."),
    ] = None,
    out: o.Out = Path("explain.html"),
    plot: Annotated[
        Path | None, typer.Option(help="Picture of where the class token attends.")
    ] = None,
) -> None:
    """Write one image as an HTML page: the attention of every layer and head."""
    from xaikit.images.views import find_image
    from xaikit.report.page.explained import Explained, write_explained

    tower, source = _opened(run, given, model, form, preprocess, session)
    found = Explained.of(tower, image, find_image(source, image))
    command = shlex.join(["xaikit", *sys.argv[1:]])
    path = write_explained(found, out, command=command)
    _report(session, found, path, plot)


def _opened(
    run: Path | None,
    given: o.Given,
    model: ModelOptions,
    form: FormatOptions,
    preprocess: PreprocessOptions,
    session: Session,
) -> tuple[Tower, ImageSource | None]:
    """The model, and the images among which one may be named."""
    if run is None:
        demo = model.model == DEMO
        source = open_source(ImageOptions(), model, seed=form.seed) if demo else None
        return open_tower(model, form, preprocess, session=session), source
    from xaikit.stages.graph import run_folders

    folder = (run_folders(run) or [run])[0]
    parts = Parts(None, folder / "features.safetensors", folder / "fit.safetensors")
    own: dict[str, Any] = {
        name: given[name]
        for name in ("model", "pretrained", "like_tag", "quick_gelu")
        if name in given
    }
    return parts.tower(FitModelOptions(**own), form, preprocess), parts.source(ImageOptions())


def _report(session: Session, found: Explained, path: Path, plot: Path | None) -> None:
    from rich.text import Text

    from xaikit.report.page.explained import sentences
    from xaikit.report.page.provenance import size_text

    pictures = {}
    if plot is not None:
        from xaikit.report.attention_figure import plot_attention

        pictures["plot"] = str(plot_attention(found, plot))
    size = path.stat().st_size
    session.result(
        {"explain": str(path), "bytes": size, **pictures, **found.fields()},
        *(Text(line) for line in sentences(found)),
        Text(" · ".join([f"→ {path} ({size_text(size)})", *pictures.values()])),
    )
