"""`run-all`: the whole pipeline in one command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.studies import Control, ControlOption
from xaikit.cli.trace import DEMO, open_source, open_tower, warn_skipped

LAYERS = Annotated[
    str | None,
    typer.Option(
        "--target-layer", help="Layer whose gates are read: `6`, `3,6,9` or `all`; default: one."
    ),
]


def register(app: typer.Typer) -> None:
    """Add `run-all`."""

    @app.command(
        name="run-all",
        epilog="Examples\n\n`xaikit run-all` (the demo)\n\n"
        "`xaikit run-all --model ViT-B-32 --pretrained openai --images photos --max-images 512 "
        "--out-dir runs/b32`\n\n"
        "`xaikit run-all --model timm/vit_tiny_patch16_224 --pretrained vit.safetensors "
        "--images photos --target-layer 6,9 --destination cluster`\n\n"
        "`torchrun --nproc-per-node 8 -m xaikit run-all --stream --model ViT-B-16 --pretrained "
        "openai --imagenet-root imagenet --target-layer all --device cuda --precision bfloat16`",
    )
    def run_all(
        model: o.Model = DEMO,
        pretrained: o.Pretrained = None,
        imagenet_root: o.ImagenetRoot = None,
        split: o.SplitOption = o.Split.val,
        images: o.Images = None,
        webdataset: o.Webdataset = None,
        max_images: o.MaxImages = None,
        target_layer: LAYERS = None,
        next_attn_layer: Annotated[
            int | None, typer.Option(help="Layer whose attention is read; default: the next.")
        ] = None,
        out_dir: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("xaikit-out"),
        num_clusters: o.NumClusters = 16,
        sample_tokens: o.SampleTokens = 20000,
        holdout: o.Holdout = 0.5,
        destination: o.DestinationOption = o.Destination.token,
        num_permutations: o.Permutations = 200,
        null: Annotated[
            o.Null, typer.Option(help="p-values of edges.", rich_help_panel=o.STATISTICS)
        ] = o.Null.auto,
        stream: Annotated[
            bool,
            typer.Option(
                "--stream",
                help="Keep no trace: two passes over the images, in memory that does not depend "
                "on their number.",
                rich_help_panel=o.RUN,
            ),
        ] = False,
        null_block: o.NullBlock = 0,
        top_k: o.TopK = 50,
        rank: o.Rank = "weight",
        max_qvalue: o.MaxQvalue = None,
        bootstrap: Annotated[
            int,
            typer.Option(
                help="Resamples of the images: which edges survive? 0 leaves it out.",
                rich_help_panel=o.STATISTICS,
            ),
        ] = 0,
        control: ControlOption = Control.none,
        max_clusters: Annotated[int, typer.Option(help="Clusters to report.")] = 16,
        top_n: Annotated[int, typer.Option("--top-n", help="Edges to test, best first.")] = 20,
        intervene: Annotated[
            bool,
            typer.Option("--intervene/--no-intervene", help="Also edit edges in the live model."),
        ] = True,
        labels: o.Labels = None,
        device: o.Device = "cpu",
        batch_size: o.BatchSize = 32,
        precision: o.PrecisionOption = o.Precision.float32,
        store_dtype: Annotated[
            o.Precision, typer.Option(help="Number format of the trace on disk.")
        ] = o.Precision.float32,
        packed_gates: Annotated[
            bool, typer.Option("--packed-gates", help="Store eight gates a byte.")
        ] = False,
        shard_size: Annotated[
            int, typer.Option(help="Images a trace shard; 0 writes a single file.")
        ] = 0,
        mean: o.Mean = None,
        std: o.Std = None,
        resize: o.Resize = None,
        workers: o.Workers = None,
        strict: o.Strict = False,
        seed: o.Seed = 0,
        force: Annotated[
            bool, typer.Option("--force", help="Run stages again that are already there.")
        ] = False,
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """Everything: trace, cluster, fit, circuit, causal, target-causal, and a summary."""
        start = time.perf_counter()
        session = Session(json=json, quiet=quiet)
        source = open_source(model, images, imagenet_root, split, webdataset, max_images, seed)
        from xaikit.artifacts.trace_writer import Storage
        from xaikit.cli.inputs import wants_text
        from xaikit.distributed import joined
        from xaikit.images import SkippedImages
        from xaikit.report.run_summary import run_fields, run_lines
        from xaikit.run.options import Options
        from xaikit.run.run_all import run_all as run

        with session.progress("model") as progress:
            progress("loading", 0, 1)
            tower = open_tower(
                model,
                pretrained,
                device,
                precision,
                seed,
                mean=mean,
                std=std,
                resize=resize,
                with_text=intervene and wants_text(model, labels),
            )
        options = Options(
            max_images=max_images,
            batch_size=batch_size,
            storage=Storage(dtype=store_dtype, packed_gates=packed_gates, shard_images=shard_size),
            workers=workers,
            strict=strict,
            num_clusters=num_clusters,
            sample_tokens=sample_tokens,
            seed=seed,
            holdout=holdout,
            destination=destination.value,
            num_permutations=num_permutations,
            null=null.value,
            null_block=null_block,
            stream=stream,
            top_k=top_k,
            rank=rank,
            max_qvalue=max_qvalue,
            bootstrap=bootstrap,
            max_clusters=max_clusters,
            top_n=top_n,
            intervene=intervene,
            labels=str(labels) if labels else None,
        )
        untrained = None
        if control is Control.random_weights:
            untrained = open_tower(model, "random", device, precision, seed)
        skipped = SkippedImages()
        with joined(device) as world, session.progress() as progress:
            runs = run(
                tower,
                source,
                out_dir=out_dir,
                layers=parse_layers(target_layer, tower.info.layers),
                next_attn_layer=next_attn_layer,
                options=options,
                force=force,
                control=untrained,
                world=world,
                skipped=skipped,
                progress=progress,
            )
        if not runs:
            return
        warn_skipped(session, skipped)
        seconds = time.perf_counter() - start
        session.result(run_fields(runs, out_dir, seconds), *run_lines(runs, out_dir, seconds))


def parse_layers(text: str | None, layers: int) -> list[int] | None:
    """Read ``6``, ``3,6,9`` or ``all`` (every layer that has one after it)."""
    from xaikit.errors import UsageError

    if text is None:
        return None
    if text.strip() == "all":
        return list(range(layers - 1))
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--target-layer {text}: expected numbers such as 3,6,9, or all") from None
    if len(set(found)) != len(found):
        raise UsageError(f"--target-layer {text} names a layer twice")
    return found
