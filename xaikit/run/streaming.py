"""`run-all --stream`: streaming clusters and fits, then every later stage as usual."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from xaikit.artifacts.files import FORMAT_VERSION, read_json, write_json
from xaikit.artifacts.results import Circuit, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.artifacts.trace import TraceInfo
from xaikit.errors import UsageError
from xaikit.images import SkippedImages
from xaikit.passes.columns import column_of, read_columns, tested_images
from xaikit.passes.plan import StreamOptions, run_key
from xaikit.run.assembly import Streamed
from xaikit.run.stream import stream
from xaikit.stages.target_causal import TargetCausalOptions, edge_effects

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.distributed import World
    from xaikit.images import ImageSource
    from xaikit.passes.columns import Column
    from xaikit.passes.record import LayerPair
    from xaikit.progress import Progress
    from xaikit.run.layer import LayerRun, LayerStages
    from xaikit.run.options import Options
    from xaikit.towers import Tower

IMAGES = "images.json"
"""What a trace would say of itself; it names the images behind the rows of the labels."""


def run_stream(
    tower: Tower,
    source: ImageSource,
    pairs: list[LayerPair],
    layers: list[LayerStages],
    root: Path,
    world: World,
    skipped: SkippedImages | None,
    progress: Progress,
) -> list[LayerRun]:
    """Run all stages; results that are already there are kept.

    Returns
    -------
    list of LayerRun
        Empty in all processes but the first.
    """
    options = stream_options(layers[0].options)
    start = time.perf_counter()
    keys = [run_key(tower, source, [pair], options) for pair in pairs]
    found = [_kept(layer, key) for layer, key in zip(layers, keys, strict=True)]
    # The first process decides for all: files may change while the others look.
    missing = world.broadcast({"missing": torch.tensor([each is None for each in found])})
    wanted = torch.nonzero(missing["missing"]).flatten().tolist()
    if wanted:
        made = stream(
            tower,
            source,
            [pairs[at] for at in wanted],
            options=options,
            scratch=root / "stream-state",
            features_files={pairs[at][0]: layers[at].path("features.safetensors") for at in wanted},
            world=world,
            skipped=skipped,
            progress=progress,
        )
    if not world.leads:
        return []
    for at, each in zip(wanted, made if wanted else [], strict=True):
        found[at] = _keep(layers[at], each, keys[at])
        layers[at].seconds["stream"] = (time.perf_counter() - start) / len(wanted)
    results = [each for each in found if each is not None]
    return _later_stages(tower, source, layers, results, options, progress)


def stream_options(options: Options) -> StreamOptions:
    """The options of `run_all` that streaming knows."""
    names = {field.name for field in fields(StreamOptions)}
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    return StreamOptions(**{name: value for name, value in given.items() if name in names})


def _kept(layer: LayerStages, key: str) -> Streamed | None:
    features = layer.reusable(Features, "features.safetensors", key)
    fitted = layer.reusable(Fit, "fit.safetensors", key)
    if features is None or fitted is None:
        return None
    try:
        info = TraceInfo.from_fields(read_json(layer.path(IMAGES), "images"), IMAGES)
    except UsageError:
        return None
    if info.identity != features.provenance.parents.get("trace"):
        return None
    layer.reused += ["cluster", "fit"]
    return Streamed(info=info, features=features, fit=fitted)


def _keep(layer: LayerStages, made: Streamed, key: str) -> Streamed:
    """Write a layer's results, the fit last: it is what makes the others count."""
    described = {**made.info.fields(), "stage": "images", "format_version": FORMAT_VERSION}
    write_json(layer.path(IMAGES), described)
    layer.keep(made.features, "features.safetensors", key)
    layer.keep(made.fit, "fit.safetensors", key)
    return made


def _later_stages(
    tower: Tower,
    source: ImageSource,
    layers: list[LayerStages],
    results: list[Streamed],
    options: StreamOptions,
    progress: Progress,
) -> list[LayerRun]:
    circuits = [
        layer.circuit(
            each.fit,
            functools.partial(
                layer.live_scores, tower, source, each.info.images, each.features, each.fit
            ),
        )
        for layer, each in zip(layers, results, strict=True)
    ]
    tests = _Tests(tower, source, layers, results, circuits, options, progress)
    return [
        layer.finished(each.info, each.features, each.fit, circuit, tests.effects(at))
        for at, (layer, each, circuit) in enumerate(zip(layers, results, circuits, strict=True))
    ]


class _Tests:
    """`target-causal` of all layers, from one more pass over some of the test images."""

    def __init__(
        self,
        tower: Tower,
        source: ImageSource,
        layers: list[LayerStages],
        results: list[Streamed],
        circuits: list[Circuit],
        options: StreamOptions,
        progress: Progress,
    ) -> None:
        self.tower, self.source, self.options, self.progress = tower, source, options, progress
        self.layers, self.results, self.circuits = layers, results, circuits
        self.columns = [
            column_of(each.info.provenance.next_layer, edge)
            for layer, each, circuit in zip(layers, results, circuits, strict=True)
            for edge in circuit.paths[: layer.options.top_n]
        ]
        # One choice of images serves all layers, whose split is the same.
        self.images = tested_images(
            results[0].features, self.columns, tower.info.tokens, options.seed
        )

    @functools.cached_property
    def logits(self) -> Mapping[Column, Tensor]:
        place = {name: at for at, name in enumerate(self.source.ids)}
        names = self.results[0].info.images
        return read_columns(
            self.tower,
            self.source,
            self.columns,
            [place[names[image]] for image in self.images],
            batch_size=self.options.batch_size,
            workers=self.options.workers,
            progress=self.progress,
        )

    def effects(self, at: int) -> TargetCausal:
        layer, each, circuit = self.layers[at], self.results[at], self.circuits[at]
        after = each.info.provenance.next_layer

        def make() -> TargetCausal:
            return edge_effects(
                each.features,
                each.fit,
                circuit,
                images=self.images,
                read=lambda edge: self.logits[column_of(after, edge)],
                options=TargetCausalOptions(
                    top_n=layer.options.top_n,
                    num_permutations=layer.options.num_permutations,
                    seed=layer.options.seed,
                ),
                trace_file="",
                features_file=layer.path("features.safetensors"),
                fit_file=layer.path("fit.safetensors"),
                circuit_file=layer.path("circuit.json"),
                progress=self.progress,
            )

        return layer.stage(TargetCausal, "target_causal.json", circuit.identity, make)
