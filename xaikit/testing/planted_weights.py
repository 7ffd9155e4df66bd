"""The weights of a planted tower, written down rather than trained.

Every signal is stored twice in the residual stream, as +x in the first half and −x in the
second: the mean over the width is zero. One large constant carries nearly all the energy, so
a LayerNorm divides every token by the same number, and its gain, set to that number, makes it
the identity on signals (to about 1e-4 relative; the constant itself comes out as 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from xaikit.testing.planted_images import (
    CONTENT_AMPLITUDE,
    IMAGE_UNIT,
    NOISE_UNIT,
    STD,
    walsh_patterns,
)
from xaikit.testing.planted_layout import Residual, residual_layout
from xaikit.testing.planted_spec import (
    IMAGE_RANK,
    NOISE_RANK,
    POSITION_RANK,
    ContentEdge,
    PlantedSpec,
    PlantedTables,
    Relay,
    TokenEdge,
)

if TYPE_CHECKING:
    from open_clip.transformer import VisionTransformer

ENERGY = 1024.0**2
SINK_NORM = 8.0
SINK_CODE = 32.0
GATE_LOW, GATE_HIGH = 6.0, 10.0
READ_OFFSET = 8.0
SCRATCH_SCALE = 1e-3
LN_EPS = 1e-5


@torch.no_grad()
def write_weights(visual: VisionTransformer, spec: PlantedSpec, tables: PlantedTables) -> None:
    """Overwrite every weight of `visual`."""
    where = residual_layout(spec)
    for parameter in visual.parameters():
        parameter.zero_()
    _write_norms(visual, where)
    _write_patches(visual.conv1.weight, spec, where)
    _write_positions(visual.positional_embedding, spec, where)
    rng = np.random.default_rng([spec.seed, 7])
    targets = [target for target, _ in spec.layer_pairs]
    numbers = (range(len(spec.edges)), range(len(spec.edges), len(spec.edges) + len(spec.relays)))
    planted = dict(zip([upper for _, upper in spec.layer_pairs], numbers, strict=False))
    for index, block in enumerate(visual.transformer.resblocks):
        _write_scratch(block.attn, spec, where)
        if index in targets:
            _write_gates(block.mlp.c_fc, block.mlp.c_proj, spec, where, rng)
            if index > spec.layer:
                # The groups are there already; these gates only show them.
                block.mlp.c_proj.weight.zero_()
            continue
        _write_idle(block.mlp.c_fc, where, rng)
        if index in planted:
            _write_attention(block.attn, spec, tables, where, planted[index])
            _write_readout(block.mlp.c_fc, block.mlp.c_proj, spec, where, planted[index])
    _write_projection(visual.proj, spec, where)


def _mirror(weight: Tensor, where: Residual) -> None:
    """Give the second half of a weight's rows the negative of the first."""
    weight[where.half : 2 * where.half] = -weight[: where.half]


def _write_norms(visual: VisionTransformer, where: Residual) -> None:
    for norm in (module for module in visual.modules() if isinstance(module, nn.LayerNorm)):
        gain = (2 * ENERGY / norm.weight.numel() + LN_EPS) ** 0.5
        norm.weight[: 2 * where.half] = gain
        for start in (where.constant.start, where.half + where.constant.start):
            norm.weight[start] = gain / ENERGY**0.5


def _write_patches(conv: Tensor, spec: PlantedSpec, where: Residual) -> None:
    """Make each filter the matched filter of its pattern, with the pixel scaling undone."""
    patterns = walsh_patterns(spec.patch)
    for channel, dims, count, amplitude in (
        (0, where.content, spec.groups, CONTENT_AMPLITUDE),
        (1, where.noise, NOISE_RANK, NOISE_UNIT),
        (2, where.image, IMAGE_RANK, IMAGE_UNIT),
    ):
        scale = 255 * STD[channel] / (spec.patch**2 * amplitude)
        conv[dims.start : dims.start + count, channel] = scale * patterns[:count]
    _mirror(conv, where)


def _write_positions(embedding: Tensor, spec: PlantedSpec, where: Residual) -> None:
    embedding[:, where.position] = torch.eye(spec.tokens)
    embedding[:, where.constant] = ENERGY**0.5
    embedding[list(spec.blank_tokens), where.content.stop - 1] = 1
    if spec.sink is not None:
        # The sink is long in the residual stream (all of it times SINK_NORM) and, through its
        # code, after the norm as well; the constant gives way so that the norm's scale stays.
        embedding[spec.sink, where.sink] = SINK_CODE
        embedding[spec.sink, where.constant] = (ENERGY - SINK_CODE**2) ** 0.5
        embedding[spec.sink] *= SINK_NORM
    embedding[:, where.half : 2 * where.half] = -embedding[:, : where.half]


def _write_gates(
    up: nn.Linear, down: nn.Linear, spec: PlantedSpec, where: Residual, rng: np.random.Generator
) -> None:
    """Share the hidden units out among the groups; each fires on its own group alone.

    The pre-activation is +a on the group and −a elsewhere with a ≥ 6, where GELU in single
    precision is the identity and zero.
    """
    units, kinds = up.out_features, spec.groups + 1
    sizes = torch.from_numpy(rng.uniform(GATE_LOW, GATE_HIGH, units)).float()
    group = torch.arange(units) % kinds
    up.weight[torch.arange(units), where.content.start + group] = 2 * sizes
    up.bias.copy_(-sizes)
    team = torch.bincount(group, minlength=kinds)[group]
    down.weight[where.group.start + group, torch.arange(units)] = 1 / (sizes * team)
    _mirror(down.weight, where)


def _write_idle(up: nn.Linear, where: Residual, rng: np.random.Generator) -> None:
    """Let the hidden units fire on anything at all; nothing reads them."""
    weight = rng.standard_normal((up.out_features, where.mass.start - where.sink.stop))
    up.weight[:, where.sink.stop : where.mass.start] = torch.from_numpy(weight).float()


def _write_scratch(attention: nn.MultiheadAttention, spec: PlantedSpec, where: Residual) -> None:
    """Let every head say a little about what it attends to where nothing listens.

    An attention whose output is zero whatever it does cannot be checked. Nothing reads the
    dimension; through the LayerNorms it moves the embedding by a rounding error (below 1e-6).
    """
    value = attention.in_proj_weight[2 * attention.embed_dim :]
    for head in range(spec.heads):
        last = (head + 1) * attention.head_dim - 1
        value[last, where.noise.start + head % NOISE_RANK] = 1
        value[last, where.content] = 1
        attention.out_proj.weight[where.scratch, last] = SCRATCH_SCALE
    _mirror(attention.out_proj.weight, where)


def _write_attention(
    attention: nn.MultiheadAttention,
    spec: PlantedSpec,
    tables: PlantedTables,
    where: Residual,
    numbers: range,
) -> None:
    """Let heads attend along some of the edges, and read what marks their destinations."""
    width = attention.head_dim
    query, key, value = attention.in_proj_weight.split(attention.embed_dim)
    for head in range(spec.heads):
        rows = slice(head * width, (head + 1) * width)
        edges = [number for number in numbers if _edge(spec, number).head == head]
        for row, number in enumerate(edges, start=rows.start):
            edge = _edge(spec, number)
            end = _destination(edge, where)
            query[row, where.group.start + edge.group] = spec.strength
            key[row, end] = 1
            value[row, _message(edge, end, where)] = 1
            attention.out_proj.weight[where.mass.start + number, row] = 1
        free = slice(rows.start + len(edges), rows.stop)
        _write_confounds(query[free], key[free], head, spec, tables, where)
        # Any query meets the sink's key: its row of the query is a bias.
        attention.in_proj_bias[rows.stop - 1] = spec.sink_logit / SINK_CODE * width**0.5
        key[rows.stop - 1, where.sink] = 1
    # The module divides queries by the square root of the head's width.
    query *= width**0.5
    _mirror(attention.out_proj.weight, where)


def _edge(spec: PlantedSpec, number: int) -> TokenEdge | ContentEdge | Relay:
    return (*spec.edges, *spec.relays)[number]


def _message(edge: TokenEdge | ContentEdge | Relay, end: int, where: Residual) -> int:
    """Return the dimension that is read at a destination: that it is one, or what it read."""
    return where.output.start + edge.first if isinstance(edge, Relay) else end


def _destination(edge: TokenEdge | ContentEdge | Relay, where: Residual) -> int:
    """Return the dimension that marks an edge's destination tokens."""
    if isinstance(edge, TokenEdge):
        return int(where.position.start + edge.dst_token)
    return int(where.group.start + edge.dst_group)


def _write_confounds(
    query: Tensor,
    key: Tensor,
    head: int,
    spec: PlantedSpec,
    tables: PlantedTables,
    where: Residual,
) -> None:
    """Fill the first free rows of one head's query and key: position, image, noise."""
    ranks = (POSITION_RANK, IMAGE_RANK, NOISE_RANK)
    position, image, noise = torch.arange(sum(ranks)).split(ranks)
    query[position, where.position] = spec.position * tables.position_query[head].T
    key[position, where.position] = tables.position_key[head].T
    query[image, where.image] = spec.image * torch.eye(IMAGE_RANK)
    key[image, where.position] = tables.image_key[head].T
    scale = spec.noise / (2 * NOISE_RANK) ** 0.5
    query[noise, where.noise] = scale * torch.eye(NOISE_RANK)
    key[noise, where.noise] = tables.noise_mix[head]
    key[noise, where.position] = tables.noise_key[head].T


def _write_readout(
    up: nn.Linear, down: nn.Linear, spec: PlantedSpec, where: Residual, numbers: range
) -> None:
    """Pass an edge's attention mass on from tokens of its source group, and from no others.

    Two units per edge: mass + 8 and 8 where the token is of the group, 0 and 0 elsewhere; their
    difference is the mass. GELU in single precision is the identity and zero there.
    """
    units = 2 * len(numbers)
    up.weight[:units] = 0
    for place, number in enumerate(numbers):
        pair = slice(2 * place, 2 * place + 2)
        up.weight[pair, where.group.start + _edge(spec, number).group] = 2 * READ_OFFSET
        up.bias[pair] = -READ_OFFSET
        up.weight[pair.start, where.mass.start + number] = 1
        down.weight[where.output.start + number, pair] = torch.tensor([1.0, -1.0])
    _mirror(down.weight, where)


def _write_projection(proj: Tensor, spec: PlantedSpec, where: Residual) -> None:
    """Embed a constant of 1, the share of each group in the image, and the edges' masses.

    The masses are scaled so that all of them together have a length of about 1 where the
    source tokens look nowhere but at their destinations.
    """
    proj[where.constant.start, 0] = 1
    kinds = torch.arange(spec.groups)
    proj[where.content.start + kinds, 1 + kinds] = 1
    ends = torch.tensor(spec.ends, dtype=torch.int64)
    scale = spec.groups / max(len(ends), 1) ** 0.5
    proj[where.output.start + ends, 1 + spec.groups + torch.arange(len(ends))] = scale
