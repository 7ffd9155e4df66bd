"""How much do clusters say about attention, layer by layer and for both kinds of destination?

    python examples/03_comparing_layers.py [IMAGES [MODEL PRETRAINED FOLDER]]

One forward pass feeds every layer.
"""

from __future__ import annotations

import sys

import xaikit
from xaikit.stages.trace import trace_layers


def main(
    count: int = 256,
    model: str = "xaikit-demo",
    pretrained: str | None = None,
    folder: str | None = None,
) -> None:
    """Print the held-out R² of position alone, and what clusters add to it."""
    tower = xaikit.load_tower(model, pretrained)
    images = xaikit.open_images(images=folder, demo=folder is None, max_images=count)
    pairs = [(layer, layer + 1) for layer in range(tower.info.layers - 1)]

    print("layers   position only   + cluster→token   + cluster→cluster   edges with q ≤ 0.05")
    for trace in trace_layers(tower, images, pairs, max_images=count):
        features = xaikit.cluster(trace, num_clusters=8, holdout=0.5)
        added = {}
        for destination in ("token", "cluster"):
            fit = xaikit.fit(trace, features, destination=destination, num_permutations=50)
            scores = fit.heldout_r2
            added[destination] = scores["r2_position_cluster"] - scores["r2_position"]
        print(
            f"{trace.layer:>2} → {trace.next_layer:<2}  {scores['r2_position']:13.3f}   "
            f"{added['token']:+15.3f}   {added['cluster']:+17.3f}   "
            f"{(fit.edge_qvalues <= 0.05).double().mean():19.0%}"
        )


if __name__ == "__main__":
    words = sys.argv[1:]
    main(*(int(word) for word in words[:1]), *words[1:])
