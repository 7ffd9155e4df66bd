"""Every numeric option of every command refuses what is no number of its range, by its name."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest
from command_line import run

from xaikit.cli.app import commands

WRONG = ("-1", str(2**67), "nan", "1e999", "many")
TEXT = {"mean", "std", "memory", "shares", "band_shares", "resize", "max_images"}
"""Numeric options that are read from text, wherever they are numbers at all."""


def numeric(command: Any) -> list[str]:
    """Python names of the options that are numbers."""
    signature = inspect.signature(inspect.unwrap(command.callback))
    found = []
    for name, each in signature.parameters.items():
        hint = get_args(each.annotation)[0] if get_args(each.annotation) else each.annotation
        kinds = {hint, *get_args(hint)}
        if kinds & {int, float} or name in TEXT:
            found.append(name)
    return found


CASES = [
    (entry.name, param.opts[0])
    for entry, command in commands()
    for param in command.params
    if param.opts[0].startswith("--") and param.name in numeric(command)
]


def test_the_numeric_options_are_found() -> None:
    known = set(CASES)
    assert {("trace", "--batch-size"), ("cluster", "--seed"), ("fit", "--null-block")} <= known
    assert {("circuit", "--max-qvalue"), ("run-all", "--memory"), ("trace", "--mean")} <= known
    assert len(CASES) > 60


@pytest.mark.parametrize(("command", "flag"), CASES)
def test_what_is_no_number_of_the_range_is_named(command, flag, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    needed = {"pairs": ["demo"], "explain": ["1.png"]}.get(command, [])
    for value in WRONG:
        assert run(command, *needed, flag, value) == 2, value
        errors = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
        assert len(errors) == 1
        assert flag in errors[0]
    assert not list(tmp_path.iterdir())
