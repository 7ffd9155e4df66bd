"""A study is printed as a table, as Markdown or as JSON, by one process."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest

from xaikit.cli.console import Session
from xaikit.cli.outputs import show_study
from xaikit.report.studies import Sheet

SHEET = Sheet(title="of a\x1b[31m model", columns=["<name", "R²"], rows=[["one", "0.5"]])
PAGE = "of a\\x1b[31m model\n\n| name | R² |\n| --- | ---: |\n| one | 0.5 |\n"


@pytest.mark.parametrize("markdown", [False, True])
def test_a_study_is_saved_and_printed_as_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], markdown: bool
) -> None:
    result: Any = Some(save=lambda path: path.write_text("saved"), to_dict=lambda: {"rows": [1]})
    out = tmp_path / "x.json"
    show_study(Session(), result, SHEET, out, markdown)
    assert out.read_text() == "saved"
    said = capsys.readouterr().out
    if markdown:
        assert said.rstrip("\n") == PAGE.rstrip("\n")
    else:
        assert [line.split() for line in said.splitlines()][1:] == [
            ["name", "R²"],
            ["one", "0.5"],
            ["→", str(out)],
        ]
    show_study(Session(), result, SHEET, None, markdown)
    assert "→" not in capsys.readouterr().out
    show_study(Session(json=True), result, SHEET, None, markdown)
    assert json.loads(capsys.readouterr().out) == {"rows": [1]}


def test_another_process_prints_no_page(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("xaikit.launcher.launched", lambda: (1, 2))
    result: Any = Some(to_dict=dict)
    show_study(Session(), result, SHEET, None, True)
    assert capsys.readouterr().out == ""
