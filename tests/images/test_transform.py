from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision import transforms

from xaikit.artifacts.preprocess import Preprocess
from xaikit.errors import UsageError
from xaikit.images.decoding import BadImage
from xaikit.images.transform import framed, pixels_for

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = [(64, 64), (97, 61), (61, 97), (32, 32), (31, 200), (7, 5), (1, 1), (333, 500)]


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


def preprocess(**options) -> Preprocess:
    return Preprocess(**{"size": (32, 32), "mean": MEAN, "std": STD, **options})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_equals_open_clip(mode, interpolation, size):
    theirs = open_clip.image_transform(
        32, False, MEAN, STD, resize_mode=mode, interpolation=interpolation, fill_color=7
    )
    ours = preprocess(mode=mode, interpolation=interpolation, fill=7)
    image = picture(*size)
    assert torch.equal(pixels_for(image, ours), theirs(image))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("frame", [(24, 40), (40, 24)])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_equals_open_clip_where_the_input_is_not_square(mode, frame, size):
    theirs = open_clip.image_transform(frame, False, MEAN, STD, resize_mode=mode)
    image = picture(*size)
    assert torch.equal(pixels_for(image, preprocess(size=frame, mode=mode)), theirs(image))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", [32, 37, 20])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_equals_torchvision_with_a_larger_resize(interpolation, resize, size):
    theirs = transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    image = picture(*size)
    ours = preprocess(resize=resize, interpolation=interpolation)
    assert torch.equal(pixels_for(image, ours), theirs(image))


def test_squash_and_crop():
    theirs = transforms.Compose(
        [transforms.Resize((40, 60), Image.Resampling.BICUBIC), transforms.CenterCrop((32, 48))]
    )
    image = picture(97, 61)
    ours = framed(image, preprocess(size=(32, 48), resize=40, mode="squash"))
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs(image)))


def test_the_odd_pixel_of_a_crop_goes_where_the_library_cuts_it():
    """transformers cuts at the half rounded down, torchvision at the half rounded to even."""
    image = picture(37, 39)
    for crop, (left, top) in {"floor": (3, 2), "round": (4, 2)}.items():
        found = framed(image, preprocess(resize=37, crop=crop))
        wanted = image.crop((left, top, left + 32, top + 32))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_only_what_fits_the_longer_side_is_filled(mode):
    """A picture that is smaller than the frame lies on black, as torchvision pads it."""
    found = framed(picture(16, 16), preprocess(mode=mode, resize=16, fill=9))
    assert np.asarray(found)[0, 0].tolist() == [0, 0, 0]
    longest = framed(picture(16, 32), preprocess(mode="longest", fill=9))
    assert np.asarray(longest)[0, 0].tolist() == [9, 9, 9]


@pytest.mark.parametrize("frame", [(32, 48), (48, 32)])
def test_the_shorter_side_of_the_frame_is_resized_to(frame):
    found = framed(picture(*frame), preprocess(size=frame, resize=40, mode="squash"))
    larger = tuple(side * 40 // 32 for side in frame)
    theirs = transforms.Compose(
        [transforms.Resize(larger, Image.Resampling.BICUBIC), transforms.CenterCrop(frame)]
    )
    np.testing.assert_array_equal(np.asarray(found), np.asarray(theirs(picture(*frame))))


def test_layout_and_type():
    got = pixels_for(Image.new("L", (5, 9), 255), preprocess())
    assert got.dtype == torch.float32
    assert got.shape == (3, 32, 32)
    assert got.is_contiguous()
    expected = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert torch.equal(got, expected[:, None, None].expand(3, 32, 32))


def test_long_thin_pictures():
    thin = Image.new("RGB", (1, 100_000))
    with pytest.raises(BadImage, match="1 x 100000 pixels"):
        framed(thin, preprocess(size=(224, 224)))
    assert framed(thin, preprocess(mode="longest")).size == (32, 32)


@pytest.mark.parametrize("wrong", [{"mode": "fit"}, {"interpolation": "spline"}])
def test_unknown_options(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong.values()))):
        pixels_for(picture(4, 4), preprocess(**wrong))
