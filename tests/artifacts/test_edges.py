"""An edge is three numbers or one, and ends at a token or at a cluster."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xaikit.artifacts.edges import Edge, EdgeKey, EdgeSpace, key_of

sizes = st.integers(1, 7)


@given(sizes, sizes, sizes, st.data())
def test_places_and_keys_are_each_other_s_inverse(clusters, heads, width, data):
    space = EdgeSpace(clusters=clusters, heads=heads, width=width)
    place = data.draw(st.integers(0, len(space) - 1))
    key = space.key(place)
    assert space.flat(*key) == place
    assert np.arange(len(space)).reshape(space.shape)[key] == place


def test_whole_arrays_convert_alike():
    space = EdgeSpace(clusters=3, heads=2, width=5)
    flat = torch.arange(len(space))
    split = space.split(flat)
    assert torch.equal(space.flat(*split), flat)
    assert split[0].tolist() == [space.key(at).cluster for at in range(len(space))]


@pytest.mark.parametrize("place", [-1, 30])
def test_a_place_outside_is_no_edge(place):
    with pytest.raises(IndexError):
        EdgeSpace(clusters=3, heads=2, width=5).key(place)


@pytest.mark.parametrize(
    ("destination", "token", "cluster"), [("token", 4, None), ("cluster", None, 4)]
)
def test_the_destination_says_which_field_names_the_end(destination, token, cluster):
    space = EdgeSpace(clusters=3, heads=2, width=5, destination=destination)
    edge = Edge(**space.fields(EdgeKey(2, 1, 4)), weight=0.5, support=3)
    assert (edge.dst_token, edge.dst_cluster) == (token, cluster)
    assert edge.key == key_of(edge) == (2, 1, 4)
    assert edge.destination == 4
    assert space.places([edge]) == [29]
