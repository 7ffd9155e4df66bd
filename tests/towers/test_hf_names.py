"""Names that transformers gives to weights: put together where whole, and left to be named else."""

from __future__ import annotations

import torch

from xaikit.towers.hf_names import from_transformers

LAYER = "encoder.layer.0.attention.attention."


def vit(**more):
    """A ViT of one layer, of which only queries, keys and values matter here."""
    state = {"embeddings.patch_embeddings.projection.weight": torch.zeros(4, 3, 2, 2)}
    for at, part in enumerate(("query", "key", "value")):
        state[f"{LAYER}{part}.weight"] = torch.full((2, 4), float(at))
    return state | more


def test_queries_keys_and_values_become_one_in_this_order():
    found = from_transformers(dict(reversed(vit().items())))
    assert found is not None
    assert found.state["blocks.0.attn.qkv.weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_what_is_incomplete_stays_out_and_is_missed_later():
    state = vit()
    del state[f"{LAYER}value.weight"]
    found = from_transformers(state)
    assert found is not None
    assert list(found.state) == ["patch_embed.proj.weight"]


def test_what_a_rule_does_not_know_in_the_tower_keeps_its_name():
    odd = {"encoder.layer.0.odd.weight": torch.ones(1), "pooler.weight": torch.ones(1)}
    unused = {"embeddings.mask_token": torch.ones(1), "embeddings.position_ids": torch.ones(1)}
    found = from_transformers(vit(**odd, **unused))
    assert found is not None
    assert set(found.state) - set(from_transformers(vit()).state) == {"encoder.layer.0.odd.weight"}


def test_scale_and_bias_of_siglip_come_along():
    state = {
        "vision_model.embeddings.patch_embedding.weight": torch.zeros(4, 3, 2, 2),
        "vision_model.head.attention.in_proj_weight": torch.arange(12.0)[:, None],
        "logit_scale": torch.tensor(2.0),
        "logit_bias": torch.tensor(-7.0),
    }
    found = from_transformers(state)
    assert found is not None
    assert (found.kind, found.prefix) == ("SiglipModel", "vision_model.")
    assert float(found.state["logit_scale"]) == 2.0
    assert float(found.state["logit_bias"]) == -7.0
    # One projection there, a query's and the others' here.
    pool = "visual.trunk.attn_pool"
    assert found.state[f"{pool}.q.weight"].flatten().tolist() == [0, 1, 2, 3]
    assert found.state[f"{pool}.kv.weight"].flatten().tolist() == list(range(4, 12))


def test_a_text_tower_alone_is_no_vision_tower():
    assert (
        from_transformers({"text_model.embeddings.position_embedding.weight": torch.ones(1)})
        is None
    )
    assert from_transformers({"blocks.0.attn.qkv.weight": torch.ones(1)}) is None
