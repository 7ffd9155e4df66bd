"""What a run folder holds, read part by part; what is missing is said and not guessed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from xaikit.artifacts import run_record
from xaikit.artifacts.file_names import (
    CAUSAL,
    CIRCUIT,
    FEATURES,
    FIT,
    GRAPH,
    INTERVENE,
    NUM_CLUSTERS,
    OVERVIEW,
    STABILITY,
    TARGET_CAUSAL,
    TRACE,
    TRACE_SHARDS,
)
from xaikit.artifacts.graph import Graph
from xaikit.artifacts.json_artifact import JsonArtifact
from xaikit.artifacts.results import Causal, Circuit, Intervention, TargetCausal
from xaikit.artifacts.studies import ClusterSweep, Stability
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import Trace
from xaikit.errors import UsageError

Artifact = TypeVar("Artifact", bound=JsonArtifact)


@dataclass(kw_only=True)
class LayerParts:
    """One pair of layers' artefacts; everything but features and fit may be missing."""

    folder: Path
    features: Features
    fit: Fit
    trace: Trace | None = None
    circuit: Circuit | None = None
    causal: Causal | None = None
    target: TargetCausal | None = None
    intervention: Intervention | None = None
    overview: Path | None = None

    @property
    def layer(self) -> int:
        """The layer whose gates were clustered."""
        return self.fit.layer


@dataclass(kw_only=True)
class RunParts:
    """A whole run.

    Attributes
    ----------
    root : Path
    layers : list of LayerParts
        In ascending order.
    circuit, intervention, graph : Circuit, Intervention and dict, optional
        Of all layers together, where there are several.
    stability : Stability or None
        Of `xaikit stability`, where it was written into the folder.
    sweep : ClusterSweep or None
        Of ``--num-clusters auto``, where these clusters are as many as it chose.
    command : str
        What made the run on the command line; empty where it was made from Python or in steps.
    missing : dict of str to list of str
        What a complete run would hold, in words, and the folders that lack it.
    """

    root: Path
    layers: list[LayerParts]
    circuit: Circuit | None = None
    intervention: Intervention | None = None
    graph: dict[str, Any] | None = None
    stability: Stability | None = None
    sweep: ClusterSweep | None = None
    command: str = ""
    missing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        """Whether layers lie in folders of their own."""
        return self.layers[0].folder != self.root

    @property
    def identity(self) -> str:
        """Names this run among others, for what a reader keeps of it."""
        return self.layers[0].fit.identity


def read_run(run_dir: str | Path) -> RunParts:
    """Read what `run-all` or the single commands left in a folder.

    Raises
    ------
    UsageError
        Where there is no such folder, it holds no run, or one of its files is damaged.
    """
    root = Path(run_dir)
    if not root.is_dir():
        raise UsageError(f"{root} is no folder; expected what `xaikit run-all --out-dir` wrote")
    missing: dict[str, list[str]] = {}
    record = _record(root)
    folders = _layer_folders(root, record)
    if not folders:
        raise UsageError(
            f"{root} holds no run: expected {FEATURES} and {FIT} in it or in layer_<l>/; "
            "run `xaikit run-all` first"
        )
    layers = sorted((_read_layer(folder, missing) for folder in folders), key=lambda p: p.layer)
    command = record.get("command", "")
    found = RunParts(root=root, layers=layers, command=command, missing=missing)
    if found.several:
        fits = [layer.fit for layer in layers]
        found.circuit = run_record.read_together(Circuit.load, root / CIRCUIT, fits)
        live = root / INTERVENE
        joint = run_record.read_together(Intervention.load, live, fits)
        found.intervention = _of_circuit(joint, found.circuit, missing)
        if layers[0].fit.destination == "cluster" and (root / GRAPH).exists():
            found.graph = Graph.load(root / GRAPH)
    # Those of an earlier run in the folder may be of another model, of other images or layers.
    origin = layers[0].fit.provenance.origin
    if (root / STABILITY).exists():
        stability = Stability.load(root / STABILITY)
        same = stability.provenance.origin.key() == origin.key()
        found.stability = stability if same else None
    if (root / NUM_CLUSTERS).exists():
        sweep = ClusterSweep.load(root / NUM_CLUSTERS)
        weights = sweep.provenance.origin.weights_fingerprint == origin.weights_fingerprint
        pairs = [[layer.layer, layer.fit.next_layer] for layer in layers]
        same = weights and sorted(sweep.layers) == sorted(pairs)
        same &= sweep.num_clusters == layers[0].features.num_clusters
        found.sweep = sweep if same else None
    return found


def _record(root: Path) -> dict[str, Any]:
    """What the run says of itself; nothing where single commands made the parts."""
    with contextlib.suppress(UsageError):
        return run_record.read_run(root)
    return {}


def _layer_folders(root: Path, record: dict[str, Any]) -> list[Path]:
    """Folders of the run that was last made in a folder: those of an earlier one may lie beside."""
    if record:
        folders = [root / name for name in record["folders"]]
    else:
        folders = [root] if (root / FIT).exists() else sorted(root.glob("layer_*"))
    return [folder for folder in folders if (folder / FIT).exists()]


def _read_layer(folder: Path, missing: dict[str, list[str]]) -> LayerParts:
    fit = Fit.load(folder / FIT)
    overview = folder / OVERVIEW
    parts = LayerParts(
        folder=folder,
        fit=fit,
        features=Features.load(_beside(folder, FEATURES, fit.features_file)),
        circuit=_optional(Circuit, folder / CIRCUIT, missing),
        causal=_optional(Causal, folder / CAUSAL, missing),
        target=_optional(TargetCausal, folder / TARGET_CAUSAL, missing),
        # An earlier run, of other clusters, may have left its own.
        intervention=_optional(Intervention, folder / INTERVENE, missing, fit),
        overview=overview if overview.is_file() else None,
    )
    _belong_together(parts)
    parts.intervention = _of_circuit(parts.intervention, parts.circuit, missing)
    if parts.intervention is None:
        # It is drawn where the live model is asked.
        parts.overview = None
    parts.trace = _trace(parts)
    return parts


def _beside(folder: Path, name: str, recorded: str) -> Path:
    """The file in the folder itself: a run that was moved keeps its parts together."""
    return folder / name if (folder / name).exists() or not recorded else Path(recorded)


def _optional(
    kind: type[Artifact], path: Path, missing: dict[str, list[str]], fit: Fit | None = None
) -> Artifact | None:
    """A part that may be missing; of another fit than the one given, it is."""
    found = run_record.read_beside(kind.load, path, fit)
    if found is None:
        what = f"{path.name}: run `xaikit {kind.STAGE}`"
        missing.setdefault(what, []).append(path.parent.name)
    return found


def _of_circuit(
    live: Intervention | None, circuit: Circuit | None, missing: dict[str, list[str]]
) -> Intervention | None:
    """What was measured, without what is of a whole circuit where that is not the one listed."""
    if live is None or circuit is None:
        return live
    if live.provenance.parents.get("circuit", circuit.identity) == circuit.identity:
        return live
    folder = circuit.path.parent.name if circuit.path is not None else ""
    what = "what the listed circuit does as a whole: run `xaikit intervene` with it"
    missing.setdefault(what, []).append(folder)
    return replace(live, completeness={})


def _belong_together(parts: LayerParts) -> None:
    """Refuse artefacts of another model, other images or another fit."""
    features, fit = parts.features, parts.fit
    if fit.provenance.parents.get("features") != features.identity:
        raise UsageError(f"{parts.folder}: {FEATURES} and {FIT} are not of the same run")
    for made in (parts.circuit, parts.causal, parts.target, parts.intervention):
        if made is not None and made.provenance.parents.get("fit", fit.identity) != fit.identity:
            raise UsageError(
                f"{parts.folder}: the {made.STAGE} file was made from another {FIT}; "
                f"run `xaikit {made.STAGE}` again"
            )


def _trace(parts: LayerParts) -> Trace | None:
    """The trace, where it was kept and is the one the clusters are of."""
    places = [parts.folder / name for name in (TRACE, TRACE_SHARDS)]
    if parts.features.trace_file:
        places.append(Path(parts.features.trace_file))
    for place in places:
        if not place.exists():
            continue
        try:
            found = Trace.load(place)
        except UsageError:
            continue
        if found.identity == parts.features.provenance.parents.get("trace"):
            return found
    return None
