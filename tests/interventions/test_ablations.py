"""Every ablation against a reference that edits one logit at a time."""

from __future__ import annotations

import pytest
import torch
from planted_run import PlantedRun, planted_run
from torch import Tensor

from xaikit.errors import UsageError
from xaikit.interventions import ablate, derangement, overwrite
from xaikit.interventions.edits import ABLATIONS
from xaikit.towers import AttentionCall, BlockCache

IMAGES = 5


@pytest.fixture(scope="module")
def run() -> PlantedRun:
    return planted_run("token")


@torch.no_grad()
def parts(run: PlantedRun) -> tuple[Tensor, Tensor, Tensor]:
    """Residual stream, logits and values at the next layer, from the weights alone."""
    blocks = run.planted.module.transformer.resblocks
    x = run.planted.module._embeds(run.planted.images(IMAGES).normalized())
    for block in blocks[: run.planted.next_layer]:
        x = block(x)
    block = blocks[run.planted.next_layer]
    packed = torch.nn.functional.linear(
        block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias
    )
    query, key, value = packed.unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return x, query @ key.mT / block.attn.head_dim**0.5, value


@torch.no_grad()
def finish(run: PlantedRun, x: Tensor, attended: Tensor) -> Tensor:
    """The embedding of what the heads of the next layer return."""
    first, *later = run.planted.module.transformer.resblocks[run.planted.next_layer :]
    x = x + first.attn.out_proj(attended.transpose(1, 2).flatten(2))
    x = x + first.mlp(first.ln_2(x))
    for block in later:
        x = block(x)
    return run.planted.module._pool(x)[0] @ run.planted.module.proj


def slow_attention(
    logits: Tensor, value: Tensor, mask: Tensor, ablation: str, mean: Tensor, partners: Tensor
) -> Tensor:
    """Softmax over one row at a time, its logits replaced one at a time."""
    out = torch.zeros_like(value)
    images, heads, tokens, _ = logits.shape
    for b in range(images):
        for h in range(heads):
            for i in range(tokens):
                row = []
                for j in range(tokens):
                    own = float(logits[b, h, i, j])
                    given = {
                        "mean": float(mean[h, i, j]),
                        "resample": float(logits[partners[b], h, i, j]),
                        "pair": float(logits[partners[b], h, i, j]),
                        "zero": sum(logits[b, h, i].tolist()) / tokens,
                        "knockout": None,
                    }[ablation]
                    row.append(given if bool(mask[b, h, i, j]) else own)
                weights = [0.0 if a is None else torch.tensor(a).exp().item() for a in row]
                total = sum(weights)
                for j, weight in enumerate(weights):
                    if total:
                        out[b, h, i] += weight / total * value[b, h, j]
    return out


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_equals_the_slow_reference(run: PlantedRun, ablation: str) -> None:
    x, logits, value = parts(run)
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(logits.shape, generator=generator) < 0.3
    mask[0, 1, 2] = True
    mask[1, :, 3] = True
    partners = derangement(IMAGES, [0])
    mean = run.fit.position_mean
    cache = BlockCache(run.tower, run.planted.next_layer)
    cache.fill(run.planted.images(IMAGES).normalized())
    with torch.no_grad():
        edit = ablate(mask, ablation, position_mean=mean, partners=logits[partners])
        edited = cache.outputs(edit)
    slow = finish(run, x, slow_attention(logits, value, mask, ablation, mean, partners))
    torch.testing.assert_close(edited.embedding, slow, atol=2e-5, rtol=1e-4)
    clean = cache.outputs().embedding
    assert float((edited.embedding - clean).abs().max()) > 1e-2


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_empty_edit_changes_nothing(run: PlantedRun, ablation: str) -> None:
    cache = BlockCache(run.tower, run.planted.next_layer)
    cache.fill(run.planted.images(IMAGES).normalized())
    tokens, heads = run.planted.spec.tokens, run.planted.spec.heads
    mask = torch.zeros(IMAGES, heads, tokens, tokens, dtype=torch.bool)
    edit = ablate(
        mask,
        ablation,
        position_mean=run.fit.position_mean,
        partners=torch.randn(mask.shape),
    )
    with torch.no_grad():
        edited, clean = cache.outputs(edit).embedding, cache.outputs().embedding
    torch.testing.assert_close(edited, clean, atol=1e-6, rtol=1e-6)


def test_zero_is_a_centred_zero() -> None:
    logits = torch.randn(2, 1, 4, 4)
    mask = torch.rand(2, 1, 4, 4) < 0.5
    call = AttentionCall(torch.zeros(2, 1, 4, 3), torch.zeros(2, 1, 4, 3), torch.randn(2, 1, 4, 3))
    found = call.attend(ablate(mask, "zero")(call, logits))
    centred = logits - logits.mean(-1, keepdim=True)
    torch.testing.assert_close(found, call.attend(centred.masked_fill(mask, 0.0)))


def test_overwriting_with_the_own_logits_changes_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4)
    edit = overwrite(torch.ones(2, 1, 4, 1, dtype=torch.bool), logits[:1])
    assert torch.equal(edit(None, logits)[0], logits[0])
    assert torch.equal(edit(None, logits)[1], logits[0])


@pytest.mark.parametrize("images", [2, 3, 32])
def test_no_image_is_its_own_partner(images: int) -> None:
    partners = derangement(images, [7])
    assert sorted(partners.tolist()) == list(range(images))
    assert not bool((partners == torch.arange(images)).any())


def test_what_cannot_be_ablated_is_refused() -> None:
    with pytest.raises(UsageError, match="expected one of mean, resample, zero, knockout, pair"):
        ablate(torch.ones(1, 1, 1, 1, dtype=torch.bool), "noise")
    with pytest.raises(UsageError, match="another image"):
        derangement(1, [0])
