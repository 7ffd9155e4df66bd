"""`run-all`: the whole pipeline in one command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xaikit.artifacts.file_names import GROUPS, NUM_CLUSTERS
from xaikit.artifacts.holding import holding
from xaikit.artifacts.inputs import FormatOptions, ImageOptions, ModelOptions, PreprocessOptions
from xaikit.cli import options as o
from xaikit.cli.console import Session
from xaikit.cli.inputs import open_source, open_tower, wants_text, warn_left_out, warn_skipped
from xaikit.distributed import joined
from xaikit.errors import OptionError, XaikitError
from xaikit.run.options import Options

if TYPE_CHECKING:
    from xaikit.images import ImageSource
    from xaikit.towers import Tower

Layers = Annotated[
    str | None,
    typer.Option(
        "--target-layer", help="Layer whose gates are read: `6`, `3,6,9` or `all`; default: one."
    ),
]
NextLayer = Annotated[
    int | None, typer.Option(help="Layer whose attention is read; default: the next.")
]
Planned = Annotated[
    bool,
    typer.Option(
        "--plan", help="Say what the run will need (memory, disk, passes, rough time), and exit."
    ),
]
OutDir = Annotated[Path, typer.Option(help="Folder for everything.")]


@o.command(
    "run-all",
    examples=[
        "xaikit run-all",
        "xaikit run-all --model ViT-B-32 --pretrained openai --images photos --max-images 512 "
        "--out-dir runs/b32",
        "xaikit run-all --plan --stream --target-layer all --imagenet-root imagenet",
        "xaikit run-all --model timm/vit_tiny_patch16_224 --pretrained vit.safetensors "
        "--images photos --target-layer 6,9 --destination cluster",
        "xaikit run-all --images photos --model ViT-B-32 --pretrained openai --target-layer all "
        "--group folder",
        'xaikit run-all --toward "top red circle" --against "top blue circle"',
        "torchrun --nproc-per-node 8 -m xaikit run-all --stream --model ViT-B-16 --pretrained "
        "openai --imagenet-root imagenet --target-layer all --device cuda --precision bfloat16",
    ],
)
def run_all(
    session: Session,
    typed: o.Typed,
    options: Options,
    model: ModelOptions,
    images: ImageOptions,
    form: FormatOptions,
    preprocess: PreprocessOptions,
    target_layer: Layers = None,
    next_attn_layer: NextLayer = None,
    out_dir: OutDir = Path("xaikit-out"),
    control: o.ControlOption = o.Control.none,
    force: o.Force = False,
    plan: Planned = False,
) -> None:
    """The whole pipeline in one command, and a summary."""
    from xaikit.artifacts.studies import ClusterSweep
    from xaikit.cli.run_summary import run_fields, run_lines
    from xaikit.images import SkippedImages
    from xaikit.report.studies import sweep_sheet
    from xaikit.run.run_all import run_all as run

    start = time.perf_counter()
    source = open_source(images, model, seed=form.seed, max_images=options.max_images)
    warn_left_out(session, source)
    live, aims = options.live(), options.toward or options.labels
    text = (options.intervene or live.directed) and wants_text(model.model, aims)
    with session.progress("model") as progress:
        progress("loading", 0, 1)
        tower = open_tower(model, form, preprocess, with_text=text, session=session)
    if plan:
        _plan(session, tower, source, target_layer, next_attn_layer, options)
        return
    untrained = None
    if control is o.Control.random_weights:
        untrained = open_tower(ModelOptions(model=model.model, pretrained="random"), form)
    skipped = SkippedImages()
    layers = parse_layers(target_layer, tower.info.layers)
    # The report is of this run: no other may begin in between.
    with joined(form.device) as world, holding(out_dir, world):
        with session.progress() as progress:
            runs = run(
                tower,
                source,
                out_dir=out_dir,
                layers=layers,
                next_attn_layer=next_attn_layer,
                options=options,
                force=force,
                command=typed.line("run-all", "out_dir", "force"),
                control=untrained,
                world=world,
                skipped=skipped,
                progress=progress,
            )
        if not runs:
            return
        warn_skipped(session, skipped)
        page = _page(session, out_dir, tower)
    seconds = time.perf_counter() - start
    told = (runs, out_dir, seconds, options.recipe, runs.whole)
    fields = {**run_fields(*told), "report": page and str(page)}
    where = [f"open {page} in a browser"] if page else []
    if options.group is not None:
        fields["groups"] = str(out_dir / GROUPS)
        where.insert(0, f"a circuit for each group of images: {out_dir / GROUPS}")
    lines = run_lines(*told)
    if options.num_clusters is None:
        # After the first line, which names the recipe.
        lines.insert(1, sweep_sheet(ClusterSweep.load(out_dir / NUM_CLUSTERS)).rich())
    session.result(fields, *lines, *where)


def _plan(
    session: Session,
    tower: Tower,
    source: ImageSource,
    target_layer: str | None,
    next_attn_layer: int | None,
    options: Options,
) -> None:
    """Print what the run will need."""
    from xaikit.report.forecast import forecast_lines
    from xaikit.run.run_all import planned

    layers = parse_layers(target_layer, tower.info.layers)
    found = planned(
        tower, source, layers=layers, next_attn_layer=next_attn_layer, options=options
    ).to_dict()
    session.result(found, *forecast_lines(found))


def _page(session: Session, out_dir: Path, tower: Tower) -> Path | None:
    """The run's report; the run itself is whole without one."""
    from xaikit.report.page import Naming, write_report

    with session.progress("report") as progress:
        try:
            return write_report(out_dir, naming=Naming(tower=tower), progress=progress)
        except XaikitError as error:
            session.warn(f"no report was written: {error}")
            return None


def parse_layers(text: str | None, layers: int) -> list[int] | None:
    """Read ``6``, ``3,6,9`` or ``all`` (every layer that has one after it)."""
    if text is None:
        return None
    if text.strip() == "all":
        return list(range(layers - 1))
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError("target_layer", text, "numbers such as 3,6,9, or all") from None
    if len(set(found)) != len(found):
        raise OptionError("target_layer", text, "each layer once")
    return found
