"""Runs that take about a second: a small tower, a few scenes, every artefact."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch

from xaikit.artifacts.storage import Storage
from xaikit.errors import XaikitWarning
from xaikit.images.scenes import SceneSource
from xaikit.passes import checkpoint
from xaikit.run.options import Options
from xaikit.run.run_all import run_all
from xaikit.towers import Tower, load_tower

IMAGES = 8
COMMON: dict[str, Any] = {
    "num_clusters": 3,
    "num_permutations": 9,
    "batch_size": 2,
    "workers": 1,
    "top_k": 2,
    "top_n": 2,
    "intervene": False,
}
MODES: dict[str, dict[str, Any]] = {
    "stored": {},
    "shards": {"storage": Storage(shard_images=2, packed_gates=True)},
    "streamed": {"stream": True},
    "live": {"intervene": True, "recipe": "seed", "holdout": 0.5},
}
"""Ways to run; those that only stay at the recipes' defaults are guided."""


def small_tower() -> Tower:
    """A tower of three blocks, one head and five tokens; the same in every process."""
    from timm.models.vision_transformer import VisionTransformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = VisionTransformer(
            img_size=16, patch_size=8, embed_dim=16, depth=3, num_heads=1, num_classes=4
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XaikitWarning)
        return load_tower(module.eval())


def make(folder: Path, mode: str, tower: Tower | None = None, **changed: Any) -> None:
    """Run everything into a folder."""
    # Every batch is worth a checkpoint here.
    checkpoint.SECONDS = checkpoint._SHARE = 0.0
    options = Options(**{**COMMON, **MODES[mode], **changed})
    source = SceneSource(IMAGES, 0)
    run_all(tower or small_tower(), source, out_dir=folder, layers=[1], options=options)


def content(folder: Path) -> dict[str, str]:
    """Every file of a folder, hidden ones too, with a digest of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def difference(found: dict[str, str], wanted: dict[str, str]) -> str:
    """How a folder differs from what it should be, in words; nothing where it does not."""
    words = [f"left {name}" for name in found.keys() - wanted.keys()]
    words += [f"lacks {name}" for name in wanted.keys() - found.keys()]
    words += [f"other {name}" for name in wanted if found.get(name, wanted[name]) != wanted[name]]
    return ", ".join(sorted(words))
