"""How image processors prepare pictures, as their files of any version say it."""

from __future__ import annotations

import pytest

from xaikit.errors import UsageError
from xaikit.towers.hf_processors import crop_of, image_processor, processor_settings


def test_a_processor_of_texts_too_has_its_own_inside_and_that_one_counts():
    inner, alone = {"size": 1}, {"size": 2}
    assert image_processor({"image_processor": inner}, alone) == inner
    assert image_processor({"image_processor": "AutoImageProcessor"}, alone) == alone
    assert image_processor({}, alone) == image_processor(None, alone) == alone
    assert image_processor(None, None) == {}


@pytest.mark.parametrize(
    ("size", "crop", "taken", "resize"),
    [
        (256, 224, 224, 256),
        (256, 224, 448, 512),
        (256, 224, 112, 128),
        (224, 224, 336, None),
        (224, None, 336, None),
        (518, 518, 518, None),
    ],
)
def test_a_resize_is_scaled_where_the_tower_takes_another_size(size, crop, taken, resize):
    config = {"size": {"shortest_edge": size}}
    config |= {} if crop is None else {"crop_size": {"height": crop, "width": crop}}
    found = processor_settings(config, (taken, taken))
    assert found == {"crop": "floor", "mode": "shortest", "resize": resize}


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "squash"),
        ({"feature_extractor_type": "DeiTFeatureExtractor"}, "squash"),
        ({"image_processor_type": "CLIPImageProcessor"}, "shortest"),
        ({"feature_extractor_type": "ConvNextFeatureExtractor"}, "shortest"),
        # Of a kind that is not known, whether it crops says which.
        ({"image_processor_type": "OtherImageProcessor"}, "squash"),
        ({"crop_size": 16}, "shortest"),
        ({"do_center_crop": True}, "shortest"),
        ({"do_center_crop": False, "crop_size": 16}, "squash"),
    ],
)
def test_one_number_is_the_shorter_side_or_both(config, mode):
    assert processor_settings({"size": 16, **config}, (16, 16))["mode"] == mode


@pytest.mark.parametrize("size", [True, "16", [16, 16], {"longest_edge": 16}])
def test_what_is_no_side_is_refused(size):
    with pytest.raises(UsageError, match="gives pictures of no fixed size"):
        processor_settings({"size": size}, (16, 16))


@pytest.mark.parametrize(
    ("config", "mean", "std"),
    [
        ({}, (0.5,) * 3, (0.25,) * 3),
        ({"rescale_factor": 1 / 255}, (0.5,) * 3, (0.25,) * 3),
        ({"rescale_factor": 0}, (0.5,) * 3, (0.25,) * 3),
        ({"rescale_factor": "1/255"}, (0.5,) * 3, (0.25,) * 3),
        ({"rescale_factor": 2 / 255}, (0.25,) * 3, (0.125,) * 3),
        ({"do_rescale": False}, (0.5 / 255,) * 3, (0.25 / 255,) * 3),
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
    ],
)
def test_mean_and_deviation_are_of_pixels_between_0_and_1(config, mean, std):
    found = processor_settings({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, **config}, (8, 8))
    assert found["mean"] == pytest.approx(mean)
    assert found["std"] == pytest.approx(std)


def test_what_is_handed_to_the_model_is_the_crop_or_else_the_size():
    assert crop_of({"crop_size": {"height": 9, "width": 9}, "size": 12}) == 9
    assert crop_of({"size": {"shortest_edge": 12}}) == 12
    assert crop_of({}) is None
