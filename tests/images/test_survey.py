"""How many images it takes to have so many usable ones: all passes are over the same ones."""

from __future__ import annotations

import pytest
from PIL import Image

from xaikit.artifacts.preprocess import Preprocess
from xaikit.images.decoding import BadImage
from xaikit.images.survey import candidate_count

PREPROCESS = Preprocess(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


class Plates:
    """Some pictures, of which some are bad."""

    groups = None

    def __init__(self, count, bad=(), limit=None):
        self.ids, self.bad, self.limit = [str(i) for i in range(count)], bad, limit
        self.loaded: list[int] = []

    def __len__(self):
        return len(self.ids)

    def load(self, i):
        self.loaded.append(i)
        if i in self.bad:
            raise BadImage(self.ids[i], "cracked")
        return Image.new("RGB", (9, 9))


@pytest.mark.parametrize(
    ("most", "count"), [(1, 2), (2, 3), (3, 6), (5, 8), (6, 10), (7, 10), (9, 10), (10, 10)]
)
def test_as_many_as_hold_the_usable_ones(most, count):
    source = Plates(10, bad={0, 3, 4, 8})
    assert candidate_count(source, PREPROCESS, most, 2) == count
    assert candidate_count(Plates(10, {0, 3, 4, 8}, limit=most), PREPROCESS, None, 2) == count


def test_what_is_asked_for_wins_over_the_source_s_own_number():
    assert candidate_count(Plates(10, limit=2), PREPROCESS, 5) == 5


@pytest.mark.parametrize(("limit", "most"), [(None, None), (10, None), (None, 10), (3, 40)])
def test_nothing_is_decoded_where_all_are_asked_for(limit, most):
    source = Plates(10, bad={0}, limit=limit)
    assert candidate_count(source, PREPROCESS, most) == 10
    assert source.loaded == []


def test_only_the_first_images_are_decoded():
    source = Plates(100)
    assert candidate_count(source, PREPROCESS, 5, 2) == 5
    assert max(source.loaded) == 4
