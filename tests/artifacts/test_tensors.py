"""Features and fits: numbers that do not go together are refused when they are read."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace as Some

import pytest
import torch
from conftest import make_features, make_trace

from xaikit.artifacts.files import write_tensors
from xaikit.artifacts.stored import read_tensors
from xaikit.artifacts.tensors import Features, Fit
from xaikit.errors import UsageError
from xaikit.stages.fit import fit

K, IMAGES, TOKENS = 3, 8, 5
TRACE = make_trace(torch.randn(IMAGES, 2, TOKENS, TOKENS))
LABELS = torch.arange(IMAGES * TOKENS).reshape(IMAGES, TOKENS) % K


@pytest.fixture(scope="module")
def features():
    return make_features(TRACE, LABELS, K, heldout=[1, 2, 5])


@pytest.fixture(scope="module")
def fits(features):
    return {
        destination: fit(TRACE, features, destination=destination, num_permutations=5)
        for destination in ("token", "cluster")
    }


def refused(kind, made, path, said):
    """What is written, with an identity that goes with it, is not read."""
    made.save(path)
    with pytest.raises(UsageError, match=said) as caught:
        kind.load(path)
    assert str(path) in str(caught.value)


def changed(tensor, *places):
    """A copy with some numbers in some places."""
    found = tensor.clone()
    for place, value in places:
        found[place] = value
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: {"labels": changed(f.labels, ((0, 0), K))}, "labels go beyond its 3 clusters"),
        (
            lambda f: {"cluster_sizes": changed(f.cluster_sizes, (0, 0), (1, 27))},
            "cluster_sizes do not count its labels",
        ),
        (lambda f: {"discovery": [0, 1]}, "discovery and heldout are not parts of its 8 images"),
        (lambda f: {"heldout": [1, 1]}, "discovery and heldout are not parts"),
        (lambda f: {"heldout": [IMAGES]}, "discovery and heldout are not parts"),
        (lambda f: {"projection": torch.zeros(12, 4)}, "some of projection, offset and leaf_means"),
        (
            lambda f: {
                "labels": f.labels[:7],
                "cluster_sizes": torch.bincount(f.labels[:7].flatten()),
                "discovery": [0],
            },
            "it records 8 images, and labels of 7",
        ),
        (
            lambda f: {
                "labels": f.labels.repeat(2, 1),
                "cluster_sizes": 2 * f.cluster_sizes,
            },
            "it records 8 images, and labels of 16",
        ),
        (lambda f: {"recorded": {**f.recorded, "tokens": "five"}}, "tokens is 'five'"),
        (lambda f: {"recorded": {**f.recorded, "groups": ["a"]}}, "groups does not go with its 8"),
        (lambda f: {"num_clusters": 4}, r"centroids has shape \[3, 12\], expected \[4, F\]"),
        (lambda f: {"centroids": f.centroids + 1.5}, r"centroids holds numbers in \[1.5, 1.5\]"),
    ],
)
def test_features_whose_numbers_do_not_go_together_are_refused(features, tmp_path, change, said):
    refused(Features, replace(features, **change(features)), tmp_path / "f.safetensors", said)


@pytest.mark.parametrize(
    ("destination", "change", "said"),
    [
        ("token", lambda f: {"destination": "cluster"}, "its 5 destinations are not all clusters"),
        ("cluster", lambda f: {"destination": "token"}, "its 3 destinations are not all tokens"),
        ("cluster", lambda f: {"pair_counts": None}, "pair_counts go with destinations that are"),
        (
            "token",
            lambda f: {"pair_counts": torch.ones(K, K, dtype=torch.int64)},
            "pair_counts go with destinations that are",
        ),
        (
            "token",
            lambda f: {
                "edge_null_methods": changed(f.edge_null_methods, ((0, 0, 0), len(f.null_methods)))
            },
            "edge_null_methods go beyond its null_methods",
        ),
        (
            "token",
            lambda f: {"edge_qvalues": torch.full_like(f.edge_qvalues, torch.nan)},
            "edge_qvalues holds numbers that are not finite",
        ),
        (
            "token",
            lambda f: {
                "method": "guided",
                "heldout": True,
                "edge_qvalues": torch.full_like(f.edge_qvalues, torch.nan),
            },
            "edge_qvalues holds numbers that are not finite",
        ),
    ],
)
def test_fits_whose_numbers_do_not_go_together_are_refused(
    fits, tmp_path, destination, change, said
):
    made = fits[destination]
    refused(Fit, replace(made, **change(made)), tmp_path / "fit.safetensors", said)


def test_tensors_of_another_identity_are_refused(fits, tmp_path):
    path = tmp_path / "fit.safetensors"
    fits["token"].save(path)
    header, tensors = read_tensors(path, "fit")
    write_tensors(path, {**tensors, "prototypes": tensors["prototypes"] + 1}, header.fields)
    with pytest.raises(UsageError, match="says that its identity is"):
        Fit.load(path)


@pytest.mark.parametrize(
    ("method", "heldout", "testable"),
    [("kmeans", [], True), ("kmeans", [1], True), ("guided", [1], True), ("guided", [], False)],
)
def test_guided_clusters_are_tested_on_images_that_they_have_not_seen(method, heldout, testable):
    for kind, held in ((Features, heldout), (Fit, bool(heldout))):
        assert kind.testable.fget(Some(method=method, heldout=held)) is testable
    shown = Features.test_images.fget(Some(discovery=[0, 2], heldout=heldout))
    assert shown == (heldout or [0, 2])


def test_an_edge_that_no_permutation_changes_has_no_deviation_and_the_whole_probability():
    z, p = torch.tensor([[[0.0, 0.0, 1.0, 2.0]]]), torch.tensor([[[1.0, 0.5, 1.0, 0.1]]])
    found = Fit.untestable.fget(Some(edge_zscores=z, edge_pvalues=p))
    assert found.tolist() == [[[True, False, False, False]]]


def test_an_edge_stands_on_rows_or_on_pairs(fits):
    assert torch.equal(fits["cluster"].support, fits["cluster"].pair_counts)
    assert torch.equal(fits["token"].support, fits["token"].counts[:, None].expand(K, TOKENS))
