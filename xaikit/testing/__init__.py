"""Towers whose circuits are known, to test what claims to find them."""

from __future__ import annotations

from xaikit.testing.planted import Planted, PlantedFiles, planted_tower
from xaikit.testing.planted_images import PlantedImages
from xaikit.testing.planted_spec import ContentEdge, PlantedSpec, TokenEdge
from xaikit.testing.planted_truth import PlantedTruth
from xaikit.testing.recovery import joint_auroc, recovery_auroc

__all__ = [
    "ContentEdge",
    "Planted",
    "PlantedFiles",
    "PlantedImages",
    "PlantedSpec",
    "PlantedTruth",
    "TokenEdge",
    "joint_auroc",
    "planted_tower",
    "recovery_auroc",
]
