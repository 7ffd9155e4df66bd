"""`baselines` and `stability`: what to hold a result against."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.trace import DEMO, open_source, open_tower

if TYPE_CHECKING:
    from xaikit.artifacts.results import JsonArtifact
    from xaikit.artifacts.trace import Trace
    from xaikit.images import ImageSource
    from xaikit.progress import Progress
    from xaikit.report.studies import Sheet
    from xaikit.towers import Tower


class Control(StrEnum):
    """Controls that cost a trace of their own."""

    none = "none"
    random_weights = "random-weights"


TraceOption = Annotated[
    Path | None,
    typer.Option("--trace", help="A trace to read; by default the model is traced in memory."),
]
ControlOption = Annotated[
    Control,
    typer.Option(
        "--control",
        help="`random-weights` traces the same images with an untrained model as well.",
        rich_help_panel=o.STATISTICS,
    ),
]
TargetLayer = Annotated[
    int | None, typer.Option(help="Layer whose FFN gates are read; default: high up.")
]
NextLayer = Annotated[
    int | None, typer.Option(help="Layer whose attention is read; default: the layer after.")
]
OutFile = Annotated[Path | None, typer.Option("--out", help="JSON file to write.")]
Markdown = Annotated[
    bool,
    typer.Option("--markdown", help="Print Markdown tables.", rich_help_panel=o.OUTPUT),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    _baselines(app)
    _stability(app)


def _baselines(app: typer.Typer) -> None:
    @app.command(
        epilog="Examples\n\n`xaikit baselines` (the demo)\n\n"
        "`xaikit baselines --trace trace.safetensors --control none --num-clusters 32`\n\n"
        "`xaikit baselines --model ViT-B-32 --pretrained openai --images photos --markdown`"
    )
    def baselines(
        trace: TraceOption = None,
        model: o.Model = DEMO,
        pretrained: o.Pretrained = None,
        images: o.Images = None,
        imagenet_root: o.ImagenetRoot = None,
        split: o.SplitOption = o.Split.val,
        webdataset: o.Webdataset = None,
        max_images: o.MaxImages = None,
        target_layer: TargetLayer = None,
        next_attn_layer: NextLayer = None,
        num_clusters: o.NumClusters = 16,
        sample_tokens: o.SampleTokens = 20000,
        holdout: o.Holdout = 0.5,
        draws: Annotated[
            int, typer.Option(help="Shuffles of the labels.", rich_help_panel=o.STATISTICS)
        ] = 20,
        control: ControlOption = Control.random_weights,
        device: o.Device = "cpu",
        batch_size: o.BatchSize = 32,
        precision: o.PrecisionOption = o.Precision.float32,
        seed: o.Seed = 0,
        out: OutFile = None,
        markdown: Markdown = False,
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """What clusters explain of the attention, beside controls that know nothing of them."""
        session = Session(json=json, quiet=quiet)
        from xaikit.report.studies import baselines_sheet
        from xaikit.stages.baselines import baselines as run
        from xaikit.stages.baselines import random_weights
        from xaikit.stages.cluster import cluster

        wanted = control is Control.random_weights
        source = None
        if trace is None or wanted:
            source = open_source(model, images, imagenet_root, split, webdataset, max_images, seed)
        tower = None
        if trace is None:
            tower = open_tower(model, pretrained, device, precision, seed)
        untrained = open_tower(model, "random", device, precision, seed) if wanted else None
        with session.progress("baselines") as progress:
            recorded = _recorded(
                trace,
                tower,
                source,
                (target_layer, next_attn_layer),
                max_images,
                batch_size,
                progress,
            )
            found = cluster(
                recorded,
                num_clusters=num_clusters,
                sample_tokens=sample_tokens,
                seed=seed,
                holdout=holdout,
                progress=progress,
            )
            random = None
            if untrained is not None and source is not None:
                _same_model(untrained, recorded)
                random = random_weights(
                    untrained, source, recorded, found, batch_size=batch_size, progress=progress
                )
            result = run(
                recorded,
                found,
                random=random,
                draws=draws,
                seed=seed,
                trace_file=str(trace or ""),
                progress=progress,
            )
        _finish(session, result, baselines_sheet(result), out, markdown)


def _stability(app: typer.Typer) -> None:
    @app.command(
        epilog="Examples\n\n`xaikit stability` (the demo)\n\n"
        "`xaikit stability --trace trace.safetensors --num-clusters 8,16,32 --rank contrast`"
    )
    def stability(
        trace: TraceOption = None,
        model: o.Model = DEMO,
        pretrained: o.Pretrained = None,
        images: o.Images = None,
        imagenet_root: o.ImagenetRoot = None,
        split: o.SplitOption = o.Split.val,
        webdataset: o.Webdataset = None,
        max_images: o.MaxImages = None,
        target_layer: TargetLayer = None,
        next_attn_layer: NextLayer = None,
        num_clusters: Annotated[
            str, typer.Option("--num-clusters", help="Numbers of clusters to compare.")
        ] = "8,16,32,64",
        seeds: Annotated[
            int, typer.Option(help="k-means seeds.", rich_help_panel=o.STATISTICS)
        ] = 3,
        bootstrap: Annotated[
            int, typer.Option(help="Resamples of the images.", rich_help_panel=o.STATISTICS)
        ] = 50,
        rank: Annotated[
            str, typer.Option(help="What edges are ordered by: weight, contrast, energy.")
        ] = "weight",
        top_k: o.TopK = 50,
        sample_tokens: o.SampleTokens = 20000,
        holdout: o.Holdout = 0.5,
        device: o.Device = "cpu",
        batch_size: o.BatchSize = 32,
        precision: o.PrecisionOption = o.Precision.float32,
        seed: o.Seed = 0,
        out: OutFile = None,
        markdown: Markdown = False,
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """Do clusters and circuits hold across seeds, images and numbers of clusters?"""
        session = Session(json=json, quiet=quiet)
        from xaikit.report.studies import stability_sheet
        from xaikit.stages.stability import StabilityOptions
        from xaikit.stages.stability import stability as run

        options = StabilityOptions(
            num_clusters=_whole_numbers(num_clusters),
            seeds=seeds,
            resamples=bootstrap,
            rank=rank,
            top_k=top_k,
            holdout=holdout,
            sample_tokens=sample_tokens,
            seed=seed,
        )
        tower, source = None, None
        if trace is None:
            source = open_source(model, images, imagenet_root, split, webdataset, max_images, seed)
            tower = open_tower(model, pretrained, device, precision, seed)
        with session.progress("stability") as progress:
            layers = (target_layer, next_attn_layer)
            recorded = _recorded(trace, tower, source, layers, max_images, batch_size, progress)
            result = run(recorded, options, trace_file=str(trace or ""), progress=progress)
        _finish(session, result, stability_sheet(result), out, markdown)


def _recorded(
    path: Path | None,
    tower: Tower | None,
    source: ImageSource | None,
    layers: tuple[int | None, int | None],
    max_images: int | None,
    batch_size: int,
    progress: Progress,
) -> Trace:
    """The trace at `path`, or one made in memory."""
    if path is not None:
        from xaikit.artifacts.trace import Trace

        return Trace.load(path)
    from xaikit.stages.trace import trace

    assert tower is not None
    assert source is not None
    return trace(
        tower,
        source,
        target_layer=layers[0],
        next_attn_layer=layers[1],
        batch_size=batch_size,
        max_images=max_images,
        progress=progress,
    )


def _same_model(tower: Tower, trace: Trace) -> None:
    from xaikit.errors import UsageError

    traced = trace.provenance.origin.model
    if tower.info.model != traced:
        raise UsageError(
            f"--control random-weights: the trace is of {traced}; pass --model {traced} and the "
            "images of the trace, or --control none"
        )


def _whole_numbers(text: str) -> list[int]:
    from xaikit.errors import UsageError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--num-clusters {text}: expected numbers such as 8,16,32") from None


def _finish(
    session: Session, result: JsonArtifact, sheet: Sheet, out: Path | None, markdown: bool
) -> None:
    if out is not None:
        result.save(out)
    if markdown and not session.json:
        typer.echo(sheet.markdown())
        return
    lines: list[Any] = [sheet.rich()]
    session.result(result.to_dict(), *lines, *([f"→ {out}"] if out is not None else []))
