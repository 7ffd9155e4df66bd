"""What commands say of the images behind their tests."""

from __future__ import annotations

from dataclasses import replace

import pytest
import slow_definitions as slow
import torch
from conftest import make_features, make_trace
from rich.console import Console

from xaikit.report.summaries import causal_lines, fit_lines, table, target_causal_lines
from xaikit.stages.causal import causal
from xaikit.stages.circuit import circuit
from xaikit.stages.fit import fit
from xaikit.stages.target_causal import target_causal


@pytest.mark.parametrize("heldout", [None, [1, 3, 4, 6]])
def test_tests_say_whether_images_were_held_out(heldout):
    logits, labels = slow.random_case(0, B=8, N=4)
    trace = make_trace(torch.from_numpy(logits))
    features = make_features(trace, torch.from_numpy(labels), 4, heldout)
    made = fit(trace, features, num_permutations=3)
    chosen = circuit(made, top_k=3)
    edges = target_causal(trace, features, made, chosen, num_permutations=3)
    clusters = causal(features, made, num_permutations=3)
    for found, lines in (
        (edges, target_causal_lines(edges)),
        (clusters, causal_lines(clusters)),
        (made, fit_lines(made)),
    ):
        assert found.heldout == (heldout is not None)
        assert found.num_test_images == (4 if heldout else 8)
        said = " ".join(line for line in lines if isinstance(line, str))
        assert ("none of them held out" in said) == (heldout is None)
        if heldout and found is not made:
            assert "tested on 4 held-out images" in said
    assert (
        "tested on 8 images"
        in target_causal_lines(replace(edges, heldout=False, num_test_images=8))[-1]
    )


def test_a_title_is_as_wide_as_the_terminal_and_not_as_its_table():
    console = Console(width=80, record=True)
    console.print(table("a title of more words than columns", ["<a", "b"], [["1", "2"]]))
    assert console.export_text().splitlines()[0].rstrip() == "a title of more words than columns"
