"""`circuit`: rank edges, from the fit alone or by running the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaikit.cli import options as o
from xaikit.cli.console import Session


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(
        epilog="Examples\n\n`xaikit circuit --fit fit.safetensors --heatmap-dir heatmaps`\n\n"
        "`xaikit circuit --rank zscore --max-qvalue 0.05 --top-k 100`\n\n"
        "`xaikit circuit --rank reach` (runs the model and images of the trace)"
    )
    def circuit(
        fit: o.FitFile = Path("fit.safetensors"),
        top_k: o.TopK = 50,
        rank: o.Rank = "weight",
        max_qvalue: o.MaxQvalue = None,
        heatmap_dir: Annotated[
            Path | None, typer.Option(help="Folder for one head_<h>.png a head.")
        ] = None,
        out: Annotated[Path, typer.Option(help="File to write.")] = Path("circuit.json"),
        features: o.LiveFeatures = None,
        trace: o.LiveTrace = None,
        model: o.LiveModel = None,
        pretrained: o.LivePretrained = None,
        images: o.Images = None,
        imagenet_root: o.ImagenetRoot = None,
        split: o.SplitOption = o.Split.val,
        webdataset: o.Webdataset = None,
        score_images: o.ScoreImages = 256,
        ig_steps: o.IgSteps = 5,
        device: o.Device = "cpu",
        batch_size: o.BatchSize = 32,
        precision: o.PrecisionOption = o.Precision.float32,
        workers: o.Workers = None,
        seed: o.Seed = 0,
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """Rank a fit's edges, keep the first, and draw them.

        Rankings `output`, `attribution`, `reach` and `rows` run the model on the discovery images.
        """
        session = Session(json=json, quiet=quiet)
        from xaikit.artifacts.tensors import Fit
        from xaikit.rankings import ranking
        from xaikit.report.summaries import circuit_lines
        from xaikit.stages.circuit import circuit as run

        if not ranking(rank).needs_model:
            loaded, scores = Fit.load(fit), None
        else:
            from xaikit.cli.inputs import Parts
            from xaikit.rankings.live import live_scores
            from xaikit.stages.intervene import InterveneOptions

            options = InterveneOptions(
                rankings=(rank,),
                score_images=score_images or None,
                ig_steps=ig_steps,
                batch_size=batch_size,
                seed=seed,
                workers=workers,
            ).checked()
            parts = Parts(trace, features, fit)
            loaded = parts.fit
            source = parts.source(images, imagenet_root, split.value, webdataset)
            with session.progress("circuit") as progress:
                tower = parts.tower(model, pretrained, device, precision.value, seed)
                scores = live_scores(
                    [rank],
                    tower,
                    source,
                    parts.features,
                    loaded,
                    ids=parts.ids(source),
                    options=options,
                    progress=progress,
                )[rank]
        found = run(
            loaded,
            top_k=top_k,
            rank=rank,
            scores=scores,
            max_qvalue=max_qvalue,
            heatmap_dir=heatmap_dir,
            fit_file=str(fit),
        )
        found.save(out)
        session.result(
            {"circuit": str(out), "paths": found.to_dict()["paths"], "heatmaps": found.heatmaps},
            *circuit_lines(found),
            f"→ {out}"
            + (f", {len(found.heatmaps)} heatmaps in {heatmap_dir}" if heatmap_dir else ""),
        )
