"""`intervene`: the command that runs the model with edited attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.inputs import Parts

if TYPE_CHECKING:
    from xaikit.artifacts.results import Intervention


def register(app: typer.Typer) -> None:
    """Add `intervene`."""

    @app.command(
        epilog="Examples\n\n"
        "`xaikit intervene` (after `xaikit trace`, `cluster --holdout 0.5` and `fit`)\n\n"
        "`xaikit intervene --rank attribution,output,energy --ablation resample --plot curve.png`"
        "\n\n`xaikit intervene --fit runs/fit.safetensors --features runs/features.safetensors "
        "--pretrained vit.safetensors --images photos --labels prompts.txt`"
    )
    def intervene(
        trace: o.LiveTrace = None,
        features: o.FeaturesFile = Path("features.safetensors"),
        fit: o.FitFile = Path("fit.safetensors"),
        circuit: Annotated[
            Path | None,
            typer.Option("--circuit", help="Measured as one set; its first edges one by one."),
        ] = None,
        target_causal: Annotated[
            Path | None, typer.Option(help="Of `xaikit target-causal`: edges to measure.")
        ] = None,
        model: o.LiveModel = None,
        pretrained: o.LivePretrained = None,
        imagenet_root: o.ImagenetRoot = None,
        split: o.SplitOption = o.Split.val,
        images: o.Images = None,
        webdataset: o.Webdataset = None,
        max_images: Annotated[
            int,
            typer.Option(
                help="Images to test on, spread evenly; 0 = all.", rich_help_panel=o.IMAGES
            ),
        ] = 128,
        score_images: o.ScoreImages = 256,
        rank: Annotated[
            str, typer.Option("--rank", help="Rankings to compare, separated by commas.")
        ] = o.LIVE_RANKS,
        ablation: Annotated[
            o.Ablation, typer.Option("--ablation", help="What takes the place of a logit.")
        ] = o.Ablation.mean,
        mode: Annotated[
            o.Mode, typer.Option("--mode", help="Edit the edges, everything else, or each in turn.")
        ] = o.Mode.both,
        shares: Annotated[
            str | None,
            typer.Option(help="Shares of the logit entries, such as `0.001,0.01,0.1`."),
        ] = None,
        draws: Annotated[
            int, typer.Option(help="Random edge sets.", rich_help_panel=o.STATISTICS)
        ] = 20,
        edges: Annotated[int, typer.Option(help="Edges to measure one by one.")] = 20,
        edge_draws: Annotated[
            int,
            typer.Option(
                help="Random edges that each edge is compared with.", rich_help_panel=o.STATISTICS
            ),
        ] = 39,
        ig_steps: o.IgSteps = 5,
        labels: o.Labels = None,
        out: Annotated[Path, typer.Option(help="File to write.")] = Path("intervene.json"),
        plot: Annotated[Path | None, typer.Option(help="Picture of the curves.")] = None,
        device: o.Device = "cpu",
        batch_size: o.BatchSize = 32,
        precision: o.PrecisionOption = o.Precision.float32,
        mean: o.Mean = None,
        std: o.Std = None,
        resize: o.Resize = None,
        workers: o.Workers = None,
        seed: o.Seed = 0,
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """Edit attention inside the real forward pass: which edges does the model use?"""
        session = Session(json=json, quiet=quiet)
        parts = Parts(trace, features, fit, circuit, target_causal)
        source = parts.source(images, imagenet_root, split.value, webdataset)
        from xaikit.interventions import SHARES
        from xaikit.interventions.classifiers import classifier_for
        from xaikit.stages.intervene import InterveneOptions
        from xaikit.stages.intervene import intervene as run

        options = InterveneOptions(
            rankings=tuple(rank.split(",")),
            ablation=ablation.value,
            modes=("remove", "keep") if mode.value == "both" else (mode.value,),
            shares=SHARES if shares is None else o.numbers(shares, "--shares"),
            draws=draws,
            max_images=max_images or None,
            score_images=score_images or None,
            edges=edges,
            edge_draws=edge_draws,
            ig_steps=ig_steps,
            batch_size=batch_size,
            seed=seed,
            workers=workers,
        ).checked()
        with session.progress("intervene") as progress:
            tower = parts.tower(
                model,
                pretrained,
                device,
                precision.value,
                seed,
                preprocess=(mean, std, resize),
                labels=labels,
            )
            found = run(
                tower,
                source,
                parts.features,
                parts.fit,
                trace=parts.trace,
                circuit=parts.circuit,
                target=parts.target,
                classifier=classifier_for(tower, source, labels, parts.ids(source)),
                options=options,
                features_file=str(features),
                fit_file=str(fit),
                circuit_file=str(circuit or ""),
                progress=progress,
            )
        found.save(out)
        _report(session, found, out, plot)


def _report(session: Session, found: Intervention, out: Path, plot: Path | None) -> None:
    from xaikit.report.live import intervene_fields, intervene_lines

    if not found.heldout:
        session.warn(
            "no image was held out: the circuit was chosen on the images it is tested on; "
            "`xaikit cluster --holdout 0.5` keeps some back"
        )
    pictures = {}
    if plot is not None:
        from xaikit.report.curves import plot_curves

        pictures["plot"] = str(plot_curves(found, plot))
    session.result(
        {"intervene": str(out), **pictures, **intervene_fields(found)},
        *intervene_lines(found),
        " · ".join(["→ " + str(out), *pictures.values()]),
    )
