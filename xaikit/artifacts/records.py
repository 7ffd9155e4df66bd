"""What every artefact says of where it came from, and how parts are matched."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from xaikit.artifacts.display import Shown
from xaikit.artifacts.files import FORMAT_VERSION, fingerprint
from xaikit.errors import UsageError
from xaikit.version import xaikit_version


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The model and the images behind an artefact.

    Attributes
    ----------
    model, pretrained : str
        As passed to ``--model`` and ``--pretrained``.
    weights_fingerprint : str
        Hash of the vision tower's weights.
    images_fingerprint : str
        Hash of the ordered list of image ids.
    """

    model: str
    pretrained: str
    weights_fingerprint: str
    images_fingerprint: str

    def key(self) -> str:
        """One hash of model weights and images: equal for artefacts that belong together."""
        return fingerprint(self.weights_fingerprint, self.images_fingerprint)


@dataclass(kw_only=True)
class Provenance:
    """Header fields that all artefacts share.

    Attributes
    ----------
    origin : Origin
    layer, next_layer : int
        The FFN's layer and the attention's layer, from 0.
    options : dict
        Options that made the artefact.
    parents : dict
        Identity of each artefact it was made from, by stage.
    """

    origin: Origin
    layer: int
    next_layer: int
    options: dict[str, Any] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)

    def fields(self, stage: str) -> dict[str, Any]:
        """Header fields, flat, as they are written."""
        return {
            "stage": stage,
            "format_version": FORMAT_VERSION,
            "xaikit_version": xaikit_version(),
            **asdict(self.origin),
            "layer": self.layer,
            "next_layer": self.next_layer,
            "options": self.options,
            "parents": self.parents,
        }

    @classmethod
    def from_fields(cls, fields: dict[str, Any], path: object) -> Provenance:
        """Read the shared fields of a header or a JSON artefact."""
        try:
            origin = Origin(
                **{
                    name: fields[name]
                    for name in ("model", "pretrained", "weights_fingerprint", "images_fingerprint")
                }
            )
            return cls(
                origin=origin,
                layer=int(fields["layer"]),
                next_layer=int(fields["next_layer"]),
                options=fields["options"],
                parents=fields["parents"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path} lacks the field {error}; it was not written by xaikit"
            ) from None

    def child(self, options: dict[str, Any], **parents: str) -> Provenance:
        """Provenance of an artefact made from this one."""
        return Provenance(
            origin=self.origin,
            layer=self.layer,
            next_layer=self.next_layer,
            options=options,
            parents={**self.parents, **parents},
        )


class OfTwoLayers(Shown):
    """What every artefact says of its layers."""

    provenance: Provenance

    @property
    def layer(self) -> int:
        """The layer whose FFN was read."""
        return self.provenance.layer

    @property
    def next_layer(self) -> int:
        """The layer whose attention was read."""
        return self.provenance.next_layer


def require_parent(child: Any, stage: str, parent: Any, *, child_name: str) -> None:
    """Refuse parts that do not belong together, such as features of another trace.

    Raises
    ------
    UsageError
        Naming both and what to do.
    """
    expected = child.provenance.parents.get(stage)
    if expected != parent.identity:
        raise UsageError(
            f"the {child_name} file was not made from this {stage} file "
            f"({child_name} of {stage} {expected}, given {stage} {parent.identity}): "
            f"pass the {stage} it was made from, or make the {child_name} again"
        )
