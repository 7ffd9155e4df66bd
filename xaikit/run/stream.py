"""`run-all --stream`: clusters and fits of any number of images, with no trace on disk.

Two passes over the images. The first learns the clusters of every requested layer from a sample
of tokens, and the mean logits of the discovery images; the second labels all tokens and adds up
what a fit needs, logits being dropped layer by layer as the forward pass goes on. Permutations
are sampled on a few blocks, in a third short pass where their tables are large. Memory does not
depend on the number of images, but for one or two bytes a token for its label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import torch

from xaikit.artifacts.files import fingerprint
from xaikit.artifacts.options import checked, deciding
from xaikit.artifacts.tensors import Features, Fit
from xaikit.errors import UsageError, XaikitError
from xaikit.images import Skipped
from xaikit.passes.checkpoint import Checkpoint
from xaikit.passes.feed import LayerPair
from xaikit.passes.guided import learn_guided_clusters
from xaikit.passes.learn import Clusters, SamplePlan, learn_clusters
from xaikit.passes.memory import budget, sums_bytes
from xaikit.passes.pair_sums import SumOptions
from xaikit.passes.plan import Plan, make_plan, split_candidates
from xaikit.passes.record import blank_info
from xaikit.passes.sums import PairStatistics, SumsPass, shared_means
from xaikit.passes.visitors import LabelImages, PositionMean
from xaikit.progress import named
from xaikit.run.measure import model_measure
from xaikit.run.subject import Subject
from xaikit.stages import cluster, fit
from xaikit.statistics.prefix import prefix_clusters

if TYPE_CHECKING:
    from torch import Tensor

    from xaikit.artifacts.trace_info import TraceInfo
    from xaikit.passes.running import ModelFeed


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """What the passes learnt of one pair of layers.

    Attributes
    ----------
    info : TraceInfo
        What a trace of the same images would say of itself.
    """

    info: TraceInfo
    clusters: Clusters
    labels: Tensor
    statistics: PairStatistics
    parts: dict[str, list[int]]

    def features(self, subject: Subject, trace_file: str) -> Features:
        """The features, as `xaikit.cluster` makes them of a trace."""
        chosen = cluster.recorded(subject.options.cluster(), measured=True)
        return cluster.assemble(
            self.info, self.clusters, self.labels, self.parts, chosen, trace_file
        )

    def fit(self, subject: Subject, features: Features) -> Fit:
        """The fit, as `xaikit.fit` makes it of a trace."""
        chosen = deciding(subject.options.fit())
        return fit.assemble(features, self.info, self.statistics, chosen)


def stream(
    subject: Subject, pairs: Sequence[LayerPair], scratch: Path | None = None
) -> Iterator[Group]:
    """Cluster and fit several pairs of layers in two passes over the images.

    Pairs whose sums do not fit into memory together are taken in turns.

    Parameters
    ----------
    scratch : path, optional
        Folder for checkpoints: a run that finds those of an interrupted one with the same
        options and number of processes goes on from them.

    Yields
    ------
    Group
        To be run, and told once its results are saved, before the next one is asked for.

    Raises
    ------
    UsageError
        Where an option is out of range, or one pair alone does not fit into memory.
    XaikitError
        Where no image is usable, or a logit is not finite.
    """
    for group in memory_groups(subject, pairs):
        yield Group(subject, group, scratch)


def plan_of(subject: Subject) -> Plan:
    """Parts and blocks of the candidates of a run."""
    o = subject.options
    chosen = checked(o.cluster())
    chosen.check_rows(subject.candidates * subject.tower.info.tokens)
    checked(o.fit())
    return make_plan(candidate_parts(subject), o.null_block, o.seed)


def candidate_parts(subject: Subject) -> dict[str, list[int]]:
    """Which candidates are held out."""
    o, source, count = subject.options.cluster(), subject.source, subject.candidates
    groups = source.groups
    return split_candidates(
        list(source.ids)[:count], list(groups)[:count] if groups else None, o.holdout, o.seed
    )


def sum_options(subject: Subject) -> SumOptions:
    """What a run adds up."""
    return fit.sum_options(subject.options.fit(), subject.options.cluster().clusters)


def memory_groups(subject: Subject, pairs: Sequence[LayerPair]) -> list[list[LayerPair]]:
    """Pairs whose sums fit into the memory budget beside one another."""
    # A quarter is for the draws of permutations.
    info, room = subject.tower.info, budget(subject.options.memory) * 3 // 4
    options = sum_options(subject)
    parts = 2 if subject.options.holdout else 1
    each = sums_bytes(
        options.shape(info.heads, info.tokens), parts, options.null_block, options.controls
    )
    if each > room:
        raise UsageError(
            f"the sums of one pair of layers take {each / 2**30:,.1f} GiB, {room / 2**30:,.1f} "
            "may be used: pass a larger `memory=`, or fewer `num_clusters=`"
        )
    size = max(1, room // each)
    return [list(pairs[at : at + size]) for at in range(0, len(pairs), size)]


class Group:
    """Some pairs of layers whose sums are in memory together."""

    def __init__(self, subject: Subject, pairs: list[LayerPair], scratch: Path | None) -> None:
        self.subject, self.pairs = subject, pairs
        self.plan = plan_of(subject)
        self.checkpoint: Checkpoint | None = None
        if scratch is not None:
            self.checkpoint = Checkpoint(scratch, self._key(), subject.world)
        self.feed: ModelFeed = subject.feed(pairs, self.checkpoint)

    def _key(self) -> str:
        o = self.subject.options
        requests = [self.subject.request(pair).key() for pair in self.pairs]
        options = [deciding(o.cluster()), deciding(o.fit())]
        return fingerprint(requests, options, cluster.REVISION, fit.REVISION)

    def _name(self, what: str) -> str:
        return f"{what}-{self.pairs[0][0]}"

    def saved(self) -> None:
        """Forget what an interrupted run would go on from."""
        if self.checkpoint is not None:
            self.checkpoint.forget()

    def run(self) -> Iterator[tuple[LayerPair, Streamed]]:
        """Both passes; in the first process, what they learnt of one pair after the other.

        A pair's statistics are as large as its sums: let go of them before the next pair.
        """
        subject, tower = self.subject, self.subject.tower
        o, info = subject.options, tower.info
        clusters, means = self._learn()
        labels = {
            pair: LabelImages(
                clusters[pair].labeller(tower.device),
                o.cluster().clusters,
                subject.candidates,
                info.tokens,
            )
            for pair in self.pairs
        }
        sums = SumsPass(
            self.feed,
            self.plan,
            sum_options(subject),
            means,
            labels,
            memory=budget(o.memory) // 4,
            device=tower.device,
        )
        sums.run(named(subject.progress, "fit"), name=self._name("sums"), what="images")
        _share_skipped(subject)
        rows = {pair: self._rows(labels[pair]) for pair in self.pairs}
        for pair, statistics in sums.statistics(rows, named(subject.progress, "fit")):
            yield (
                pair,
                Streamed(
                    info=self._info(pair, labels[pair]),
                    clusters=clusters[pair],
                    labels=labels[pair].labels,
                    statistics=statistics,
                    parts=self.plan.parts,
                ),
            )

    def _learn(self) -> tuple[dict[LayerPair, Clusters], dict[LayerPair, Tensor]]:
        subject, info = self.subject, self.subject.tower.info
        o, discovery = subject.options.cluster(), self.plan.parts["discovery"]
        shared = prefix_clusters(o.clusters, info.prefix_kinds, o.prefix)
        if o.method == "guided":
            return learn_guided_clusters(
                self.feed,
                self.pairs,
                discovery,
                shared,
                blocks=self.plan.of("discovery"),
                measure=model_measure(subject),
                device=subject.tower.device,
                name=self._name("learn"),
                progress=named(subject.progress, "cluster"),
            )
        means = {
            pair: PositionMean(info.heads, info.tokens, subject.tower.device) for pair in self.pairs
        }
        plan = SamplePlan.make(discovery, info.tokens, o.sample_tokens, o.seed, shared.tokens)
        found = learn_clusters(
            self.feed,
            self.pairs,
            plan,
            shared,
            o.seed,
            blocks=self.plan.of("discovery"),
            beside={pair: [visitor] for pair, visitor in means.items()},
            name=self._name("learn"),
            progress=named(subject.progress, "cluster"),
        )
        return found, shared_means(means, subject.world)

    def _rows(self, labels: LabelImages) -> dict[str, Tensor]:
        """Labels of the used images of each part, in the order of candidates."""
        used, every = labels.used, labels.labels
        return {
            name: every[torch.from_numpy(np.isin(used, images))]
            for name, images in self.plan.parts.items()
        }

    def _info(self, pair: LayerPair, labels: LabelImages) -> TraceInfo:
        subject, used = self.subject, labels.used.tolist()
        skipped = [(record.index or 0, record.reason) for record in subject.skipped]
        if not used:
            first = subject.skipped.records[0]
            raise XaikitError(
                f"none of the {subject.candidates} images can be used; the first is "
                f"{first.id}: {first.reason}"
            )
        blank = blank_info(subject.tower, subject.source, pair)
        return blank.with_skipped(used, skipped, subject.source, subject.contents.fingerprint(used))


def _share_skipped(subject: Subject) -> None:
    """Tell the first process of the images that the others could not use."""
    mine = orjson.dumps([[r.id, r.reason, r.index] for r in subject.skipped])
    parts = subject.world.gather({"skipped": torch.frombuffer(bytearray(mine), dtype=torch.uint8)})
    known = {record.id for record in subject.skipped}
    for part in parts[1:]:
        for item in orjson.loads(part["skipped"].numpy().tobytes()):
            if item[0] not in known:
                subject.skipped.records.append(Skipped(*item))
