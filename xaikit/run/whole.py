"""`run-all`'s end where there are several layers: one circuit of all of them, edited together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xaikit.artifacts.file_names import CIRCUIT, GRAPH, INTERVENE
from xaikit.artifacts.options import deciding
from xaikit.artifacts.results import Circuit, Intervention
from xaikit.progress import named
from xaikit.run.live import SHARES, compared
from xaikit.run.reuse import Folder, Request
from xaikit.stages import graph, intervene, whole
from xaikit.stages.intervene import InterveneOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xaikit.artifacts.tensors import Features, Fit
    from xaikit.run.layer import LayerRun
    from xaikit.run.options import Options
    from xaikit.run.subject import Subject

TOGETHER = "layers together"


class Runs(list["LayerRun"]):
    """The layers of a run, and what it has of all of them together.

    Attributes
    ----------
    whole : WholeRun, optional
        Where there are several layers.
    """

    whole: WholeRun | None = None


@dataclass(kw_only=True)
class WholeRun:
    """What a run of several layers has at its root.

    Attributes
    ----------
    circuit : Circuit
        Edges of all layers, ranked together.
    intervention : Intervention, optional
        Curves over the entries of all layers.
    graph : Path, optional
        Where edges end at clusters.
    """

    circuit: Circuit
    intervention: Intervention | None = None
    graph: Path | None = None


def quick_options(o: Options) -> InterveneOptions:
    """Enough for the summary: ``xaikit intervene --run`` measures more."""
    return o.live_as(
        InterveneOptions,
        rankings=compared(o, "reach"),
        shares=SHARES,
        band_shares=(0.01, 0.1, 0.3),
        max_images=48,
        edges=8,
        nodes=False,
    )


def run_whole(subject: Subject, runs: Sequence[LayerRun], root: Path, force: bool) -> WholeRun:
    """Rank the edges of all layers together, edit them together, and draw their paths."""
    o, chosen, folder = subject.options, subject.options.circuit(), Folder(root, force)
    parts = [(run.features, run.fit) for run in runs]
    fits = {f"fit_{fit.layer}": fit.identity for _, fit in parts}
    scores: dict[str, tuple[Tensor, ...]] = {}

    def choose() -> Circuit:
        made = whole.whole_circuit(
            subject.tower,
            subject.source,
            parts,
            ids=runs[0].info.images,
            rank=chosen.rank,
            top_k=chosen.top_k,
            max_qvalue=chosen.max_qvalue,
            objective=subject.objective(runs[0].info.images),
            options=o.live(),
            progress=named(subject.progress, f"{TOGETHER}, circuit"),
        )
        scores.update(made.scores)
        return made.circuit

    request = Request(
        stage="whole-circuit",
        revision=whole.REVISION,
        inputs=fits,
        options={**deciding(chosen), "seed": o.seed, **subject.aim},
    )
    found = WholeRun(circuit=folder.make(CIRCUIT, Circuit, request, choose))
    if o.intervene:
        found.intervention = _measured(subject, parts, found.circuit, scores, folder)
    if found.circuit.destination == "cluster":
        layers = [
            graph.GraphLayer(
                features=features,
                circuit=graph.of_layer(found.circuit, features),
                intervention=found.intervention,
            )
            for features, _ in parts
        ]
        graph.graph(layers, paths=True, out=root / GRAPH)
        found.graph = root / GRAPH
    return found


def _measured(
    subject: Subject,
    parts: Sequence[tuple[Features, Fit]],
    circuit: Circuit,
    scores: dict[str, tuple[Tensor, ...]],
    folder: Folder,
) -> Intervention:
    options, ids = quick_options(subject.options), parts[0][0].info.images
    request = Request(
        stage="whole-intervene",
        revision=intervene.REVISION,
        inputs={"circuit": circuit.identity, **subject.classes},
        options=deciding(options),
    )
    return folder.make(
        INTERVENE,
        Intervention,
        request,
        lambda: intervene.intervene_layers(
            subject.tower,
            subject.source,
            parts,
            ids=ids,
            circuit=circuit,
            classifier=subject.classifier(ids),
            scores=scores,
            options=options,
            progress=named(subject.progress, f"{TOGETHER}, intervene"),
        ),
    )
