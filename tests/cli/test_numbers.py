"""Every numeric option of every command refuses what is no number of its range, by its name."""

from __future__ import annotations

from typing import Any

import pytest
from command_line import run

from xaikit.cli import commands

WRONG = ("-1", str(2**67), "nan", "1e999", "many")
TEXT = {"mean", "std", "memory", "shares", "band_shares", "resize", "max_images"}
"""Numeric options that are read from text, wherever they are numbers at all."""


def is_numeric(param: Any) -> bool:
    kind = getattr(param, "bare_type", None) or getattr(param, "type", None)
    name = str(getattr(kind, "name", None) or getattr(kind, "__name__", ""))
    return name in ("int", "float", "integer", "float range", "integer range") or (
        param.name in TEXT
    )


CASES = [
    (entry.name, param.opts[0])
    for entry, command in commands()
    for param in command.params
    if param.opts[0].startswith("--") and is_numeric(param)
]


def test_the_numeric_options_are_found() -> None:
    known = set(CASES)
    assert {("trace", "--batch-size"), ("cluster", "--seed"), ("fit", "--null-block")} <= known
    assert {("circuit", "--max-qvalue"), ("run-all", "--memory"), ("trace", "--mean")} <= known
    assert len(CASES) > 60


@pytest.mark.parametrize(("command", "flag"), CASES)
def test_what_is_no_number_of_the_range_is_named(command, flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for value in WRONG:
        assert run(command, flag, value) == 2, value
        errors = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
        assert len(errors) == 1
        assert flag in errors[0]
    assert not list(tmp_path.iterdir())
