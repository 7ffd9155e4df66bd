"""What is planted: the edges, the size of the tower, and the fixed random tables behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xaikit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float

POSITION_RANK = 4
NOISE_RANK = 8
IMAGE_RANK = 4


class TokenEdge(NamedTuple):
    """Tokens of content group `group` attend, in `head`, to the token at `dst_token`."""

    group: int
    head: int
    dst_token: int


class ContentEdge(NamedTuple):
    """Tokens of content group `group` attend, in `head`, to tokens of group `dst_group`."""

    group: int
    head: int
    dst_group: int


class Relay(NamedTuple):
    """The second edge of a chain, two blocks above the first.

    Tokens of group `group` attend, in `head`, to tokens of group `dst_group`, the source group of
    the first edge, and read there how much those attended along it; `first` is its place among
    `PlantedSpec.edges`.
    """

    group: int
    head: int
    dst_group: int
    first: int


@dataclass(frozen=True, kw_only=True)
class PlantedSpec:
    """Every argument of a planted tower, checked; `planted_tower` documents each of them.

    Raises
    ------
    UsageError
        If the arguments contradict one another.
    """

    groups: int
    heads: int
    grid: int
    patch: int
    layers: int
    layer: int
    token_edges: tuple[TokenEdge, ...]
    content_edges: tuple[ContentEdge, ...]
    strength: float
    noise: float
    position: float
    image: float
    layout: float
    share: float
    sink: int | None
    sink_logit: float
    seed: int
    relays: tuple[Relay, ...] = ()

    def __post_init__(self) -> None:
        for name in ("groups", "heads", "grid"):
            _require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}: at least 1")
        _require(self.seed >= 0, f"seed is {self.seed}: at least 0")
        powers = (4, 8, 16, 32)
        _require(self.patch in powers, f"patch is {self.patch}: one of {powers}")
        most = self.patch**2 - 1
        _require(self.groups <= most, f"groups is {self.groups}: at most patch² − 1 = {most}")
        above = 4 if self.relays else 2
        last = self.layers - above
        _require(
            0 <= self.layer <= last,
            f"layer is {self.layer}: between 0 and layers − {above} = {last}"
            + (" with chains" if self.relays else ""),
        )
        _require(
            self.sink is None or 0 <= self.sink < self.tokens,
            f"sink is {self.sink}: None or a token between 0 and {self.tokens - 1}",
        )
        for kind, edges, end in (
            ("token", self.token_edges, self.tokens),
            ("content", self.content_edges, self.groups),
        ):
            sizes = (self.groups, self.heads, end)
            _require(len(set(edges)) == len(edges), f"{kind}_edges names an edge twice")
            for edge in edges:
                fits = all(0 <= index < size for index, size in zip(edge, sizes, strict=True))
                _require(fits, f"{kind}_edges has {tuple(edge)}: each index below {sizes}")
        for relay in self.relays:
            first = self.edges[relay.first]
            fits = relay.group < self.groups and 0 <= relay.head < self.heads
            _require(fits and relay.group >= 0, f"chains has {tuple(relay)}: no such group or head")
            _require(
                relay.dst_group == first.group,
                f"chains: the second edge ends at group {relay.dst_group}, the first starts at "
                f"{first.group}",
            )

    @property
    def tokens(self) -> int:
        """The class token and the patches."""
        return self.grid**2 + 1

    @property
    def image_size(self) -> int:
        """Side of an image, in pixels."""
        return self.grid * self.patch

    @property
    def blank_group(self) -> int:
        """Group id of tokens without content: the class token and the sink."""
        return self.groups

    @property
    def blank_tokens(self) -> tuple[int, ...]:
        """Tokens without content."""
        return (0,) if self.sink in (None, 0) else (0, int(self.sink or 0))

    @property
    def edges(self) -> tuple[TokenEdge | ContentEdge, ...]:
        """All planted edges, token destinations first."""
        return (*self.token_edges, *self.content_edges)

    @property
    def ends(self) -> tuple[int, ...]:
        """Places, among edges and then relays, of what the embedding shows."""
        firsts = {relay.first for relay in self.relays}
        return tuple(n for n in range(len(self.edges) + len(self.relays)) if n not in firsts)

    @property
    def layer_pairs(self) -> tuple[tuple[int, int], ...]:
        """Layers whose gates are the groups, each with that whose attention holds edges."""
        starts = (self.layer, self.layer + 2) if self.relays else (self.layer,)
        return tuple((start, start + 1) for start in starts)


def _require(held: bool, message: str) -> None:
    if not held:
        raise UsageError(f"planted_tower: {message}")


@dataclass(frozen=True, kw_only=True)
class PlantedTables:
    """The random numbers that are part of a tower, drawn once from its seed.

    Attributes
    ----------
    position_query, position_key : Tensor
        `[H, N, POSITION_RANK]`; their product has standard deviation 1 in each head.
    image_key : Tensor
        `[H, N, IMAGE_RANK]`, unit rows: what an image's factors add to each destination.
    noise_mix : Tensor
        `[H, NOISE_RANK, NOISE_RANK]`, orthogonal.
    noise_key : Tensor
        `[H, N, NOISE_RANK]`, rows of norm `sqrt(NOISE_RANK)`.
    layout : Tensor
        `[N, G]`, standard normal: how much each position favours each group.
    """

    position_query: Float[Tensor, "head token rank"]
    position_key: Float[Tensor, "head token rank"]
    image_key: Float[Tensor, "head token factor"]
    noise_mix: Float[Tensor, "head noise noise"]
    noise_key: Float[Tensor, "head token noise"]
    layout: Float[Tensor, "token group"]


def draw_tables(spec: PlantedSpec) -> PlantedTables:
    """Draw the tables, each from its own stream: one argument never disturbs another's draw."""
    heads, tokens = spec.heads, spec.tokens
    query = _normal(spec, 1, heads, tokens, POSITION_RANK)
    key = _normal(spec, 2, heads, tokens, POSITION_RANK)
    spread = torch.einsum("hir,hjr->hij", query, key).flatten(1).std(dim=1, correction=0)
    noise_key = _normal(spec, 5, heads, tokens, NOISE_RANK)
    return PlantedTables(
        position_query=query / spread[:, None, None],
        position_key=key,
        image_key=torch.nn.functional.normalize(_normal(spec, 3, heads, tokens, IMAGE_RANK), dim=2),
        noise_mix=torch.linalg.qr(_normal(spec, 4, heads, NOISE_RANK, NOISE_RANK))[0],
        noise_key=torch.nn.functional.normalize(noise_key, dim=2) * NOISE_RANK**0.5,
        layout=_normal(spec, 6, tokens, spec.groups),
    )


def _normal(spec: PlantedSpec, stream: int, *shape: int) -> Tensor:
    values = np.random.default_rng([spec.seed, stream]).standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def choose_edges(
    token_edges: int | Iterable[tuple[int, int, int]],
    content_edges: int | Iterable[tuple[int, int, int]],
    *,
    groups: int,
    heads: int,
    tokens: int,
    sink: int | None,
    seed: int,
) -> tuple[tuple[TokenEdge, ...], tuple[ContentEdge, ...]]:
    """Turn what the caller asked for into records; a number is drawn at random.

    Drawn token edges use the lower half of the heads and content edges the upper half, no two
    share a group and a head, and no drawn token edge ends at the sink: so every drawn edge is
    seen on its own.

    Raises
    ------
    UsageError
        If there is no room for so many edges.
    """
    rng = np.random.default_rng([seed, 0])
    middle = (heads + 1) // 2
    ends = [token for token in range(tokens) if token != sink]
    if isinstance(token_edges, int):
        pairs = _draw_pairs(rng, "token", token_edges, groups, range(middle))
        token_edges = [(*pair, int(rng.choice(ends))) for pair in pairs]
    if isinstance(content_edges, int):
        upper = range(middle, heads) if heads > 1 else range(1)
        pairs = _draw_pairs(rng, "content", content_edges, groups, upper)
        content_edges = [(*pair, int(rng.integers(groups))) for pair in pairs]
    return (
        tuple(TokenEdge(*edge) for edge in token_edges),
        tuple(ContentEdge(*edge) for edge in content_edges),
    )


def _draw_pairs(
    rng: np.random.Generator, kind: str, count: int, groups: int, heads: range
) -> list[tuple[int, int]]:
    pairs = [(group, head) for group in range(groups) for head in heads]
    room = f"{kind}_edges is {count}: {len(pairs)} at most for {groups} groups, {len(heads)} heads"
    _require(0 <= count <= len(pairs), room)
    return [pairs[index] for index in rng.permutation(len(pairs))[:count]]


Ends = tuple[int, int, int]


def choose_chains(
    chains: int | Iterable[tuple[Ends, Ends]],
    token_edges: tuple[TokenEdge, ...],
    content_edges: tuple[ContentEdge, ...],
    *,
    groups: int,
    heads: int,
    seed: int,
) -> tuple[tuple[ContentEdge, ...], tuple[Relay, ...]]:
    """Content edges with the chains' first edges behind them, and the second edges.

    A number is drawn at random, no two first edges and no two second ones sharing a group and a
    head with one another or with another edge.
    """
    if isinstance(chains, int):
        rng = np.random.default_rng([seed, 8])
        used = {edge[:2] for edge in (*token_edges, *content_edges)}
        free = [(g, h) for g in range(groups) for h in range(heads) if (g, h) not in used]
        _require(0 <= chains <= len(free), f"chains is {chains}: there is room for {len(free)}")
        starts = [free[index] for index in rng.permutation(len(free))[:chains]]
        tops = _draw_pairs(rng, "chains", chains, groups, range(heads))
        drawn = [(*start, int(rng.integers(groups))) for start in starts]
        chains = [(first, (*top, first[0])) for first, top in zip(drawn, tops, strict=True)]
    firsts: list[ContentEdge] = []
    relays: list[Relay] = []
    for first, second in chains:
        place = len(token_edges) + len(content_edges) + len(firsts)
        firsts.append(ContentEdge(*first))
        relays.append(Relay(*second, first=place))
    return (*content_edges, *firsts), tuple(relays)
