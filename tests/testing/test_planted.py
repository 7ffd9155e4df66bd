"""Planted towers hold what they say they hold, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import open_clip
import orjson
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

from xaikit.testing import Planted, PlantedImages, planted_tower

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = {"noise": 0.0, "position": 0.0, "image": 0.0}


class Trace(NamedTuple):
    gates: Tensor
    h: Tensor
    residual: Tensor
    logits: Tensor
    values: Tensor


@torch.no_grad()
def trace(tower: Planted, images: PlantedImages) -> Trace:
    """Run the blocks up to the next layer's attention, whose logits come from its weights."""
    blocks = tower.module.transformer.resblocks
    x = tower.module._embeds(images.normalized())
    for block in blocks[: tower.layer]:
        x = block(x)
    block = blocks[tower.layer]
    h = block.ln_2(x + block.attention(block.ln_1(x)))
    gates = block.mlp.gelu(block.mlp.c_fc(h)) > 0
    x = block(x)
    attention = blocks[tower.next_layer].attn
    packed = torch.nn.functional.linear(
        blocks[tower.next_layer].ln_1(x), attention.in_proj_weight, attention.in_proj_bias
    )
    query, key, value = packed.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    logits = query @ key.mT / attention.head_dim**0.5
    return Trace(gates=gates, h=h, residual=x, logits=logits, values=value)


@torch.no_grad()
def embed(tower: Planted, run: Trace, logits: Tensor) -> Tensor:
    """Embed the images with other logits in the next layer; float64, so that cosines are fine."""
    first, *later = tower.module.transformer.resblocks[tower.next_layer :]
    heads = logits.softmax(dim=-1) @ run.values
    x = run.residual + first.attn.out_proj(heads.transpose(1, 2).flatten(2))
    x = x + first.mlp(first.ln_2(x))
    for block in later:
        x = block(x)
    return (tower.module._pool(x)[0] @ tower.module.proj).double()


def change(clean: Tensor, edited: Tensor) -> float:
    return float((1 - torch.cosine_similarity(clean, edited, dim=1)).mean())


def one_hot(labels: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, count).double()


def token_scores(logits: Tensor, groups: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Contrast and closed-form permutation z-score of every edge, as CONTRACT.md defines them."""
    label, logits = one_hot(groups, count), logits.double()
    total = torch.einsum("bik,bhij->khj", label, logits)
    contrast = total / label.sum((0, 1))[:, None, None] - logits.mean((0, 2))
    mean = torch.einsum("ik,hij->khj", label.sum(0), logits.mean(0))
    centred_label, centred = label - label.mean(0), logits - logits.mean(0)
    left = torch.einsum("bik,bmk->kim", centred_label, centred_label)
    right = torch.einsum("bhij,bhmj->hjim", centred, centred)
    variance = torch.einsum("kim,hjim->khj", left, right) / (len(logits) - 1)
    zscore = torch.where(variance > 1e-9, (total - mean) / variance.clamp(min=1e-9).sqrt(), 0)
    return contrast - contrast.mean(2, keepdim=True), zscore


def content_scores(logits: Tensor, groups: Tensor, count: int) -> Tensor:
    """Mean residual from the position-only mean, per pair of groups."""
    label, rest = one_hot(groups, count), (logits - logits.mean(0)).double()
    total = torch.einsum("bik,bhij,bjm->khm", label, rest, label)
    return total / torch.einsum("bik,bjm->km", label, label)[:, None]


def covered(tower: Planted, groups: Tensor) -> Tensor:
    """Logit entries of the planted edges, `[B, H, N, N]`."""
    count, tokens = groups.shape
    entries = torch.zeros(count, tower.spec.heads, tokens, tokens, dtype=torch.bool)
    for edge in tower.token_edges:
        entries[:, edge.head, :, edge.dst_token] |= groups == edge.group
    for goal in tower.content_edges:
        ends = (groups == goal.group)[:, :, None] & (groups == goal.dst_group)[:, None, :]
        entries[:, goal.head] |= ends
    return entries


def random_entries(tower: Planted, groups: Tensor, cover: int, seed: int) -> Tensor:
    """Entries of random token edges, no planted one among them, of at most the given cover."""
    count = tower.spec.groups + 1
    truth = tower.truth(groups, groups, count)
    absent = (~truth.edge_token & ~truth.echo_token).flatten().nonzero()[:, 0]
    absent = absent[torch.randperm(len(absent), generator=torch.Generator().manual_seed(seed))]
    sizes = one_hot(groups, count).sum((0, 1))[:, None, None].expand(truth.edge_token.shape)
    chosen = torch.zeros(truth.edge_token.numel(), dtype=torch.bool)
    chosen[absent[sizes.flatten()[absent].cumsum(0) <= cover]] = True
    return chosen.view(truth.edge_token.shape)[groups].transpose(1, 2)


@pytest.mark.parametrize(
    "options",
    [PLAIN, {}, {"sink": 7}, {"sink": 0, "image": 1.5}, {"grid": 3, "heads": 1, "layer": 0}],
    ids=["plain", "default", "sink", "class-sink", "small"],
)
def test_gates_and_logits_are_the_planted_ones(options: dict) -> None:
    tower = planted_tower(**options)
    images = tower.images(16)
    run = trace(tower, images)
    patterns = torch.arange(run.gates.shape[-1]) % (tower.spec.groups + 1)
    assert torch.equal(run.gates, images.groups[:, :, None] == patterns)
    torch.testing.assert_close(run.logits, tower.logits(images), atol=1e-3, rtol=0)
    with torch.no_grad():
        output = tower.module(images.normalized()).double()
    torch.testing.assert_close(embed(tower, run, run.logits), output, atol=1e-5, rtol=0)


def test_without_confounds_a_logit_is_the_strength_on_edges_and_zero_elsewhere() -> None:
    tower = planted_tower(strength=2.5, **PLAIN)
    images = tower.images(8)
    expected = 2.5 * covered(tower, images.groups).float()
    torch.testing.assert_close(tower.logits(images), expected)


def test_confounds_have_the_spread_they_are_given() -> None:
    options = {"token_edges": 0, "content_edges": 0}
    for name in PLAIN:
        tower = planted_tower(**options, **(PLAIN | {name: 0.7}), grid=8)
        logits = tower.logits(tower.images(64))[:, :, 1:, 1:]
        assert float(logits.std()) == pytest.approx(0.7, rel=0.15), name
        within = float(logits.std(dim=0).mean())
        assert (within < 1e-6) == (name == "position")
        over_rows = float(logits.std(dim=2).mean())
        assert (over_rows < 1e-6) == (name == "image")


def test_default_strength_is_recovered_and_a_weak_one_drowns_in_confounds() -> None:
    contrasts, zscores, contents, weak = [], [], [], []
    for seed in range(3):
        tower = planted_tower(seed=seed)
        images = tower.images(128)
        count = tower.spec.groups + 1
        truth = tower.truth(images.groups, images.groups, count)
        logits = trace(tower, images).logits
        contrast, zscore = token_scores(logits, images.groups, count)
        keep = ~truth.echo_token
        contrasts.append(roc_auc_score(truth.edge_token[keep], contrast.abs()[keep]))
        zscores.append(roc_auc_score(truth.edge_token[keep], zscore.abs()[keep]))
        keep = ~truth.echo_content
        score = content_scores(logits, images.groups, count).abs()
        contents.append(roc_auc_score(truth.edge_content[keep], score[keep]))
        faint = planted_tower(seed=seed, strength=0.2)
        assert faint.spec.edges == tower.spec.edges
        contrast = token_scores(faint.logits(images), images.groups, count)[0]
        keep = ~truth.echo_token
        weak.append(roc_auc_score(truth.edge_token[keep], contrast.abs()[keep]))
    assert min(contrasts) >= 0.99
    assert min(zscores) >= 0.99
    assert min(contents) >= 0.99
    assert sum(weak) / 3 < 0.9


def rejections(seed: int, draws: int) -> tuple[Tensor, Tensor]:
    """Two-sided p-values of all edges of an edgeless tower: permuting images, and tokens."""
    tower = planted_tower(
        token_edges=0, content_edges=0, image=1.0, share=1.0, groups=4, heads=2, grid=4, seed=seed
    )
    images = tower.images(40, seed=seed)
    logits = tower.logits(images).double()
    label = one_hot(images.groups, 5)[..., :4]
    pairs = torch.einsum("aik,bhij->khjab", label, logits)
    generator = torch.Generator().manual_seed(seed)
    every = torch.arange(len(images))
    orders = [every, *(torch.randperm(40, generator=generator) for _ in range(draws))]
    by_image = torch.stack([pairs[..., order, every].sum(-1) for order in orders])
    rows, patches = logits[:, :, 1:].transpose(1, 2).flatten(0, 1), label[:, 1:].flatten(0, 1)
    sums = [torch.einsum("rk,rhj->khj", patches, rows)]
    for _ in range(draws):
        order = torch.randperm(len(patches), generator=generator)
        sums.append(torch.einsum("rk,rhj->khj", patches[order], rows))
    return pvalues(by_image), pvalues(torch.stack(sums))


def pvalues(sums: Tensor) -> Tensor:
    distance = (sums - sums.mean(0)).abs()
    return (1 + (distance[1:] >= distance[0]).sum(0)).flatten() / len(sums)


def test_without_edges_images_are_exchangeable_and_tokens_are_not() -> None:
    # The tests of one tower are correlated: 40 towers leave a standard error of 0.6 %.
    found = [rejections(seed, draws=99) for seed in range(40)]
    by_image, by_token = (torch.cat(parts) for parts in zip(*found, strict=True))
    assert 0.03 < float((by_image <= 0.05).double().mean()) < 0.07
    assert float((by_token <= 0.05).double().mean()) > 0.2


@pytest.mark.parametrize("options", [{}, {"sink": 7, "seed": 3}], ids=["default", "sink"])
def test_the_embedding_depends_on_attention_through_planted_edges_only(options: dict) -> None:
    tower = planted_tower(**options)
    images = tower.images(64)
    run = trace(tower, images)
    mean = run.logits.mean(0, keepdim=True).expand_as(run.logits)
    planted = covered(tower, images.groups)
    clean = embed(tower, run, run.logits)

    def effect(entries: Tensor) -> float:
        return change(clean, embed(tower, run, torch.where(entries, mean, run.logits)))

    full = effect(torch.ones_like(planted))
    assert full > 0.05
    assert effect(planted) >= 0.95 * full
    assert effect(~planted) <= 0.05 * full
    cover = int(planted.sum())
    for seed in range(5):
        entries = random_entries(tower, images.groups, cover, seed)
        assert int(entries.sum()) > 0.8 * cover
        assert effect(entries) <= 0.05 * full


def test_without_edges_attention_does_not_reach_the_embedding() -> None:
    tower = planted_tower(token_edges=0, content_edges=0)
    images = tower.images(4)
    run = trace(tower, images)
    clean = embed(tower, run, run.logits)
    edited = embed(tower, run, -3 * run.logits)
    torch.testing.assert_close(edited, clean, atol=1e-6, rtol=0)
    assert float(clean.std(dim=0).max()) > 0.05


def test_sink_is_long_before_and_after_the_norm_and_is_attended_to() -> None:
    run = trace(tower := planted_tower(sink=9), tower.images(8))
    others = torch.arange(tower.spec.tokens) != 9
    for tensor in (run.residual, run.h):
        norms = tensor.norm(dim=-1)
        assert float(norms[:, 9].min()) > 3 * float(norms[:, others].max())
    lifted = run.logits - trace(planted_tower(sink=9, sink_logit=0), tower.images(8)).logits
    torch.testing.assert_close(lifted[..., 9], torch.full_like(lifted[..., 9], 3.0))
    assert float(lifted[..., others].abs().max()) < 1e-5


def test_saved_files_are_an_ordinary_model_and_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = planted_tower(sink=4)
    files = tower.save(tmp_path / "new" / "planted", 3, seed=5)
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [files.config])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
    open_clip.factory._rescan_model_configs()
    model, _, preprocess = open_clip.create_model_and_transforms(
        files.config.stem, pretrained=str(files.weights)
    )
    checkpoint = load_file(files.weights)
    assert checkpoint.keys() == model.state_dict().keys()
    images = tower.images(3, seed=5)
    paths = sorted(files.images.iterdir())
    assert [path.name for path in paths] == images.ids
    pixels = torch.stack([preprocess(Image.open(path)) for path in paths])
    torch.testing.assert_close(pixels, images.normalized(), atol=1e-6, rtol=0)
    with torch.no_grad():
        assert torch.equal(model.eval().encode_image(pixels), tower.module(pixels))
        model.encode_text(open_clip.get_tokenizer(files.config.stem)(["a prompt"]))
    truth = orjson.loads(files.truth.read_bytes())
    assert truth["groups"] == images.groups.tolist()
    assert [tuple(edge.values()) for edge in truth["spec"]["token_edges"]] == list(
        tower.token_edges
    )


CHAIN = ((0, 2, 3), (4, 1, 0))


@torch.no_grad()
def attention_of(tower: Planted, images: PlantedImages, layer: int) -> Tensor:
    """Logits of one block's attention, from its weights and the input it really gets."""
    x = tower.module._embeds(images.normalized())
    for block in tower.module.transformer.resblocks[:layer]:
        x = block(x)
    block = tower.module.transformer.resblocks[layer]
    packed = torch.nn.functional.linear(
        block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias
    )
    query, key, _ = packed.unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return query @ key.mT / block.attn.head_dim**0.5


def test_a_chains_layers_hold_the_planted_logits_and_gates() -> None:
    tower = planted_tower(chains=[CHAIN], layers=6)
    assert tower.layer_pairs == ((1, 2), (3, 4))
    images = tower.images(8)
    for stage, (_, layer) in enumerate(tower.layer_pairs):
        found = attention_of(tower, images, layer)
        torch.testing.assert_close(found, tower.logits(images, stage), atol=1e-3, rtol=0)
    gates: list[Tensor] = []
    mlp = tower.module.transformer.resblocks[3].mlp
    hook = mlp.gelu.register_forward_hook(lambda _m, _i, out: gates.append(out > 0))
    with torch.no_grad():
        tower.module(images.normalized())
    hook.remove()
    patterns = torch.arange(gates[0].shape[-1]) % (tower.spec.groups + 1)
    assert torch.equal(gates[0], images.groups[:, :, None] == patterns)
    labels = images.groups
    first, second = (tower.truth(labels, labels, 7, stage) for stage in (0, 1))
    assert bool(first.edge_content[CHAIN[0]])
    assert second.edge_content.nonzero().tolist() == [list(CHAIN[1])]


def test_cutting_either_edge_of_a_chain_cuts_it() -> None:
    """And the embedding shows nothing of the first edge by itself."""
    options = {"token_edges": 0, "content_edges": 0, "layers": 6, **PLAIN}
    tower = planted_tower(chains=[CHAIN], **options)
    images = tower.images(16)

    def embedding(cut: int | None) -> Tensor:
        blocks = tower.module.transformer.resblocks
        if cut is not None:
            kept = blocks[cut].attn.in_proj_weight.clone()
            # Queries of zero: every token attends to all alike.
            blocks[cut].attn.in_proj_weight[: kept.shape[1]] = 0
        with torch.no_grad():
            found = tower.module(images.normalized()).double()
        if cut is not None:
            blocks[cut].attn.in_proj_weight.copy_(kept)
        return found

    clean = embedding(None)
    assert clean.shape[1] == 1 + 6 + 1
    first, second = (clean - embedding(layer) for layer in (2, 4))
    shown = clean[:, -1].mean()
    for fall in (first, second):
        assert float(fall[:, -1].mean()) > 0.3 * float(shown)
        assert float(fall[:, :-1].abs().max()) < 1e-3
