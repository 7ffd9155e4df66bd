"""Checkpoints are read without unpickling and loaded strictly."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from xaikit.errors import UsageError, XaikitError
from xaikit.towers.fingerprints import fingerprint
from xaikit.towers.fitting import load_weights
from xaikit.towers.reading import Content, read_content


def state_of(tower):
    return {name: value.clone() for name, value in tower.module.state_dict().items()}


def holding(tree, file="model.pt"):
    return Content(file=file, form="torch checkpoint", tree=tree)


def full_clip(state):
    text = {"logit_scale": torch.ones(()), "token_embedding.weight": torch.zeros(3, 2)}
    return {f"visual.{name}": value for name, value in state.items()} | text


LAYOUTS = {
    "vision only": lambda state: state,
    "full CLIP": full_clip,
    "nested": lambda state: {"epoch": 3, "state_dict": full_clip(state)},
    "distributed": lambda state: {
        "state_dict": {f"module.{name}": value for name, value in full_clip(state).items()}
    },
    "half precision": lambda state: {name: value.half() for name, value in state.items()},
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_of_a_checkpoint_loads(make, pixels, tmp_path, layout):
    source, target = make["native"](), make["native"]()
    for parameter in target.module.parameters():
        parameter.data.zero_()
    torch.save(LAYOUTS[layout](state_of(source)), tmp_path / "model.pt")
    load_weights(target.module, read_content(tmp_path / "model.pt"))
    tolerance = 0.05 if layout == "half precision" else 0.0
    torch.testing.assert_close(
        target.encode(pixels), source.encode(pixels), rtol=tolerance, atol=tolerance
    )
    assert target.module.proj.dtype == torch.float32


def test_a_clip_trunk_fits_the_timm_model_alone(make, pixels, tmp_path):
    source, target = make["eva"](), make["eva"]()
    wrapped = {f"visual.trunk.{name}": value for name, value in state_of(source).items()}
    save_file(wrapped | {"visual.head.proj.weight": torch.zeros(2, 2)}, tmp_path / "clip.st")
    (tmp_path / "clip.st").rename(tmp_path / "clip.safetensors")
    for parameter in target.module.parameters():
        parameter.data.zero_()
    load_weights(target.module, read_content(tmp_path / "clip.safetensors"))
    assert torch.equal(target.encode(pixels), source.encode(pixels))


def test_names_that_do_not_fit_are_named(make):
    tower = make["native"]()
    state = state_of(tower)
    state["proj"] = torch.zeros(3, 3)
    del state["ln_post.bias"]
    state["surplus"] = torch.zeros(1)
    with pytest.raises(XaikitError) as caught:
        load_weights(tower.module, holding(state, "odd.pt"))
    message = str(caught.value)
    assert message.startswith("checkpoint odd.pt does not fit VisionTransformer: ")
    assert "missing ln_post.bias" in message
    assert "unexpected surplus" in message
    assert "wrong shape proj [3, 3] (expected [32, 8])" in message
    assert "\n" not in message


def test_long_lists_are_cut(make):
    tower = make["native"]()
    with pytest.raises(XaikitError, match=r"missing \S+, \S+, \S+ and \d+ more"):
        load_weights(tower.module, holding({"ln_post.bias": torch.zeros(32)}))


class Evil:
    """Says so if it is ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_nothing_is_unpickled(tmp_path):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "plain.pkl"):
        with pytest.raises(UsageError, match=f"{name} .*never unpickles"):
            read_content(tmp_path / name)


def test_files_that_hold_no_weights_are_named(make, tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"\x00\x01torn")
    torch.save({"epoch": 1}, tmp_path / "empty.pt")
    with pytest.raises(UsageError, match=r"torn\.safetensors is no readable safetensors"):
        read_content(tmp_path / "torn.safetensors")
    with pytest.raises(UsageError, match=r"empty\.pt holds no state dict"):
        load_weights(make["native"]().module, read_content(tmp_path / "empty.pt"))
    with pytest.raises(UsageError, match=r"none\.pt does not exist"):
        read_content(tmp_path / "none.pt")


def test_the_fingerprint_sees_names_shapes_formats_and_values():
    state = {"a": torch.arange(6.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    same = {"b": state["b"].clone(), "a": state["a"].clone()}
    assert fingerprint(state) == fingerprint(same)
    changed = torch.arange(6.0)
    changed[3] = torch.nextafter(changed[3], torch.tensor(9.0))
    others = [
        state | {"a": changed},
        state | {"a": state["a"].view(2, 3)},
        state | {"a": state["a"].view(torch.int32)},
        {"c": state["a"], "b": state["b"]},
    ]
    assert len({fingerprint(other) for other in [state, *others]}) == 5
