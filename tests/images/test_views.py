"""Views of one image: halves that share nothing, the same again for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from xaikit.errors import UsageError
from xaikit.images.views import LEAST_AREA, MOST_AREA, Views

WIDTH, HEIGHT = 120, 60


@pytest.fixture
def image() -> Image.Image:
    """Every pixel says where it is."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([columns, rows, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels)


def place(view: Image.Image) -> tuple[tuple[int, int, int, int], bool]:
    """The box of the image that a view shows, and whether it is mirrored."""
    pixels = np.asarray(view).astype(int)
    columns, rows = pixels[0, :, 0], pixels[:, 0, 1]
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return tuple(int(each) for each in box), bool(columns[0] > columns[-1])


def test_the_views_that_test_are_none_of_those_that_choose(image: Image.Image) -> None:
    views = Views(image, 8, seed=3)
    assert (views.choose, views.test) == ([0, 1, 2, 3], [4, 5, 6, 7])
    seen = [place(views.load(view)) for view in range(8)]
    assert len(set(seen)) == 8
    assert len({views.digest(view) for view in range(8)}) == 8
    whole = (0, 0, WIDTH, HEIGHT)
    assert (seen[0], seen[4]) == ((whole, False), (whole, True))
    # No crop of one half is the mirror image of one of the other.
    boxes = [box for box, _ in seen]
    assert not set(boxes[1:4]) & set(boxes[5:])
    assert [mirrored for _, mirrored in seen] == [False] * 4 + [True, False, True, False]
    assert [name.endswith("mirrored") for name in views.ids] == [mirrored for _, mirrored in seen]


def test_a_crop_is_60_to_95_percent_of_the_area_and_of_the_image_s_shape(
    image: Image.Image,
) -> None:
    views = Views(image, 60, seed=0)
    areas, corners = [], []
    for view in [*range(1, 30), *range(31, 60)]:
        (left, top, right, bottom), _ = place(views.load(view))
        assert (right - left) / (bottom - top) == pytest.approx(WIDTH / HEIGHT, rel=0.03)
        areas.append((right - left) * (bottom - top) / (WIDTH * HEIGHT))
        room = WIDTH - (right - left), HEIGHT - (bottom - top)
        corners.append((left / room[0], top / room[1]))
    assert min(areas) > LEAST_AREA - 0.02
    assert max(areas) < MOST_AREA + 0.02
    # Over the whole range, not some of it: square roots of areas are not areas.
    assert min(areas) < 0.65
    assert np.mean(areas) == pytest.approx((LEAST_AREA + MOST_AREA) / 2, abs=0.05)
    assert np.ptp(np.array(corners), axis=0).min() > 0.8
    # Anywhere in the image, not on its diagonal.
    assert abs(np.corrcoef(np.array(corners).T)[0, 1]) < 0.5


def test_views_follow_from_the_seed_and_their_number(image: Image.Image) -> None:
    one, same, other = Views(image, 4, seed=1), Views(image, 4, seed=1), Views(image, 4, seed=2)
    assert [one.digest(view) for view in range(4)] == [same.digest(view) for view in range(4)]
    assert one.digest(1) != other.digest(1)
    assert one.digest(0) == other.digest(0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_odd_number_of_views_is_refused(image: Image.Image, count: int) -> None:
    with pytest.raises(UsageError, match=f"`views={count}`: expected an even number"):
        Views(image, count)
