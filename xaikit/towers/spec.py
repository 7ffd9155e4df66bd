"""A model name, resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xaikit.towers.folders import Folder

DEMO = "xaikit-demo"
TIMM_PREFIX = "timm/"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model name, resolved.

    Attributes
    ----------
    name : str
        As it is recorded.
    family : str
        ``open_clip`` or ``timm``.
    config : dict
        open_clip's model config; empty for timm models.
    preprocess : dict
        Preprocessing that a config carries beside the model, as its library writes it.
    dialect : str
        Library that wrote `preprocess`: ``open_clip``, ``timm`` or ``transformers``.
    registered : bool
        Whether open_clip or timm knows the name.
    tag : str, optional
        Pretrained tag written into a timm name, ``vit_tiny_patch16_224.augreg_in21k``.
    architecture : str, optional
        timm's name of the model, where `name` is another; for models that transformers describes
        the class of timm that computes the same.
    options : mapping
        Arguments of the timm model.
    folder : Folder, optional
        Where the config was found, and its weights are.
    """

    name: str
    family: str
    config: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)
    dialect: str = "open_clip"
    registered: bool = True
    tag: str | None = None
    architecture: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: Folder | None = None

    @property
    def timm_name(self) -> str | None:
        """Name of the timm model that is, or is inside, the vision tower."""
        if self.family == "timm":
            return self.architecture or self.name.removeprefix(TIMM_PREFIX)
        found: str | None = self.config["vision_cfg"].get("timm_model_name")
        return found
