"""What stages are given."""

from __future__ import annotations

from types import SimpleNamespace as Some

import pytest

import xaikit
from xaikit.artifacts.inputs import ImageOptions, PreprocessOptions, require_parts, triple
from xaikit.artifacts.options import checked
from xaikit.errors import OptionError, UsageError


def test_a_list_of_files_or_a_module_says_what_to_pass(tmp_path):
    tower = xaikit.load_tower("xaikit-demo")
    source = xaikit.open_images(demo=True, max_images=2)
    with pytest.raises(UsageError, match=r"not as list: pass xaikit\.open_images"):
        xaikit.trace(tower, ["a.jpg"])
    with pytest.raises(UsageError, match=r"not as VisionTransformer: pass xaikit\.load_tower"):
        xaikit.trace(tower.module, source)
    with pytest.raises(UsageError, match=r"not as str: pass xaikit\.load_tower"):
        xaikit.run_all("ViT-B-32", source, out_dir=tmp_path)


@pytest.mark.parametrize("name", ["images", "imagenet_root", "webdataset", "dataset"])
def test_any_source_that_is_named_is_given(name):
    assert ImageOptions(**{name: "somewhere"}).given
    assert not ImageOptions(split="train").given


@pytest.mark.parametrize("lacks", ["info", "blocks", "outputs", "ids", "load"])
def test_parts_have_all_that_stages_ask_of_them(lacks):
    class Source(list):
        ids, load = (), None

    tower, source = Some(info=0, blocks=0, outputs=0), Source()
    require_parts(tower, source)
    if lacks in ("ids", "load"):
        delattr(Source, lacks)
    else:
        delattr(tower, lacks)
    with pytest.raises(UsageError, match=r"expected as a (tower, not as Simple|source, not as S)"):
        require_parts(tower, source)


def test_preprocessing_is_three_numbers_and_a_side_of_some_pixels():
    assert triple("0.5, 1,2e-1") == (0.5, 1.0, 0.2)
    for text in ("1,2", "1,2,3,4", "a,b,c", ""):
        with pytest.raises(ValueError, match="three numbers"):
            triple(text)
    assert checked(PreprocessOptions(resize=1)).resize == 1
    for wrong in ({"resize": 0}, {"resize_mode": "stretch"}):
        with pytest.raises(OptionError):
            checked(PreprocessOptions(**wrong))
