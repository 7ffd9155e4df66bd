"""A small vision transformer whose attention circuit is known because it was written down."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from xaikit.testing.planted_images import PlantedImages, draw_images
from xaikit.testing.planted_layout import model_config
from xaikit.testing.planted_spec import (
    ContentEdge,
    PlantedSpec,
    PlantedTables,
    TokenEdge,
    choose_chains,
    choose_edges,
    draw_tables,
)
from xaikit.testing.planted_truth import PlantedTruth, planted_logits, planted_truth
from xaikit.testing.planted_weights import write_weights

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float, Int
    from open_clip.transformer import VisionTransformer
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PlantedFiles:
    """Paths that `Planted.save` wrote: what `--model`, `--pretrained` and `--images` take."""

    config: Path
    weights: Path
    images: Path
    truth: Path


class Planted:
    """A tower with a known circuit; made by `planted_tower`.

    Attributes
    ----------
    spec : PlantedSpec
        The arguments, with the edges drawn.
    tables : PlantedTables
        The random tables behind the confounds.
    config : dict
        OpenCLIP's model config.
    """

    def __init__(self, spec: PlantedSpec) -> None:
        self.spec = spec
        self.tables: PlantedTables = draw_tables(spec)
        self.config: dict[str, Any] = model_config(spec)

    @cached_property
    def clip(self) -> CLIP:
        """The whole OpenCLIP model, in eval mode; its text tower is small and random."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            clip = CLIP(**self.config)
        write_weights(clip.visual, self.spec, self.tables)
        return clip.eval().requires_grad_(False)

    @property
    def module(self) -> VisionTransformer:
        """The tower: OpenCLIP's own `VisionTransformer`, images in, embeddings out."""
        return self.clip.visual

    @property
    def layer(self) -> int:
        """Target layer, whose FFN gates are the groups."""
        return self.spec.layer

    @property
    def next_layer(self) -> int:
        """Layer whose attention holds the edges."""
        return self.spec.layer + 1

    @property
    def token_edges(self) -> tuple[TokenEdge, ...]:
        """Planted edges that end at a token."""
        return self.spec.token_edges

    @property
    def content_edges(self) -> tuple[ContentEdge, ...]:
        """Planted edges that end at the tokens of a group."""
        return self.spec.content_edges

    def images(self, count: int, *, seed: int = 0) -> PlantedImages:
        """Draw `count` images; the first of a longer set are the same as a shorter set's.

        Groups are independent over tokens given the image, with log-odds
        `layout · table[position, group] + share · v[image, group]`, and independent of the
        image's factors and of the noise. Images are exchangeable: permuting whole label maps
        over images is exactly valid where no edge is planted.
        """
        return draw_images(self.spec, self.tables, count, seed)

    @property
    def layer_pairs(self) -> tuple[tuple[int, int], ...]:
        """Layers whose gates are the groups, each with that whose attention holds edges."""
        return self.spec.layer_pairs

    def logits(
        self, images: PlantedImages, stage: int = 0
    ) -> Float[Tensor, "batch head token token"]:
        """Logits of the attention of ``layer_pairs[stage]`` before softmax, from the truth alone.

        The tower is not run.
        """
        return planted_logits(self.spec, self.tables, images, stage)

    def truth(
        self,
        labels: Int[Tensor, "batch token"],
        groups: Int[Tensor, "batch token"],
        num_clusters: int,
        stage: int = 0,
    ) -> PlantedTruth:
        """Say which edges of a clustering are planted.

        Parameters
        ----------
        labels : Tensor
            `[B, N]`, the cluster of each token, below `num_clusters`.
        groups : Tensor
            `[B, N]`, the true groups of the same tokens (`PlantedImages.groups`).
        num_clusters : int
            Number of clusters, empty ones included.
        stage : int
            Which of `layer_pairs` the edges are of.
        """
        return planted_truth(self.spec, labels, groups, num_clusters, stage)

    def save(self, directory: str | Path, count: int, *, seed: int = 0) -> PlantedFiles:
        """Write the model config, the checkpoint, `count` images and the truth.

        Parameters
        ----------
        directory : str or Path
            Made where it is missing; gets `planted.json`, `planted.safetensors`,
            `images/*.png` and `truth.json` (the arguments, and the group of every token).
        count, seed : int
            As in `images`.

        Returns
        -------
        PlantedFiles
            The four paths.
        """
        directory = Path(directory)
        images = self.images(count, seed=seed)
        files = PlantedFiles(
            config=directory / "planted.json",
            weights=directory / "planted.safetensors",
            images=directory / "images",
            truth=directory / "truth.json",
        )
        images.write(files.images)
        files.config.write_bytes(orjson.dumps(self.config, option=orjson.OPT_INDENT_2))
        state = {name: value.contiguous() for name, value in self.clip.state_dict().items()}
        save_file(state, files.weights)
        edges = {
            "token_edges": [edge._asdict() for edge in self.token_edges],
            "content_edges": [edge._asdict() for edge in self.content_edges],
            "relays": [relay._asdict() for relay in self.spec.relays],
        }
        truth = {
            "spec": asdict(self.spec) | edges,
            "images": images.ids,
            "groups": images.groups.tolist(),
        }
        files.truth.write_bytes(orjson.dumps(truth))
        return files


def planted_tower(
    *,
    token_edges: int | Iterable[tuple[int, int, int]] = 4,
    content_edges: int | Iterable[tuple[int, int, int]] = 4,
    chains: int | Iterable[tuple[tuple[int, int, int], tuple[int, int, int]]] = 0,
    strength: float = 4.0,
    noise: float = 1.0,
    position: float = 1.0,
    image: float = 0.5,
    layout: float = 1.0,
    share: float = 0.5,
    sink: int | None = None,
    sink_logit: float = 3.0,
    groups: int = 6,
    heads: int = 4,
    grid: int = 5,
    patch: int = 8,
    layer: int = 1,
    layers: int = 4,
    seed: int = 0,
) -> Planted:
    """Build a tower in which chosen edges exist and no others do.

    The FFN gates of block `layer` are exactly the content groups of the tokens (one more
    pattern stands for tokens without content, the class token and the sink). In block
    `layer + 1` the logits are, to better than 1e-3,
    `strength · [an edge leads from the group of i, in head h, to j] + position · M[h,i,j]
    + image · Σ_f factor[b,f] S[h,j,f] + noise · E[b,h,i,j] + sink_logit · [j = sink]`.
    The image embedding holds a constant, the shares of the groups, and the attention that
    each edge's source tokens pay to its destinations: attention acts through planted edges
    only, up to a rounding error below 1e-6.

    A chain is two content edges in different layers: the first one like the others, except that
    the embedding does not show its mass; the second in block `layer + 3`, from tokens of another
    group to the source tokens of the first, where it reads the first one's mass and carries it
    to the embedding. Cutting either cuts the chain. The gates of block `layer + 2` are the groups
    as well.

    Parameters
    ----------
    token_edges, content_edges : int or iterable of (group, head, destination)
        The edges, or how many to draw (token edges in the lower half of the heads, content
        edges in the upper half). A destination is a token, or a group.
    chains : int or iterable of (first, second)
        Chains, or how many to draw: two ``(group, head, destination group)``, the second of which
        ends at the group that the first starts at. Four blocks are needed from `layer` on.
    strength : float
        What an edge adds to a logit.
    noise : float
        Standard deviation of logit noise that is independent over images and source tokens
        (of rank 8; at tokens without content it is less or absent).
    position : float
        Standard deviation of the part of a logit that depends on head, source and
        destination position only.
    image : float
        Standard deviation of the part that is shared by all rows of an image and differs
        between images: it draws every patch of the image towards certain positions.
    layout, share : float
        How much the frequency of each group varies, in log-odds, with position and with the
        image. With `position` and `image` these are the confounds of a label effect.
    sink : int or None
        A token without content, of large norm, that every row attends to.
    sink_logit : float
        What the sink adds to every row's logit.
    groups, heads, grid, patch, layer, layers : int
        Size: content groups, heads, patches along a side, pixels along a patch's side, the
        target block and the number of blocks. There are `grid² + 1` tokens.
    seed : int
        Of the drawn edges and of the random tables. Strengths do not change what is drawn.

    Returns
    -------
    Planted
        The module, its files, its images and the truth about them.

    Raises
    ------
    UsageError
        If the arguments contradict one another.
    """
    chosen = choose_edges(
        token_edges,
        content_edges,
        groups=groups,
        heads=heads,
        tokens=grid**2 + 1,
        sink=sink,
        seed=seed,
    )
    content, relays = choose_chains(chains, *chosen, groups=groups, heads=heads, seed=seed)
    return Planted(
        PlantedSpec(
            groups=groups,
            heads=heads,
            grid=grid,
            patch=patch,
            layers=layers,
            layer=layer,
            token_edges=chosen[0],
            content_edges=content,
            relays=relays,
            strength=strength,
            noise=noise,
            position=position,
            image=image,
            layout=layout,
            share=share,
            sink=sink,
            sink_logit=sink_logit,
            seed=seed,
        )
    )
