"""Weights are found through wrappers in any nesting, and it is said where they were."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from xaikit.errors import UsageError, XaikitError
from xaikit.towers.fitting import _ignored, load_weights
from xaikit.towers.heads import fit_head
from xaikit.towers.reading import Content, read_content


def state_of(tower):
    return {name: value.clone() for name, value in tower.module.state_dict().items()}


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def inside(part, state):
    """Put a wrapper's name after the first part of every name that has more than one."""
    return {name.replace(".", f".{part}.", 1): value for name, value in state.items()}


def load(tower, tree):
    for parameter in tower.module.parameters():
        parameter.data.zero_()
    return load_weights(tower.module, Content(file="w.pt", form="torch checkpoint", tree=tree))


NESTINGS = {
    "plain": lambda s: s,
    "lightning": lambda s: {"epoch": 1, "state_dict": under("model.", s)},
    "twice": lambda s: {"model": {"state_dict": {"model": under("module.visual.", s)}}},
    "ema": lambda s: {"epoch": 1, "model_ema": s},
    "timm's ema": lambda s: {"state_dict_ema": under("module.", s)},
    "teacher": lambda s: {"teacher": under("backbone.", s)},
    "compiled in parallel": lambda s: {"model": under("module._orig_mod.", s)},
    "parallel inside compiled": lambda s: under("_orig_mod.module.visual.", s),
    "compiled blocks": lambda s: inside("_orig_mod", s),
    "fsdp": lambda s: under("_fsdp_wrapped_module.", inside("_fsdp_wrapped_module", s)),
    "checkpointed": lambda s: inside("_checkpoint_wrapped_module", s),
    "swa": lambda s: {"n_averaged": torch.tensor(3), **under("module.", s)},
    "any name": lambda s: {"whatever": {"deep": under("net.image_encoder.model.", s)}},
    "profiled": lambda s: s | {"total_ops": torch.zeros(1), "blocks.0.total_params": torch.ones(1)},
    "in a list": lambda s: [{"epoch": 1}, (under("module.", s), {"lr": 0.1})],
    "in double precision": lambda s: {n: v.to(torch.float64) for n, v in s.items()},
    "beside an optimizer": lambda s: {
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1),
        "state_dict": s,
    },
}


@pytest.mark.parametrize("kind", ["native", "timm"])
@pytest.mark.parametrize("nesting", sorted(NESTINGS))
def test_every_nesting_is_found(make, pixels, tmp_path, nesting, kind):
    source, target = make[kind](), make[kind]()
    torch.save(NESTINGS[nesting](state_of(source)), tmp_path / "w.pt")
    tree = read_content(tmp_path / "w.pt").tree
    load(target, tree)
    assert torch.equal(target.encode(pixels), source.encode(pixels))


def test_what_torch_itself_wraps(make, pixels):
    source, target = make["native"](), make["native"]()
    averaged = AveragedModel(nn.DataParallel(source.module))
    fitted = load(target, averaged.state_dict())
    assert torch.equal(target.encode(pixels), source.encode(pixels))
    assert fitted.where == "module."


def test_where_the_weights_were_is_said(make):
    tower = make["native"]()
    fitted = load(tower, {"model": {"state_dict": under("module.visual.", state_of(tower))}})
    assert fitted.where == "model › state_dict › module. › visual."


@pytest.mark.parametrize(
    ("tree", "chosen", "other"),
    [
        (lambda own, rest: {"model": rest, "model_ema": own}, "model_ema", "model"),
        (lambda own, rest: {"student": rest, "teacher": own}, "teacher", "student"),
        (
            lambda own, rest: {"state_dict": under("student.", rest) | under("teacher.", own)},
            "state_dict › teacher.",
            "student.",
        ),
    ],
)
def test_of_two_towers_in_a_file_the_choice_is_said(make, pixels, tree, chosen, other):
    source, target = make["native"](), make["native"]()
    zeros = {name: torch.zeros_like(value) for name, value in state_of(source).items()}
    fitted = load(target, tree(state_of(source), zeros))
    assert torch.equal(target.encode(pixels), source.encode(pixels))
    assert fitted.notes == [f"weights of {chosen}, of which the file also holds {other}"]


def test_the_text_tower_is_not_taken_for_the_image_tower(make, pixels):
    source, target = make["native"](), make["native"]()
    blocks = {n: v for n, v in state_of(source).items() if n.startswith("transformer.")}
    text = {name: torch.zeros_like(value) for name, value in blocks.items()}
    load(target, text | under("visual.", state_of(source)))
    assert torch.equal(target.encode(pixels), source.encode(pixels))


@pytest.mark.parametrize("classes", [3, 9])
def test_a_head_of_another_size_is_the_files(make, pixels, classes):
    source, target = make["timm"](num_classes=classes), make["timm"]()
    fitted = load(target, state_of(source))
    assert torch.equal(target.outputs(pixels).class_logits, source.outputs(pixels).class_logits)
    assert fitted.notes == [f"classifier head of {classes} classes, in place of 5"]


def test_a_file_without_a_head_leaves_none(make, pixels):
    source, target = make["timm"](), make["timm"]()
    state = {n: v for n, v in state_of(source).items() if not n.startswith("head.")}
    fitted = load(target, state)
    assert target.outputs(pixels).class_logits is None
    assert torch.equal(target.encode(pixels), source.encode(pixels))
    assert fitted.notes == ["no classifier head, in place of one of 5 classes"]


def test_a_file_with_a_head_brings_it_to_a_model_without(make, pixels):
    source, target = make["timm"](), make["timm"](num_classes=0)
    fitted = load(target, state_of(source))
    assert torch.equal(target.outputs(pixels).class_logits, source.outputs(pixels).class_logits)
    assert fitted.notes == ["classifier head of 5 classes, in place of none"]


def test_a_tower_without_its_projection_gives_what_would_be_projected(make, pixels):
    source, target = make["native"](), make["native"]()
    state = state_of(source)
    projection = state.pop("proj")
    fitted = load(target, state)
    torch.testing.assert_close(target.encode(pixels) @ projection, source.encode(pixels))
    assert fitted.notes == ["no projection: the embedding is what the transformer pools"]


def test_a_projection_of_another_size_is_the_file_s(make, pixels):
    source, target = make["native"](output_dim=5), make["native"]()
    fitted = load(target, state_of(source))
    assert torch.equal(target.encode(pixels), source.encode(pixels))
    assert target.module.output_dim == 5
    assert fitted.notes == ["projection to 5 dimensions, in place of 8"]


def test_a_projection_of_another_width_is_refused(make):
    tower = make["native"]()
    with pytest.raises(XaikitError, match=r"wrong shape proj \[16, 8\] \(expected \[32, 8\]\)"):
        load(tower, state_of(tower) | {"proj": torch.zeros(16, 8)})


def test_a_file_that_lacks_more_than_the_projection_is_incomplete(make):
    tower = make["native"]()
    state = {n: v for n, v in state_of(tower).items() if n not in ("proj", "ln_post.weight")}
    with pytest.raises(XaikitError, match=r"missing .*proj"):
        load(tower, state)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s | {"head.weight": torch.zeros(7, 16)}, r"wrong shape head\.weight \[7, 16\]"),
        (lambda s: {n: v for n, v in s.items() if n != "head.weight"}, r"missing head\.weight"),
    ],
)
def test_a_head_that_is_none_of_this_width_is_refused(make, change, said):
    tower = make["timm"]()
    with pytest.raises(XaikitError, match=said):
        load(tower, change(state_of(tower)))


def test_a_new_head_draws_no_number_of_the_caller_s(make):
    source, target = make["timm"](num_classes=9), make["timm"]()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load(target, state_of(source))
    assert torch.equal(torch.rand(1), expected)


def test_a_trunk_without_its_projection_gives_what_it_pools():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3))

    module, notes = Wrapped(), []
    whole = {name: value.clone() for name, value in module.state_dict().items()}
    fit_head(module, dict(whole), notes)
    assert notes == []
    assert len(module.head) == 1
    fit_head(module, {n: v for n, v in whole.items() if n.startswith("trunk.")}, notes)
    assert len(module.head) == 0
    assert notes == ["no projection: the embedding is what the transformer pools"]


def test_how_much_of_a_file_is_left_out_is_counted(make):
    tower = make["native"]()
    text = {"token_embedding.weight": torch.zeros(3, 2), "logit_scale": torch.ones(())}
    fitted = load(tower, under("visual.", state_of(tower)) | text)
    assert (fitted.left_out, fitted.where) == (2, "visual.")
    assert load(tower, state_of(tower)).left_out == 0


def test_what_training_leaves_is_ignored_but_where_the_module_has_it():
    module = nn.Module()
    module.register_buffer("step", torch.zeros(1))
    ignored = [n for n in ("step", "mask_token", "x.position_ids", "x") if _ignored(n, module)]
    assert ignored == ["mask_token", "x.position_ids"]


def test_a_deeper_model_is_refused_and_not_cut(make):
    deep, shallow = make["timm"](depth=4), make["timm"]()
    with pytest.raises(XaikitError, match=r"unexpected blocks\.3\."):
        load(shallow, state_of(deep))


def test_another_norm_is_refused(make):
    tower = make["timm"]()
    state = state_of(tower) | {"fc_norm.weight": torch.ones(32), "fc_norm.bias": torch.zeros(32)}
    with pytest.raises(XaikitError, match=r"unexpected fc_norm"):
        load(tower, state)


def quantised(value):
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: (v * 127).to(torch.int8), "holds int8 values in .*: quantised"),
        (lambda v: (v * 127).to(torch.uint8), "holds uint8 values in .*: quantised"),
        (lambda v: v.to(torch.int64), "holds int64 values"),
        (lambda v: v.to(torch.complex64), "holds complex64 values in .*: not real"),
        (lambda v: v > 0, "holds bool values in .*: not real"),
        (quantised, "holds qint8 values"),
        (lambda v: v * torch.nan, "not finite"),
        (lambda v: v.to_sparse(), "is sparse"),
        (lambda v: v[:1].clone().expand(v.shape), "repeats few numbers"),
    ],
)
def test_values_that_are_no_weights_are_refused(make, change, said):
    tower = make["native"]()
    name = "transformer.resblocks.1.mlp.c_fc.weight"
    state = state_of(tower)
    with pytest.raises(UsageError, match=said) as caught:
        load(tower, state | {name: change(state[name])})
    assert "\n" not in str(caught.value)


def test_adapters_are_refused(make):
    tower = make["native"]()
    names = {"base_model.model.attn.lora_A.default.weight": torch.zeros(2, 2)}
    with pytest.raises(UsageError, match=r"LoRA adapters .*merge_and_unload"):
        load(tower, state_of(tower) | names)
