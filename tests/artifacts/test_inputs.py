"""What stages are given."""

from __future__ import annotations

import pytest

import xaikit
from xaikit.errors import UsageError


def test_a_list_of_files_or_a_module_says_what_to_pass(tmp_path):
    tower = xaikit.load_tower("xaikit-demo")
    source = xaikit.open_images(demo=True, max_images=2)
    with pytest.raises(UsageError, match=r"not as list: pass xaikit\.open_images"):
        xaikit.trace(tower, ["a.jpg"])
    with pytest.raises(UsageError, match=r"not as VisionTransformer: pass xaikit\.load_tower"):
        xaikit.trace(tower.module, source)
    with pytest.raises(UsageError, match=r"not as str: pass xaikit\.load_tower"):
        xaikit.run_all("ViT-B-32", source, out_dir=tmp_path)
