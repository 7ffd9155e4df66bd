"""The artefact of circuits for groups of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from xaikit.artifacts.json_artifact import JsonArtifact


@dataclass(kw_only=True)
class GroupCircuits(JsonArtifact):
    """A circuit for each group of images, beside the common one.

    Attributes
    ----------
    rank : str
    groups : list of dict
        By group: `name` (untrusted text), `images` and `test_images` (how many), `full_effect`,
        `paths` (records as in a circuit: the group's own first edges), `specific_paths` (those
        that matter more to the group than to the others) and `figures`: for each `ranking`
        (``own``, ``specific``, ``common``, ``random``) and `share`, of the group's entries, that
        is removed: the mean `effect` on the group's test images, `fraction` of the full effect,
        and `others`: the mean over the other groups of what the same edges do to their images,
        `others_share` of whose entries they cover.
    left_out : list of str
        Groups without an image to choose on or one to test on.
    layers : list of [int, int]
        Target and next layer of each layer.
    objective : dict
    metric : str
        What effects are of.
    heldout : bool
        Whether the images of the figures chose nothing.
    """

    STAGE: ClassVar[str] = "groups"

    rank: str
    groups: list[dict[str, Any]]
    left_out: list[str] = field(default_factory=list)
    layers: list[list[int]] = field(default_factory=list)
    objective: dict[str, Any] = field(default_factory=dict)
    metric: str = "cosine"
    ablation: str = "mean"
    destination: str = "cluster"
    heldout: bool = False
