"""`trace`: record one layer's FFN gates and the next layer's attention logits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaikit.artifacts.file_names import TRACE
from xaikit.artifacts.inputs import FormatOptions, ImageOptions, ModelOptions, PreprocessOptions
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.inputs import open_source, open_tower, warn_left_out, warn_skipped
from xaikit.distributed import joined
from xaikit.stages.trace import PairOptions, TraceOptions, shared_trace


@o.command(
    "trace",
    examples=[
        "xaikit trace",
        "xaikit trace --model ViT-B-32 --pretrained openai --images photos --target-layer 8",
        "xaikit trace --model timm/vit_tiny_patch16_224 --pretrained vit.safetensors "
        "--images photos --max-images 256 --store-dtype float16 --packed-gates",
    ],
)
def trace(
    session: Session,
    model: ModelOptions,
    images: ImageOptions,
    options: TraceOptions,
    pair: PairOptions,
    form: FormatOptions,
    preprocess: PreprocessOptions,
    out: Annotated[
        Path, typer.Option("--out", help="File to write, or with --shard-size a folder.")
    ] = Path(TRACE),
    force: Annotated[
        bool, typer.Option("--force", help="Write over another trace's shards.")
    ] = False,
) -> None:
    """Record one layer's FFN gates and the next layer's logits."""
    from xaikit.images import SkippedImages

    source = open_source(images, model, seed=form.seed, max_images=options.max_images)
    warn_left_out(session, source)
    tower = open_tower(model, form, preprocess, session=session)
    skipped = SkippedImages()
    with joined(form.device) as world, session.progress("trace") as progress:
        found = shared_trace(
            tower,
            source,
            target_layer=pair.target_layer,
            next_attn_layer=pair.next_attn_layer,
            out=out,
            options=options,
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
