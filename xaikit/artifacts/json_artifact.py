"""How a record is written as JSON, and read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from xaikit.artifacts.files import read_json, write_json
from xaikit.artifacts.records import Artifact, Provenance, identity_of, require_identity
from xaikit.artifacts.schema import require_schema

ONLY_WHERE_KNOWN = ("layer", "next_layer", "effect", "side")
"""Keys that records have in circuits of several layers, or of an objective with a sign."""


def _record_fields(record: Any) -> dict[str, Any]:
    found = asdict(record)
    return {k: v for k, v in found.items() if v is not None or k not in ONLY_WHERE_KNOWN}


@dataclass(kw_only=True)
class JsonArtifact(Artifact):
    """A record that is written as JSON; its fields follow the shared provenance."""

    STAGE: ClassVar[str]
    RECORDS: ClassVar[dict[str, type]] = {}

    def to_dict(self) -> dict[str, Any]:
        """The artefact as it is written."""
        own = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in {"provenance", "identity", "path", *self.RECORDS}
        }
        for name in self.RECORDS:
            own[name] = [_record_fields(record) for record in getattr(self, name)]
        shared = self.provenance.fields(self.STAGE)
        return {**shared, "identity": self.identity, **own}

    def identify(self) -> Self:
        """Set `identity`, see `identity_of`."""
        self.identity = identity_of(self.to_dict(), self.FILES)
        return self

    def save(self, path: str | Path) -> None:
        """Write to `path`, aside and renamed."""
        target = Path(path)
        own = self.identify().to_dict()
        write_json(target, {**own, **self._written_files(target)})
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
        found = read_json(source, cls.STAGE)
        require_schema(source, found, cls.STAGE, cls)
        require_identity(found, cls.FILES, source)
        own = {f.name: found[f.name] for f in fields(cls) if f.name in found}
        for name, record in cls.RECORDS.items():
            known = {f.name for f in fields(record)}
            own[name] = [
                record(**{k: v for k, v in entry.items() if k in known}) for entry in found[name]
            ]
        own |= {**cls._read_files(found, source), "path": source}
        return cls(provenance=Provenance.from_fields(found), **own)
