"""What a run adds to the page of one image: its clusters, and its own circuit beside the common."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaikit.report.curves import IN_NUMBERS, as_drawn
from xaikit.report.directions import direction, full_words, moved
from xaikit.report.live import AT, at_share
from xaikit.report.page.clusters import cluster_cards, cluster_id, spoken
from xaikit.report.page.faithfulness import band_record, curve_record, metric_words
from xaikit.report.page.naming import Naming, add_words, model_for
from xaikit.report.page.parts import RunParts, read_run
from xaikit.report.page.pictures import Pictures
from xaikit.text import printable

if TYPE_CHECKING:
    from xaikit.artifacts.edges import Edge
    from xaikit.artifacts.explanation import Explanation
    from xaikit.progress import Progress

TILES = 4
"""Members of each cluster shown, from the run's images."""


@dataclass(kw_only=True)
class OwnCircuit:
    """An explanation with what the run says of its clusters.

    Attributes
    ----------
    found : Explanation
    run : RunParts
    cards : dict of str to dict
        What the run's page says of each cluster, by its id.
    """

    found: Explanation
    run: RunParts
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, found: Explanation, run_dir: str | Path, naming: Naming, progress: Progress
    ) -> OwnCircuit:
        """Read the run, and name its clusters where that is wanted."""
        run = read_run(run_dir)
        pictures = Pictures(run.layers[0])
        cards = [card for parts in run.layers for card in cluster_cards(parts, pictures)]
        tower, _ = model_for(run, pictures, naming)
        if tower is not None:
            add_words(run, pictures, cards, tower, naming.vocabulary, progress)
        return cls(found=found, run=run, cards={card["id"]: card for card in cards})

    def name(self, layer: int, cluster: int) -> str:
        """A cluster in words."""
        card = self.cards.get(cluster_id(layer, cluster))
        return spoken(card, len(self.run.layers) > 1) if card else f"cluster {cluster}"

    def data(self) -> dict[str, Any]:
        """What the page's scripts read."""
        own, common = self.found.edges, self.found.common_edges
        # Of one layer, effects do not name it.
        only = self.found.layers[0][0]
        effects = {(only if e.layer is None else e.layer, *e.key): e for e in self.found.effects}
        return {
            "layers": [
                {"layer": layer, "next": after, "labels": labels, "clusters": self._clusters(at)}
                for at, ((layer, after), labels) in enumerate(
                    zip(self.found.layers, self.found.labels, strict=True)
                )
            ],
            "own": [self._edge(edge, common, effects) for edge in own],
            "common": [self._edge(edge, own, effects) for edge in common],
            "measured": self._measured(),
        }

    def _clusters(self, at: int) -> list[dict[str, Any]]:
        """The clusters that the image holds in one layer, largest first."""
        layer, labels = self.found.layers[at][0], self.found.labels[at]
        held = sorted(set(labels), key=lambda cluster: -labels.count(cluster))
        found = []
        for cluster in held:
            card = self.cards.get(cluster_id(layer, cluster), {})
            tiles = (card.get("central") or card.get("random") or [])[:TILES]
            name = self.name(layer, cluster)
            found.append(
                {"cluster": cluster, "name": name, "count": labels.count(cluster), "tiles": tiles}
            )
        return found

    def _edge(self, edge: Edge, others: list[Edge], effects: dict[Any, Any]) -> dict[str, Any]:
        layer = edge.layer or 0
        effect = effects.get((edge.layer, *edge.key))
        to_cluster = edge.dst_cluster is not None
        return {
            "layer": layer,
            "next": edge.next_layer,
            "head": edge.head,
            "cluster": edge.cluster_id,
            "queries": self.name(layer, edge.cluster_id),
            "target": edge.dst_cluster,
            "token": edge.dst_token,
            "keys": self.name(layer, edge.destination) if to_cluster else edge.dst_name,
            "contrast": edge.contrast,
            "score": edge.score,
            "side": edge.side,
            "live": effect.live_effect if effect else None,
            "liveQ": effect.live_qvalue if effect else None,
            "both": any((e.layer, e.key) == (edge.layer, edge.key) for e in others),
        }

    def _measured(self) -> dict[str, Any]:
        found = self.found
        metrics = dict.fromkeys(curve["metric"] for curve in found.curves)
        return {
            "metrics": metric_words(metrics, found),
            "curves": [curve_record(curve, found) for curve in found.curves],
            "random": [band_record(record, found) for record in found.random],
        }

    def sentences(self) -> list[str]:
        """What was found of the image, in plain words."""
        found, said = self.found, []
        kind = found.objective.get("kind", "embedding")
        metric = "cosine" if kind == "embedding" else kind
        reached = {
            curve["ranking"]: at_share(as_drawn(curve, found), AT)
            for curve in found.curves
            if (curve["mode"], curve["metric"]) == ("remove", metric)
        }
        if {"own", "common"} <= set(reached) and metric == IN_NUMBERS:
            said.append(
                f"On {len(found.tested)} views of the image that chose nothing, putting the "
                f"average in place of the {AT:.0%} of attention entries that its own circuit puts "
                f"first {moved(reached['own'], direction(found))}, doing so everywhere "
                f"{moved(found.full_effect.get(metric, 0.0), 'it')}; as many entries of the run's "
                f"common circuit {moved(reached['common'], 'it', several=True)}"
                f"{self._by_chance(metric)}."
            )
        elif {"own", "common"} <= set(reached):
            said.append(
                f"On {len(found.tested)} views of the image that chose nothing, putting the "
                f"average in place of the {AT:.0%} of attention entries that its own circuit puts "
                f"first does {reached['own']:.0%} of what doing so everywhere does "
                f"({full_words(metric, found.full_effect.get(metric, 0.0))}); "
                f"with the run's common circuit {reached['common']:.0%}{self._by_chance(metric)}."
            )
            said.append(_compared(reached["own"], reached["common"]))
        shared = [record["shared"] for record in found.overlap if record["share"] == AT]
        if shared:
            said.append(f"The two circuits share {shared[0]:.0%} of those entries.")
        return [printable(each) for each in said]

    def _by_chance(self, metric: str) -> str:
        bands = (b for b in self.found.random if (b["mode"], b["metric"]) == ("remove", metric))
        drawn = next(bands, None)
        if not drawn:
            return ""
        reached = at_share(as_drawn(drawn, self.found), AT)
        if metric == IN_NUMBERS:
            return f", random ones {moved(reached, 'it', several=True)}"
        return f", with random edges {reached:.0%}"


def _compared(own: float, common: float) -> str:
    if abs(own - common) < 0.02:
        return "So the edges that matter for this image are, by this measure, the common ones."
    if own > common:
        return "So some of what matters for this image is not in the common circuit."
    return (
        "So ranking on this image alone finds less of what matters than the run's images do: use "
        "the common circuit."
    )
