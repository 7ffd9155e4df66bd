"""The pipeline from Python, on the embedded demo.

    python examples/02_from_python.py [IMAGES]

Every stage is a function from artefacts and options to an artefact; nothing is printed and
nothing is written unless you ask for it.
"""

from __future__ import annotations

import sys

import xaikit


def main(count: int = 256) -> None:
    """Trace `count` demo scenes, find the circuit and print its first edges."""
    tower = xaikit.load_tower("xaikit-demo")
    scenes = xaikit.open_images(demo=True, max_images=count)

    trace = xaikit.trace(tower, scenes, target_layer=3)
    features = xaikit.cluster(trace, num_clusters=8, holdout=0.5)
    fit = xaikit.fit(trace, features, destination="cluster")
    circuit = xaikit.circuit(fit, rank="contrast", top_k=10)
    effects = xaikit.target_causal(trace, features, fit, circuit, top_n=5)

    scores = fit.heldout_r2
    added = scores["r2_position_cluster"] - scores["r2_position"]
    print(f"clusters add {added:+.3f} R² to position, on {fit.num_test_images} held-out images")
    for edge in circuit.paths:
        print(
            f"cluster {edge.cluster_id} -> head {edge.head} -> {edge.dst_name}: "
            f"contrast {edge.contrast:+.2f}, q = {edge.qvalue:.1g}"
        )
    print(f"strongest effect: {effects.effects[0].edge_effect:.2f} logits")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
