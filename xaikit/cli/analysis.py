"""`cluster`, `fit`, `circuit`, `causal` and `target-causal`: the commands that need no model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaikit.cli import options as o
from xaikit.cli.circuit import register as register_circuit
from xaikit.cli.console import Session


def register(app: typer.Typer) -> None:
    """Add the commands, in the pipeline's order."""
    _cluster(app)
    _fit(app)
    register_circuit(app)
    _causal(app)
    _target_causal(app)
    _graph(app)


def _cluster(app: typer.Typer) -> None:
    @app.command(epilog="Example\n\n`xaikit cluster --trace trace.safetensors --num-clusters 32`")
    def cluster(
        trace: o.TraceFile = Path("trace.safetensors"),
        num_clusters: o.NumClusters = 16,
        sample_tokens: o.SampleTokens = 20000,
        seed: o.Seed = 0,
        holdout: o.Holdout = 0.0,
        out: Annotated[Path, typer.Option(help="File to write.")] = Path("features.safetensors"),
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """Group tokens by which FFN gates they open (k-means)."""
        session = Session(json=json, quiet=quiet)
        from xaikit.artifacts.trace import Trace
        from xaikit.report.summaries import cluster_lines
        from xaikit.stages.cluster import cluster as run

        with session.progress("cluster") as progress:
            found = run(
                Trace.load(trace),
                num_clusters=num_clusters,
                sample_tokens=sample_tokens,
                seed=seed,
                holdout=holdout,
                trace_file=str(trace),
                progress=progress,
            )
        found.save(out)
        sizes = found.cluster_sizes.tolist()
        session.result(
            {
                "features": str(out),
                "num_clusters": num_clusters,
                "inertia": found.inertia,
                "cluster_sizes": sizes,
                "empty_clusters": sum(size == 0 for size in sizes),
                "discovery_images": len(found.discovery),
                "heldout_images": len(found.heldout),
            },
            *cluster_lines(found),
            f"→ {out}",
        )


def _fit(app: typer.Typer) -> None:
    @app.command(
        epilog="Example\n\n`xaikit fit --trace trace.safetensors --features features.safetensors "
        "--destination cluster`"
    )
    def fit(
        trace: o.TraceFile = Path("trace.safetensors"),
        features: o.FeaturesFile = Path("features.safetensors"),
        destination: o.DestinationOption = o.Destination.token,
        num_permutations: o.Permutations = 200,
        null: Annotated[
            o.Null,
            typer.Option(
                help="p-values of edges; auto samples below 20 test images.",
                rich_help_panel=o.STATISTICS,
            ),
        ] = o.Null.auto,
        null_block: o.NullBlock = 0,
        seed: o.Seed = 0,
        out: Annotated[Path, typer.Option(help="File to write.")] = Path("fit.safetensors"),
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """Mean logits of each cluster, what they explain, and a test of every edge."""
        session = Session(json=json, quiet=quiet)
        from xaikit.artifacts.tensors import Features
        from xaikit.artifacts.trace import Trace
        from xaikit.report.summaries import fit_fields, fit_lines
        from xaikit.stages.fit import fit as run

        with session.progress("fit") as progress:
            found = run(
                Trace.load(trace),
                Features.load(features),
                destination=destination.value,
                num_permutations=num_permutations,
                null=null.value,
                null_block=null_block,
                seed=seed,
                trace_file=str(trace),
                features_file=str(features),
                progress=progress,
            )
        found.save(out)
        session.result({"fit": str(out), **fit_fields(found)}, *fit_lines(found), f"→ {out}")


def _causal(app: typer.Typer) -> None:
    @app.command(epilog="Example\n\n`xaikit causal --num-permutations 200 --json`")
    def causal(
        features: o.FeaturesFile = Path("features.safetensors"),
        fit: o.FitFile = Path("fit.safetensors"),
        max_clusters: Annotated[int, typer.Option(help="Clusters to report.")] = 16,
        num_permutations: o.Permutations = 200,
        seed: o.Seed = 0,
        out: Annotated[Path, typer.Option(help="File to write.")] = Path("causal.json"),
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """What ablating or injecting a whole cluster changes in the predicted logits."""
        session = Session(json=json, quiet=quiet)
        from xaikit.artifacts.tensors import Features, Fit
        from xaikit.report.summaries import causal_lines
        from xaikit.stages.causal import causal as run

        found = run(
            Features.load(features),
            Fit.load(fit),
            max_clusters=max_clusters,
            num_permutations=num_permutations,
            seed=seed,
            features_file=str(features),
            fit_file=str(fit),
        )
        found.save(out)
        session.result(
            {"causal": str(out), "effects": found.to_dict()["effects"]},
            *causal_lines(found),
            f"→ {out}",
        )


def _target_causal(app: typer.Typer) -> None:
    @app.command(name="target-causal", epilog="Example\n\n`xaikit target-causal --top-n 20`")
    def target_causal(
        trace: o.TraceFile = Path("trace.safetensors"),
        features: o.FeaturesFile = Path("features.safetensors"),
        fit: o.FitFile = Path("fit.safetensors"),
        circuit: o.CircuitFile = Path("circuit.json"),
        top_n: Annotated[int, typer.Option("--top-n", help="Edges to test, best first.")] = 20,
        num_permutations: o.Permutations = 200,
        seed: o.Seed = 0,
        out: Annotated[Path, typer.Option(help="File to write.")] = Path("target_causal.json"),
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """What each edge of a circuit contributes to the predicted logits."""
        session = Session(json=json, quiet=quiet)
        from xaikit.artifacts.results import Circuit
        from xaikit.artifacts.tensors import Features, Fit
        from xaikit.artifacts.trace import Trace
        from xaikit.report.summaries import target_causal_lines
        from xaikit.stages.target_causal import target_causal as run

        with session.progress("target-causal") as progress:
            found = run(
                Trace.load(trace),
                Features.load(features),
                Fit.load(fit),
                Circuit.load(circuit),
                top_n=top_n,
                num_permutations=num_permutations,
                seed=seed,
                trace_file=str(trace),
                features_file=str(features),
                fit_file=str(fit),
                circuit_file=str(circuit),
                progress=progress,
            )
        found.save(out)
        session.result(
            {"target_causal": str(out), "effects": found.to_dict()["effects"]},
            *target_causal_lines(found),
            f"→ {out}",
        )


def _graph(app: typer.Typer) -> None:
    @app.command(epilog="Example\n\n`xaikit graph xaikit-out --min-share 0.2`")
    def graph(
        out_dir: Annotated[Path, typer.Argument(help="What `xaikit run-all` wrote.")] = Path(
            "xaikit-out"
        ),
        min_share: Annotated[
            float, typer.Option(help="Least share of a cluster's tokens that makes a link.")
        ] = 0.1,
        json: o.Json = False,
        quiet: o.Quiet = False,
        debug: o.Debug = False,
    ) -> None:
        """Join the clusters and circuits of several layers (node-link JSON, for networkx)."""
        session = Session(json=json, quiet=quiet)
        from xaikit.stages.graph import graph_of_folder

        path, data = graph_of_folder(out_dir, min_share=min_share)
        kinds = [edge["kind"] for edge in data["edges"]]
        heads, flows = kinds.count("head"), kinds.count("flow")
        session.result(
            {"graph": str(path), "nodes": len(data["nodes"]), "heads": heads, "flows": flows},
            f"{len(data['nodes'])} clusters, {heads} head links, {flows} flows → {path}",
        )
