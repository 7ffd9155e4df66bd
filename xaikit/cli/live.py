"""`intervene`: the command that runs the model with edited attention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.recording import DEMO, open_tower

if TYPE_CHECKING:
    from xaikit.artifacts.records import Origin
    from xaikit.artifacts.results import Circuit, Intervention, TargetCausal
    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.artifacts.trace import Trace
    from xaikit.images import ImageSource
    from xaikit.towers import Tower


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
        trace: Annotated[
            Path | None,
            typer.Option("--trace", help="For the ids of the images; default: the features' own."),
        ] = None,
        features: o.FeaturesFile = Path("features.safetensors"),
        fit: o.FitFile = Path("fit.safetensors"),
        circuit: Annotated[
            Path | None,
            typer.Option("--circuit", help="Measured as one set; its first edges one by one."),
        ] = None,
        target_causal: Annotated[
            Path | None, typer.Option(help="Of `xaikit target-causal`: edges to measure.")
        ] = None,
        model: Annotated[
            str | None,
            typer.Option("--model", help="Default: the fit's.", rich_help_panel=o.MODEL),
        ] = None,
        pretrained: Annotated[
            str | None,
            typer.Option("--pretrained", help="Default: the fit's.", rich_help_panel=o.MODEL),
        ] = None,
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
        score_images: Annotated[
            int,
            typer.Option(
                help="Discovery images to score rankings on, spread evenly; 0 = all.",
                rich_help_panel=o.IMAGES,
            ),
        ] = 256,
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
        ig_steps: Annotated[
            int, typer.Option(help="Points that attribution averages the gradient over.")
        ] = 5,
        labels: Annotated[
            Path | None,
            typer.Option(
                help="Prompts, one a line, or a JSON object of folder to prompt; a model with a "
                "classifier head uses the head.",
            ),
        ] = None,
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
        parts = _Parts(trace, features, fit, circuit, target_causal)
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
        origin = parts.fit.provenance.origin
        with session.progress("intervene") as progress:
            tower = open_tower(
                model or origin.model,
                pretrained or weights_of(origin, model),
                device,
                precision.value,
                seed,
                mean=mean,
                std=std,
                resize=resize,
                with_text=wants_text(origin.model, labels),
            )
            if mean is None and std is None and resize is None:
                parts.use_preprocess(tower)
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


class _Parts:
    """The artefacts that the options name, and where they say their images are."""

    def __init__(
        self,
        trace: Path | None,
        features: Path,
        fit: Path,
        circuit: Path | None,
        target: Path | None,
    ) -> None:
        from xaikit.artifacts.results import Circuit, TargetCausal
        from xaikit.artifacts.tensors import Features, Fit
        from xaikit.artifacts.trace import Trace

        self.features: Features = Features.load(features)
        self.fit: Fit = Fit.load(fit)
        self.circuit: Circuit | None = Circuit.load(circuit) if circuit else None
        self.target: TargetCausal | None = TargetCausal.load(target) if target else None
        known = Path(self.features.trace_file) if self.features.trace_file else None
        if trace is None and known is not None and known.exists():
            trace = known
        self.trace: Trace | None = Trace.load(trace) if trace else None

    def source(
        self, images: Path | None, imagenet_root: Path | None, split: str, webdataset: str | None
    ) -> ImageSource:
        """The images that the options name, or those that the trace says it read."""
        from xaikit.images import open_images

        described: dict[str, Any] = self.trace.info.source if self.trace else {}
        if images is None and imagenet_root is None and webdataset is None:
            from xaikit.images.reopening import reopen

            if not described and self.fit.provenance.origin.model == DEMO:
                described = {"kind": "demo", "count": len(self.features.labels), "seed": 0}
            return reopen(described)
        return open_images(
            images=images, imagenet_root=imagenet_root, split=split, webdataset=webdataset
        )

    def ids(self, source: ImageSource) -> list[str]:
        """Ids of the images behind the features' labels."""
        from xaikit.stages.intervene import image_ids

        return image_ids(source, self.features, self.trace)

    def use_preprocess(self, tower: Tower) -> None:
        """Prepare images as the trace did."""
        from xaikit.artifacts.preprocess import Preprocess

        known = self.trace.info.preprocess if self.trace else {}
        if known:
            listed: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in known.items()
            }
            tower.preprocess = Preprocess(**listed)


def weights_of(origin: Origin, model: str | None) -> str | None:
    """What ``--pretrained`` was when the trace was made; the demo brings its own weights."""
    own = model is not None or origin.pretrained == origin.model
    return None if own else origin.pretrained


def wants_text(model: str, labels: Path | None) -> bool:
    """Whether prompts are to be encoded; timm models have a head instead."""
    return model == DEMO or (labels is not None and not model.startswith("timm/"))


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
