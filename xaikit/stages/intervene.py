"""`intervene`: what the model does when edges are edited in its own forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from xaikit.artifacts.options import all_at_zero, checked, deciding, option
from xaikit.artifacts.records import require_parent
from xaikit.artifacts.results import Circuit, Intervention, TargetCausal
from xaikit.artifacts.tensors import Features, Fit
from xaikit.errors import OptionError, UsageError
from xaikit.interventions import (
    BAND_SHARES,
    MODES,
    SHARES,
    Live,
    LiveOptions,
    Order,
    Patch,
    Plan,
    check_shares,
    cover_share,
    edge_table,
    fractions_of,
    full_patch,
    order_edges,
    order_patch,
    set_patch,
)
from xaikit.interventions.matching import spread_evenly
from xaikit.interventions.metrics import COSINE, Classifier
from xaikit.interventions.nodes import (
    agreement,
    node_patches,
    node_records,
    present_clusters,
    spearman,
)
from xaikit.interventions.targets import EdgeTargets, circuit_keys, edge_targets
from xaikit.progress import Progress, silent
from xaikit.rankings import KEYS
from xaikit.rankings.live import image_ids, live_scores, open_live
from xaikit.statistics.multiple import permutation_pvalues

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace import Trace
    from xaikit.images import ImageSource
    from xaikit.towers import Tower

DEFAULT_RANKINGS = ("reach", "attribution", "energy", "weight")


def _modes(text: str) -> tuple[str, ...]:
    return MODES if text == "both" else tuple(text.split(","))


@dataclass(frozen=True, kw_only=True)
class InterveneOptions(LiveOptions):
    """Options of an intervention, beside those of running the model.

    Attributes
    ----------
    rankings : sequence of str
        Whose curves to measure; the first one names the edges to test where there is no circuit.
    modes : sequence of str
        ``remove``, ``keep`` or both.
    shares, band_shares : sequence of float
        Shares of the logit entries at which curves, and random sets, are measured.
    draws : int
        Random edge sets behind each band.
    max_images : int, optional
        At most so many images to test on, spread evenly.
    edges, edge_draws : int
        Single edges to test, and random edges that each is compared with.
    nodes : bool
        Ablate and inject whole clusters as well.
    """

    rankings: Sequence[str] = option(
        DEFAULT_RANKINGS,
        "Rankings to compare, separated by commas.",
        flag="--rank",
        choices=KEYS,
    )
    modes: Sequence[str] = option(
        MODES,
        "Edit the edges (remove), everything else (keep), or each in turn (both).",
        flag="--mode",
        choices=MODES,
        parse=_modes,
        metavar="remove|keep|both",
    )
    shares: Sequence[float] = option(SHARES, "Shares of the logit entries.", metavar="SHARE,...")
    band_shares: Sequence[float] = option(BAND_SHARES)
    draws: int = option(20, "Random edge sets.", panel="Statistics", least=0)
    max_images: int | None = option(
        128,
        "Images to test on, spread evenly; 0 = all.",
        panel="Images",
        least=1,
        parse=all_at_zero,
        metavar="<int>",
    )
    edges: int = option(20, "Edges to measure one by one.", least=0)
    edge_draws: int = option(
        39, "Random edges that each edge is compared with.", panel="Statistics", least=1
    )
    nodes: bool = option(True)

    def check(self) -> None:
        """Refuse to compare nothing."""
        for name, value, flag in (
            ("rankings", self.rankings, "--rank"),
            ("modes", self.modes, "--mode"),
        ):
            if not value:
                raise OptionError(name, value, "at least one", flag=flag)

    def checked(self) -> InterveneOptions:
        """The options with shares in order.

        Raises
        ------
        OptionError
            Naming the option that is out of range.
        """
        found = checked(self)
        shares = check_shares(found.shares)
        bands = check_shares(found.band_shares)[:-1]
        return replace(found, shares=shares, band_shares=bands)

    def record(self) -> dict[str, Any]:
        """The options as the artefact keeps them."""
        return deciding(self)


def intervene(
    tower: Tower,
    source: ImageSource,
    features: Features,
    fit: Fit,
    *,
    trace: Trace | None = None,
    circuit: Circuit | None = None,
    target: TargetCausal | None = None,
    classifier: Classifier | None = None,
    options: InterveneOptions | None = None,
    features_file: str = "",
    fit_file: str = "",
    circuit_file: str = "",
    progress: Progress = silent,
) -> Intervention:
    """Measure rankings, single edges and whole clusters in the real forward pass.

    Rankings are scored on the discovery images and everything is measured on the held-out ones;
    without a holdout both are the same images, and the artefact says so (`heldout`).

    Parameters
    ----------
    tower : Tower
        The model of the trace.
    source : ImageSource
        Holds the traced images, by id.
    features, fit : Features, Fit
    trace : Trace, optional
        For the ids of the images; without it the source must hold exactly the traced images.
    circuit : Circuit, optional
        Also measured as one set, against random sets of the same cover.
    target : TargetCausal, optional
        Whose edges are tested live; by default the circuit's first, else the first ranking's.
    classifier : Classifier, optional
        For KL divergence, margin and accuracy beside ``1 − cos``.
    options : InterveneOptions, optional

    Returns
    -------
    Intervention

    Raises
    ------
    UsageError
        Where the parts do not belong together or an option is out of range.
    """
    o = (options or InterveneOptions()).checked()
    require_parent(fit, "features", features, child_name="fit")
    for name, part in (("circuit", circuit), ("target-causal", target)):
        if part is not None and part.provenance.parents.get("fit") != fit.identity:
            raise UsageError(f"the {name} file was not made from this fit: make it again")
    ids = image_ids(source, features, trace)
    everything = list(range(len(ids)))
    tested = spread_evenly(features.test_images or everything, o.max_images)
    held = open_live(tower, source, features, fit, ids, tested, o, progress, classifier)
    scores = live_scores(
        o.rankings, tower, source, features, fit, ids=ids, options=o, progress=progress
    )
    orders = [
        order_edges(key, scores[key], held.counts, held.destination, fit.support)
        for key in o.rankings
    ]
    edges = edge_targets(
        held, fit, circuit, target, orders[0], count=o.edges, draws=o.edge_draws, seed=o.seed
    )
    run = _Run(held, orders, edges, circuit, o)
    return Intervention(
        provenance=fit.provenance.child(o.record(), fit=fit.identity),
        **run.measure(progress),
        destination=fit.destination,
        ablation=o.ablation,
        metrics=list(held.metrics),
        classifier=classifier.name if classifier else None,
        num_images=len(held.images),
        heldout=bool(features.heldout),
        features_file=features_file,
        fit_file=fit_file,
        circuit_file=circuit_file,
    ).identify()


class _Run:
    """One pass over the test images, and the artefact's fields from what it measures."""

    def __init__(
        self,
        live: Live,
        orders: list[Order],
        edges: EdgeTargets,
        circuit: Circuit | None,
        options: InterveneOptions,
    ) -> None:
        self.live, self.edges, self.options = live, edges, options
        self.plan = Plan(
            orders=orders,
            modes=options.modes,
            shares=options.shares,
            band_shares=options.band_shares,
            draws=options.draws,
            seed=options.seed,
        )
        self.clusters = present_clusters(live) if options.nodes else []
        keys = circuit_keys(circuit) if circuit else []
        self.table = edge_table(keys, live.shape) if keys else None

    def patches(self) -> dict[str, list[Patch]]:
        """All that is measured, by purpose."""
        live = self.live
        found = {"full": [full_patch()], "curves": self.plan.patches(live)}
        found["edges"] = self.edges.patches(live)
        found["nodes"] = node_patches(live, self.clusters) if self.clusters else []
        found["circuit"] = []
        if self.table is not None:
            share = cover_share(self.table, live.counts)
            random = self.plan.random_orders(live)
            found["circuit"] = [
                set_patch(self.table, live.destination),
                set_patch(self.table, live.destination, keep=True),
                *(order_patch(order, [share]) for order in random),
            ]
        return found

    def measure(self, progress: Progress) -> dict[str, Any]:
        """Run everything once and put it into the artefact's fields."""
        patches = self.patches()
        flat = [patch for group in patches.values() for patch in group]
        measured = iter(self.live.measure(flat, progress))
        found = {name: [next(measured) for _ in group] for name, group in patches.items()}
        full = {metric: float(values.mean()) for metric, values in found["full"][0].items()}
        curves, bands = self.plan.records(self.live, found["curves"], full)
        effects = self.edges.measured(found["edges"])
        nodes = node_records(self.live, self.clusters, found["nodes"]) if self.clusters else []
        agreeing = agreement(nodes)
        agreeing["edges"] = spearman(
            [effect.edge_effect for effect in effects],
            [effect.live_effect or 0.0 for effect in effects],
        )
        return {
            "full_effect": full,
            "curves": curves,
            "random": bands,
            "effects": effects,
            "clusters": nodes,
            "agreement": agreeing,
            "completeness": self._completeness(found["circuit"], full),
        }

    def _completeness(
        self, measured: list[dict[str, Tensor]], full: dict[str, float]
    ) -> dict[str, Any]:
        """What a circuit alone breaks and holds, as shares of the full effect."""
        if self.table is None:
            return {}
        removed, kept, *random = [float(found[COSINE].mean()) for found in measured]
        whole = full[COSINE]
        shares = fractions_of([removed, kept, *random], whole)
        drawn = torch.tensor(shares[2:], dtype=torch.float64)
        observed = torch.tensor(shares[:1], dtype=torch.float64)
        return {
            "edges": int(self.table.sum()),
            "share": cover_share(self.table, self.live.counts),
            "removed": shares[0],
            "kept": shares[1],
            "completeness": shares[0],
            "faithfulness": 1.0 - shares[1] if whole else 0.0,
            "random_mean": float(drawn.mean()) if len(drawn) else None,
            "random_high": float(drawn.max()) if len(drawn) else None,
            "pvalue": float(permutation_pvalues(observed, drawn[:, None])[0]),
        }
