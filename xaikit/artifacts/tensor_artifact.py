"""How a record of tensors is written to safetensors, and read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from xaikit.artifacts.files import again, write_tensors
from xaikit.artifacts.records import Artifact, Provenance, identity_of, require_identity
from xaikit.artifacts.schema import require_schema
from xaikit.artifacts.stored import read_tensors
from xaikit.artifacts.tensor_schema import TensorSpec, require_tensors
from xaikit.artifacts.tensorfile import digests_of
from xaikit.errors import UsageError


@dataclass(kw_only=True)
class TensorArtifact(Artifact):
    """A record whose tensors go to safetensors and whose other fields go to its header."""

    STAGE: ClassVar[str]
    TENSORS: ClassVar[dict[str, TensorSpec]]

    def _tensors(self) -> dict[str, Tensor]:
        found = {name: getattr(self, name) for name in self.TENSORS}
        return {name: value for name, value in found.items() if value is not None}

    def _fields(self) -> dict[str, Any]:
        skip = {*self.TENSORS, *self.FILES, "provenance", "identity", "path"}
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skip}
        return {**self.provenance.fields(self.STAGE), **own}

    def identify(self) -> Self:
        """Set `identity`, see `identity_of`."""
        self._identify()
        return self

    def _identify(self) -> dict[str, list[str]]:
        digests = digests_of(self._tensors())
        self.identity = identity_of(self._fields(), self.FILES, digests)
        return digests

    def save(self, path: str | Path) -> None:
        """Write to `path`, aside and renamed."""
        target, digests = Path(path), self._identify()
        own = {**self._fields(), **self._written_files(target), "identity": self.identity}
        write_tensors(target, self._tensors(), own, digests)
        self.path = target

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from `path`.

        Raises
        ------
        UsageError
            Where the file is missing, damaged, or of another stage.
        """
        source = Path(path)
        header, tensors = read_tensors(source, cls.STAGE)
        found = header.fields
        require_schema(source, found, cls.STAGE, cls)
        require_identity(found, cls.FILES, source, header.digests)
        known = {f.name for f in fields(cls)} - {"provenance", "path", *cls.TENSORS}
        own: dict[str, Any] = {k: value for k, value in found.items() if k in known}
        own.update((key, tensors[key]) for key in cls.TENSORS if key in tensors)
        own |= {**cls._read_files(found, source), "path": source}
        require_tensors(source, cls.STAGE, cls.TENSORS, tensors, *cls._sizes(own))
        made = cls(provenance=Provenance.from_fields(found), **own)
        made._require_counts()
        return made

    @classmethod
    def _sizes(cls, fields: dict[str, Any]) -> tuple[dict[str, int], tuple[str, ...]]:
        """Sizes that the fields give, by letter, and what is not known, see `require_tensors`."""
        return {}, ()

    def _require_counts(self) -> None:
        """Refuse numbers that do not go together."""

    def _refuse(self, fault: str) -> None:
        raise UsageError(
            f"{self.path}: {fault}; it is no complete {self.STAGE} file: {again(self.STAGE)}"
        )
