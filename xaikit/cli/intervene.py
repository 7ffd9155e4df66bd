"""`intervene`: run the model with edited attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xaikit.artifacts.file_names import CIRCUIT, FEATURES, FIT, INTERVENE
from xaikit.artifacts.inputs import FitModelOptions, FormatOptions, ImageOptions, PreprocessOptions
from xaikit.artifacts.run_record import run_folders
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.inputs import Parts, of_the_circuit
from xaikit.errors import UsageError
from xaikit.stages.intervene import InterveneOptions, intervene_layers
from xaikit.stages.intervene import intervene as stage

if TYPE_CHECKING:
    from xaikit.artifacts.results import Intervention


@o.command(
    "intervene",
    examples=[
        "xaikit intervene",
        "xaikit intervene --rank attribution,output,energy --ablation resample --plot curve.png",
        "xaikit intervene --run xaikit-out --also zero,resample,knockout --markdown",
        'xaikit intervene --run xaikit-out --toward "top red circle" --against "top blue circle"',
        "xaikit intervene --fit runs/fit.safetensors --features runs/features.safetensors "
        "--pretrained vit.safetensors --images photos --labels prompts.txt",
    ],
)
def intervene(
    session: Session,
    typed: o.Typed,
    by_hand: o.Given,
    options: InterveneOptions,
    model: FitModelOptions,
    images: ImageOptions,
    form: FormatOptions,
    preprocess: PreprocessOptions,
    trace: o.LiveTrace = None,
    features: o.FeaturesFile = Path(FEATURES),
    fit: o.FitFile = Path(FIT),
    circuit: Annotated[
        Path | None,
        typer.Option("--circuit", help="Measured as one set; its first edges one by one."),
    ] = None,
    target_causal: Annotated[
        Path | None, typer.Option(help="Of `xaikit target-causal`: edges to measure.")
    ] = None,
    labels: o.Labels = None,
    out: o.Out = Path(INTERVENE),
    plot: Annotated[Path | None, typer.Option(help="Picture of the curves.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="For `--ablation pair`: CSV or JSON of two ids or paths."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Folder of `run-all`: edit all its layers together."),
    ] = None,
    markdown: o.Markdown = False,
) -> None:
    """Edit attention in the real forward pass."""
    from xaikit.interventions.classifiers import classifier_for
    from xaikit.interventions.pairs import read_pairs

    layers = _layers_of(run, trace, circuit, target_causal)
    parts = layers[0] if layers else Parts(trace, features, fit, circuit, target_causal)
    source = parts.source(images)
    options = of_the_circuit(session, options, by_hand, parts.circuit).checked()
    with session.progress("intervene") as progress:
        tower = parts.tower(model, form, preprocess, labels=labels, toward=options.toward)
        ids = parts.ids(source)
        given: dict[str, Any] = {
            "circuit": parts.circuit,
            "target": parts.target,
            "classifier": classifier_for(tower, source, labels, ids),
            "pairs": read_pairs(pairs, source) if pairs is not None else None,
            "options": options,
            "progress": progress,
        }
        if layers:
            several = [(each.features, each.fit) for each in layers]
            found = intervene_layers(tower, source, several, ids=ids, **given)
        else:
            one = (parts.features, parts.fit)
            found = stage(tower, source, *one, trace=parts.trace, **given)
    found.command = typed.line("intervene", "markdown", "plot")
    found.save(out)
    _report(session, found, out, plot, markdown)


def _layers_of(run: Path | None, *others: Path | None) -> list[Parts]:
    """The layers of a run, with its circuit; empty where no run is given."""
    if run is None:
        return []
    if any(other is not None for other in others):
        raise UsageError("--run takes a run's own files: leave out --trace, --circuit and the like")
    folders = run_folders(run) or [run]
    circuit = run / CIRCUIT
    return [
        Parts(
            None,
            folder / FEATURES,
            folder / FIT,
            circuit if circuit.exists() else None,
        )
        for folder in folders
    ]


def _report(
    session: Session, found: Intervention, out: Path, plot: Path | None, markdown: bool
) -> None:
    from xaikit.report.figures import figures_sheet
    from xaikit.report.live import edge_table, intervene_fields, intervene_lines

    if not found.heldout:
        session.warn(
            "no image was held out: the circuit was chosen on the images it is tested on; "
            "`xaikit cluster --holdout 0.5` keeps some back"
        )
    pictures = {}
    if plot is not None:
        from xaikit.report.curves import plot_curves

        pictures["plot"] = str(plot_curves(found, plot))
    fields = {"intervene": str(out), **pictures, **intervene_fields(found)}
    if markdown:
        session.result(fields, figures_sheet(found).markdown())
        return
    session.result(
        fields,
        *intervene_lines(found),
        *edge_table(found),
        " · ".join(["→ " + str(out), *pictures.values()]),
    )
