"""The embedded demo model: a small CLIP, really trained, on scenes that code draws.

Image tower: 6 layers, width 96, 4 heads, 64 x 64 pixels in 8 x 8 patches (65 tokens). Text
tower: 3 layers, width 64, 16 tokens, open_clip's ordinary tokenizer. Mean and standard deviation
are open_clip's defaults (`open_clip.OPENAI_DATASET_MEAN` and ``_STD``), which is what open_clip
uses for a model that is loaded from a local file; resizing and cropping leave 64 x 64 pixels as
they are. ``examples/04_train_the_demo.py`` trains it, and the weights' header keeps what it
scored.
"""

from __future__ import annotations

from pathlib import Path

NAME = "xaikit-demo"
CONFIG = Path(__file__).with_name(f"{NAME}.json")
WEIGHTS = Path(__file__).with_name(f"{NAME}.safetensors")


def register() -> None:
    """Make `NAME` known to open_clip; calling it again changes nothing.

    Afterwards ``open_clip.create_model_and_transforms(NAME, pretrained=str(WEIGHTS))`` and
    ``open_clip.get_tokenizer(NAME)`` work as for every other model.
    """
    # Seconds to import: what reads artefacts alone shall not wait for it.
    import open_clip

    if NAME not in open_clip.list_models():
        open_clip.add_model_config(CONFIG)
