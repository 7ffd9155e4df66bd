"""`trace` and `models`: the commands about the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session

if TYPE_CHECKING:
    from xaikit.images import ImageSource, SkippedImages
    from xaikit.towers import Tower

DEMO = "xaikit-demo"


def open_tower(
    model: str,
    pretrained: str | None,
    device: str,
    precision: str,
    seed: int,
    *,
    mean: str | None = None,
    std: str | None = None,
    resize: int | None = None,
    with_text: bool = False,
) -> Tower:
    """Load the tower that the options name."""
    from xaikit.distributed import local_device
    from xaikit.towers import load_tower

    return load_tower(
        model,
        pretrained,
        device=local_device(device),
        precision=precision,
        seed=seed,
        mean=o.triple(mean, "--mean"),
        std=o.triple(std, "--std"),
        resize=resize,
        with_text=with_text,
    )


def open_source(
    model: str,
    images: Path | None,
    imagenet_root: Path | None,
    split: str,
    webdataset: str | None,
    max_images: int | None,
    seed: int,
) -> ImageSource:
    """Open the images that the options name; the demo model falls back on its scenes."""
    from xaikit.images import open_images

    nothing = images is None and imagenet_root is None and webdataset is None
    return open_images(
        images=images,
        imagenet_root=imagenet_root,
        split=split,
        webdataset=webdataset,
        demo=nothing and model == DEMO,
        seed=seed,
        max_images=max_images,
    )


def warn_skipped(session: Session, skipped: SkippedImages) -> None:
    """Name the images that could not be used."""
    if len(skipped):
        session.warn(skipped.summary())


def register(app: typer.Typer) -> None:
    """Add `trace`."""

    @app.command(
        epilog="Examples\n\n"
        "`xaikit trace` (the demo)\n\n"
        "`xaikit trace --model ViT-B-32 --pretrained openai --images photos --target-layer 8`\n\n"
        "`xaikit trace --model timm/vit_tiny_patch16_224 --pretrained vit.safetensors "
        "--images photos --max-images 256 --store-dtype float16 --packed-gates`"
    )
    def trace(
        model: o.Model = DEMO,
        pretrained: o.Pretrained = None,
        imagenet_root: o.ImagenetRoot = None,
        split: o.SplitOption = o.Split.val,
        images: o.Images = None,
        webdataset: o.Webdataset = None,
        max_images: o.MaxImages = None,
        target_layer: Annotated[
            int | None, typer.Option(help="Layer whose FFN gates are read; default: high up.")
        ] = None,
        next_attn_layer: Annotated[
            int | None,
            typer.Option(help="Layer whose attention is read; default: the layer after."),
        ] = None,
        out: Annotated[
            Path, typer.Option(help="File to write, or with --shard-size a folder.")
        ] = Path("trace.safetensors"),
        device: o.Device = "cpu",
        batch_size: o.BatchSize = 32,
        precision: o.PrecisionOption = o.Precision.float32,
        store_dtype: Annotated[
            o.Precision, typer.Option(help="Number format of h_l and the logits on disk.")
        ] = o.Precision.float32,
        packed_gates: Annotated[
            bool, typer.Option("--packed-gates", help="Store eight gates a byte.")
        ] = False,
        shard_size: Annotated[
            int, typer.Option(help="Images a shard; 0 writes a single file.")
        ] = 0,
        mean: o.Mean = None,
        std: o.Std = None,
        resize: o.Resize = None,
        workers: o.Workers = None,
        strict: o.Strict = False,
        seed: o.Seed = 0,
        force: Annotated[
            bool, typer.Option("--force", help="Write over another trace's shards.")
        ] = False,
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """Record one layer's FFN gates and the next layer's attention logits."""
        session = Session(json=json, quiet=quiet)
        source = open_source(model, images, imagenet_root, split, webdataset, max_images, seed)
        from xaikit.artifacts.trace_writer import Storage
        from xaikit.distributed import joined
        from xaikit.images import SkippedImages
        from xaikit.stages.trace import shared_trace as run

        tower = open_tower(
            model, pretrained, device, precision, seed, mean=mean, std=std, resize=resize
        )
        skipped = SkippedImages()
        with joined(device) as world, session.progress("trace") as progress:
            found = run(
                tower,
                source,
                target_layer=target_layer,
                next_attn_layer=next_attn_layer,
                out=out,
                max_images=max_images,
                batch_size=batch_size,
                storage=Storage(
                    dtype=store_dtype, packed_gates=packed_gates, shard_images=shard_size
                ),
                workers=workers,
                strict=strict,
                force=force,
                world=world,
                skipped=skipped,
                progress=progress,
            )
        if found is None:
            return
        warn_skipped(session, skipped)
        info = found.info
        session.result(
            {
                "trace": str(out),
                "images": len(found),
                "skipped": info.skipped_count,
                "layer": found.layer,
                "next_layer": found.next_layer,
                "tokens": info.tokens,
                "heads": info.heads,
                "ffn_width": info.ffn_width,
            },
            f"{len(found):,} images × {info.tokens} tokens: gates of layer {found.layer} "
            f"({info.ffn_width:,} wide), logits of layer {found.next_layer} ({info.heads} heads) "
            f"→ {out}",
        )


def register_models(app: typer.Typer) -> None:
    """Add `models`."""

    @app.command(
        epilog="Examples\n\n`xaikit models`\n\n`xaikit models siglip --json`\n\n"
        "`xaikit models --check ViT-B-16`"
    )
    def models(
        pattern: Annotated[
            str | None, typer.Argument(help="Only names that contain this.", metavar="[TEXT]")
        ] = None,
        check: Annotated[
            str | None,
            typer.Option(help="Run the self-check on this model (random weights)."),
        ] = None,
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """List the models, or check that xaikit reads one of them right."""
        session = Session(json=json, quiet=quiet)
        if check is not None:
            _check(session, check)
            return
        from xaikit.towers import list_models

        rows = [
            row for row in list_models() if pattern is None or pattern.lower() in row.name.lower()
        ]
        session.result({"models": [_row(row) for row in rows]}, *_table(rows))


def _row(row: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(row)


def _table(rows: list[Any]) -> list[Any]:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "family"):
        table.add_column(name)
    for name in ("layers", "heads", "tokens", "width"):
        table.add_column(name, justify="right")
    table.add_column("supported", overflow="fold")
    for row in rows:
        cells = [row.layers, row.heads, row.tokens, row.width]
        numbers = [str(cell) if cell else "" for cell in cells]
        table.add_row(
            row.name, row.family, *numbers, "yes" if row.supported else f"no: {row.reason}"
        )
    supported = sum(row.supported for row in rows)
    return [
        table,
        f"{supported} of {len(rows)} supported; also timm/NAME for plain vision transformers",
    ]


def _check(session: Session, name: str) -> None:
    from xaikit.errors import XaikitError
    from xaikit.towers import build_for_check, self_check

    result = self_check(build_for_check(name))
    if not result.passed:
        raise XaikitError(result.describe())
    session.result({"model": name, "passed": result.passed}, result.describe())
