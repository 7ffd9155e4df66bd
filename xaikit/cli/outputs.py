"""What the studies print: one sheet, as a table, as Markdown or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xaikit.artifacts.json_artifact import JsonArtifact
    from xaikit.cli.console import Session
    from xaikit.report.studies import Sheet


def show_study(
    session: Session, result: JsonArtifact, sheet: Sheet, out: Path | None, markdown: bool
) -> None:
    """Write a study where that was asked for, and print it."""
    if out is not None:
        result.save(out)
    if markdown:
        session.result(result.to_dict(), sheet.markdown())
        return
    lines: list[Any] = [sheet.rich()]
    session.result(result.to_dict(), *lines, *([f"→ {out}"] if out is not None else []))
