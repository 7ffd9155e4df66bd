"""Which edges matter? A table of rankings by what the model does when their edges are removed.

    python examples/05_which_edges_matter.py
    python examples/05_which_edges_matter.py --model timm/vit_tiny_patch16_224 \
        --pretrained vit.safetensors --images photos --layers 3,6,9 --num-clusters 48
    python examples/05_which_edges_matter.py --planted 4 --layers 0,1,2

For each layer and both kinds of destination: the share of the full effect (1 − cos of the image
embedding, mean ablation, held-out images) that each ranking reaches by removing 1 % and 10 % of
the logit entries, and the area under its removal curve with the share on a logarithmic axis. The
last row is the mean of random orders, with the highest of them in brackets.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL.Image import Image

import xaikit
from xaikit.images import ImageSource
from xaikit.report.live import at_share, removal_curves
from xaikit.stages.intervene import InterveneOptions
from xaikit.stages.trace import trace_layers
from xaikit.testing import planted_tower

RANKINGS = "reach,attribution,rows,output,energy,zscore,contrast,weight"
SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


class Sample:
    """Some images of a source, spread over its folders."""

    def __init__(self, source: ImageSource, count: int) -> None:
        places = list(range(len(source)))
        random.Random(0).shuffle(places)
        self.source, self.places = source, sorted(places[:count])
        self.ids = [source.ids[place] for place in self.places]
        self.groups = None

    def __len__(self) -> int:
        return len(self.places)

    def load(self, i: int) -> Image:
        """Decode image `i`."""
        return self.source.load(self.places[i])

    def describe(self) -> dict[str, Any]:
        """What the images were drawn from."""
        return {"kind": "sample", "of": self.source.describe()}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default="xaikit-demo")
    parser.add_argument("--pretrained")
    parser.add_argument("--images", type=Path, help="folder; default: the demo's scenes")
    parser.add_argument("--planted", type=float, help="a planted tower of this strength instead")
    parser.add_argument("--layers", default="1,2,3", help="target layers")
    parser.add_argument("--num-clusters", type=int, default=16)
    parser.add_argument("--count", type=int, default=192, help="images, half of them held out")
    parser.add_argument("--test", type=int, default=32, help="most images to measure on")
    parser.add_argument("--rank", default=RANKINGS)
    parser.add_argument("--destinations", default="token,cluster")
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    if options.planted is None:
        measure(options)
        return
    for layer in options.layers.split(","):
        with tempfile.TemporaryDirectory() as folder:
            measure(planted(options, int(layer), folder))


def planted(options: argparse.Namespace, layer: int, folder: str) -> argparse.Namespace:
    """Write a tower whose circuit is known, and its images; return options that name them."""
    tower = planted_tower(strength=options.planted, layer=layer, layers=layer + 3)
    files = tower.save(folder, options.count)
    named = {"model": str(files.config), "pretrained": files.weights, "images": files.images}
    sizes = {"layers": str(layer), "num_clusters": tower.spec.groups + 1}
    return argparse.Namespace(**{**vars(options), **named, **sizes})


def measure(options: argparse.Namespace) -> None:
    """Print one table a layer and destination."""
    tower = xaikit.load_tower(options.model, options.pretrained)
    everything = xaikit.open_images(images=options.images, demo=options.images is None)
    source = Sample(everything, options.count)
    pairs = [(int(layer), int(layer) + 1) for layer in options.layers.split(",")]
    traces = trace_layers(tower, source, pairs, progress=say)
    for trace in traces:
        features = xaikit.cluster(trace, num_clusters=options.num_clusters, holdout=0.5)
        for destination in options.destinations.split(","):
            fit = xaikit.fit(trace, features, destination=destination, num_permutations=20)
            found = xaikit.intervene(
                tower,
                source,
                features,
                fit,
                trace=trace,
                options=InterveneOptions(
                    rankings=options.rank.split(","),
                    modes=("remove",),
                    shares=SHARES,
                    draws=options.draws,
                    max_images=options.test,
                    edges=0,
                    nodes=False,
                ),
                progress=say,
            )
            print(table(found), flush=True)


def table(found: xaikit.Intervention) -> str:
    """The rankings of one intervention as Markdown."""
    lines = [
        f"\n### layer {found.layer} → {found.next_layer}, destination {found.destination} "
        f"({found.num_images} held-out images, full effect {found.full_effect['cosine']:.4f})\n",
        "| ranking | 1 % | 10 % | area, log axis |",
        "| --- | --- | --- | --- |",
    ]
    for curve in removal_curves(found):
        cells = [f"{at_share(curve, share):.3f}" for share in (0.01, 0.1)]
        lines.append(f"| {curve['ranking']} | {' | '.join(cells)} | {curve['area_log']:.3f} |")
    for band in found.random:
        cells = [
            f"{at_share(band, share):.3f} ({at_share(band, share, 'high') / whole(band):.3f})"
            for share in (0.01, 0.1)
        ]
        lines.append(f"| random | {' | '.join(cells)} | {band['area_log']:.3f} |")
    return "\n".join(lines)


def whole(band: dict) -> float:
    """The full effect behind a band."""
    return band["mean"][-1] or 1.0


def say(what: str, done: int, total: int) -> None:
    """Show progress on standard error, where it is a terminal."""
    if sys.stderr.isatty():
        print(f"\r{what} {done}/{total}   ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
