"""The contract's field names, in every artefact, as other programs read them."""

from __future__ import annotations

import json

import orjson
import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace
from made_traces import blank_info, made_tensors, write
from safetensors import safe_open

from xaikit.artifacts.records import require_parent
from xaikit.artifacts.results import Intervention
from xaikit.artifacts.storage import Storage
from xaikit.artifacts.tensors import Features
from xaikit.errors import UsageError
from xaikit.stages.causal import causal
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal

K = 4
SHARED = {
    *("format_version", "xaikit_version", "model", "weights_fingerprint"),
    *("images_fingerprint", "options", "layer", "next_layer"),
}
TRACE = {"images"}, {"h_l", "ffn_gate_l", "attn_logits_l1"}
CLUSTER = (
    {"trace_file", "num_clusters"},
    {"labels", "centroids", "cluster_sizes", "cluster_activation_rates"},
)
FIT = (
    {
        *("trace_file", "features_file", "mse"),
        *("r2", "r2_mean", "r2_position", "r2_position_cluster"),
    },
    {
        *("prototypes", "counts", "contrast"),
        *("edge_zscores", "edge_pvalues", "edge_qvalues"),
    },
)


@pytest.fixture(scope="module")
def made():
    A, c = slow.random_case(0, B=8)
    trace = make_trace(torch.from_numpy(A))
    features = make_features(trace, torch.from_numpy(c), K, [1, 2, 5])
    return trace, features, fit(trace, features, num_permutations=5)


@pytest.mark.parametrize("stage", ["trace", "cluster", "fit"])
def test_tensor_artefacts_carry_the_contracts_fields(made, tmp_path, stage):
    if stage == "trace":
        write(tmp_path / "file", made_tensors(3))
    else:
        made[{"cluster": 1, "fit": 2}[stage]].save(tmp_path / "file")
    fields, tensors = {"trace": TRACE, "cluster": CLUSTER, "fit": FIT}[stage]
    with safe_open(tmp_path / "file", "pt") as file:
        metadata = file.metadata()
        assert tensors <= set(file.keys())
        assert SHARED | fields <= set(metadata)
        decoded = {key: json.loads(value) for key, value in metadata.items()}
        assert (decoded["stage"], decoded["layer"], decoded["next_layer"]) == (stage, 2, 3)
        if stage == "cluster":
            assert file.get_tensor("labels").dtype == torch.int64
            assert file.get_tensor("cluster_sizes").dtype == torch.int64
        if stage == "fit":
            assert file.get_tensor("counts").dtype == torch.int64


def test_json_artefacts_carry_the_shared_fields(made, tmp_path):
    trace, features, fitted = made
    found = circuit(fitted, top_k=4)
    for artefact in (
        found,
        causal(features, fitted, num_permutations=5),
        target_causal(trace, features, fitted, found, num_permutations=5),
    ):
        artefact.save(tmp_path / "out.json")
        assert set(orjson.loads((tmp_path / "out.json").read_bytes())) >= SHARED


def test_intervention_carries_the_contracts_fields(made, tmp_path):
    found = Intervention(
        provenance=made[2].provenance, full_effect={}, curves=[], random=[], effects=[]
    ).identify()
    found.save(tmp_path / "intervene.json")
    written = orjson.loads((tmp_path / "intervene.json").read_bytes())
    assert {"full_effect", "curves", "random", "effects"} | SHARED <= set(written)
    assert Intervention.load(tmp_path / "intervene.json") == found


def test_features_round_trip(made, tmp_path):
    made[1].save(tmp_path / "features.safetensors")
    again = Features.load(tmp_path / "features.safetensors")
    for name in Features.TENSORS:
        one, two = getattr(again, name), getattr(made[1], name)
        assert (one is None and two is None) or torch.equal(one, two), name
    for name in ("provenance", "identity", "num_clusters", "discovery", "heldout", "trace_file"):
        assert getattr(again, name) == getattr(made[1], name)
    assert again.test_images == [1, 2, 5]


def test_parents_are_followed_by_identity(made):
    trace, features, fitted = made
    assert fitted.provenance.parents == {"trace": trace.identity, "features": features.identity}
    require_parent(features, "trace", trace, child_name="features")
    other = make_features(trace, 0 * features.labels, K)
    with pytest.raises(UsageError, match="fit file was not made from this features file"):
        require_parent(fitted, "features", other, child_name="fit")


def test_a_traces_identity_is_of_weights_images_layers_and_storage(tmp_path):
    tensors = made_tensors(4)
    base = write(tmp_path / "a", tensors).identity
    assert write(tmp_path / "b", tensors, storage=Storage(shard_images=2)).identity == base
    assert write(tmp_path / "c", made_tensors(3)).identity != base
    assert write(tmp_path / "d", tensors, info=blank_info(layer=1)).identity != base
    assert write(tmp_path / "e", tensors, info=blank_info(weights="v" * 16)).identity != base
