"""`explain`: one image, and what every layer and head of a model attends to in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xaikit.artifacts.file_names import CIRCUIT, EXPLAIN, FEATURES, FIT
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
from xaikit.cli.inputs import Parts, of_the_circuit, open_source, open_tower
from xaikit.errors import UsageError
from xaikit.stages.explain import ExplainOptions

if TYPE_CHECKING:
    from xaikit.artifacts.explanation import Explanation
    from xaikit.images import ImageSource
    from xaikit.report.page.explained import Explained
    from xaikit.towers import Tower


@o.command(
    "explain",
    examples=[
        "xaikit explain demo/0/000003",
        "xaikit explain cat.jpg --model ViT-B-32 --pretrained openai --plot attention.svg",
        "xaikit explain photos/val/cat.jpg --run xaikit-out",
        'xaikit explain demo/0/000003 --run xaikit-out --toward "top red circle"',
    ],
)
def explain(
    session: Session,
    given: o.Given,
    typed: o.Typed,
    model: ModelOptions,
    form: FormatOptions,
    preprocess: PreprocessOptions,
    options: ExplainOptions,
    image: Annotated[
        str,
        typer.Argument(help="A file, or the id of an image of the run (or of the demo's scenes)."),
    ],
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", help="Folder of `run-all`: adds the image's clusters and its own circuit."
        ),
    ] = None,
    labels: o.Labels = None,
    vocabulary: Annotated[
        Path | None, typer.Option("--vocabulary", help="Words for the run's clusters, one a line.")
    ] = None,
    names: Annotated[
        bool,
        typer.Option("--names/--no-names", help="Run the model to find words for clusters."),
    ] = True,
    out: o.Out = Path(EXPLAIN),
    plot: Annotated[
        Path | None, typer.Option(help="Picture of where the class token attends.")
    ] = None,
) -> None:
    """Write one image as an HTML page: the attention of every layer and head."""
    from xaikit.images.views import find_image
    from xaikit.report.page.explained import Explained, write_explained

    if run is None and (labels is not None or vocabulary is not None):
        raise UsageError("--labels and --vocabulary are for --run, the folder of a run")
    if run is not None and plot is not None and plot.resolve() == out.with_suffix(".png").resolve():
        raise UsageError(
            f"--plot {plot}: with --run a picture of that name is written beside --out; pass "
            "another name"
        )
    opened, options = _opened(run, given, model, form, preprocess, session, labels, options)
    picture = find_image(opened.source, image)
    found = Explained.of(opened.tower, image, picture)
    if run is not None:
        import numpy as np

        from xaikit.images import framed
        from xaikit.report.explanation import draw_explanation
        from xaikit.report.page import Naming
        from xaikit.report.page.own_circuit import OwnCircuit

        with session.progress("explain") as progress:
            made = _explanation(opened, image, picture, labels, options, progress)
            made.save(out.with_suffix(".json"))
            seen = np.asarray(framed(picture, opened.tower.preprocess))
            draw_explanation(made, seen, out.with_suffix(".png"))
            naming = Naming(wanted=names, vocabulary=vocabulary, tower=opened.tower)
            found.own = OwnCircuit.of(made, run, naming, progress)
    path = write_explained(found, out, command=typed.line("explain"))
    _report(session, found, path, plot)


@dataclass(frozen=True)
class _Opened:
    """The model, the images among which one may be named, and the layers of a run."""

    tower: Tower
    source: ImageSource | None
    layers: list[Parts]
    rank: str | None = None


def _opened(
    run: Path | None,
    given: o.Given,
    model: ModelOptions,
    form: FormatOptions,
    preprocess: PreprocessOptions,
    session: Session,
    labels: Path | None,
    options: ExplainOptions,
) -> tuple[_Opened, ExplainOptions]:
    if run is None:
        demo = model.model == DEMO
        source = open_source(ImageOptions(), model, seed=form.seed) if demo else None
        return _Opened(open_tower(model, form, preprocess, session=session), source, []), options
    from xaikit.artifacts.run_record import run_folders

    folders = run_folders(run) or [run]
    circuit = next((p for p in (run, folders[0]) if (p / CIRCUIT).exists()), None)
    layers = [
        Parts(
            None,
            folder / FEATURES,
            folder / FIT,
            circuit / CIRCUIT if circuit else None,
        )
        for folder in folders
    ]
    named = ("model", "pretrained", "like_tag", "quick_gelu")
    own = FitModelOptions(**{name: given[name] for name in named if name in given})
    ranked = layers[0].circuit
    options = of_the_circuit(session, options, given, ranked)
    tower = layers[0].tower(own, form, preprocess, labels=labels, toward=options.toward)
    rank = ranked.rank if ranked else None
    return _Opened(tower, layers[0].source(ImageOptions()), layers, rank), options


def _explanation(
    opened: _Opened,
    image: str,
    picture: Any,
    labels: Path | None,
    options: ExplainOptions,
    progress: Any,
) -> Explanation:
    from xaikit.interventions.classifiers import classifier_for
    from xaikit.stages.explain import explain as stage

    assert opened.source is not None
    first = opened.layers[0]
    ids = first.ids(opened.source)
    return stage(
        opened.tower,
        opened.source,
        [(each.features, each.fit) for each in opened.layers],
        picture,
        name=image,
        ids=ids,
        rank=opened.rank,
        classifier=classifier_for(opened.tower, opened.source, labels, ids),
        options=options,
        progress=progress,
    )


def _report(session: Session, found: Explained, path: Path, plot: Path | None) -> None:
    from rich.text import Text

    from xaikit.report.page.explained import sentences
    from xaikit.report.page.provenance import size_text

    written = {"explain": str(path)}
    if found.own is not None:
        written["record"] = str(path.with_suffix(".json"))
        written["picture"] = str(path.with_suffix(".png"))
    if plot is not None:
        from xaikit.report.attention_figure import plot_attention

        written["plot"] = str(plot_attention(found, plot))
    size = path.stat().st_size
    shown = " · ".join([f"→ {path} ({size_text(size)})", *list(written.values())[1:]])
    session.result(
        {**written, "bytes": size, **found.fields()},
        *(Text(line) for line in sentences(found)),
        Text(shown),
    )
