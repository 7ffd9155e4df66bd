"""An option that a command does not have: what it has in its place, and nothing far from it."""

from __future__ import annotations

import pytest
from command_line import run

from xaikit.cli.app import commands
from xaikit.cli.unknown import WRITE, instead


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["graph", "--out", "x"], "--out"),
        (["env", "--seed", "1"], "--seed"),
        (["trace", "--max-image", "1"], "--max-image: did you mean --max-images?"),
        (["report", "--no-name"], "--no-name: did you mean --no-names?"),
        (["fit", "--hlep"], "--hlep: did you mean --help?"),
        (["export", "--out", "x"], "--out: did you mean --parquet or --csv?"),
        (["run-all", "--out=x"], "--out: did you mean --out-dir?"),
        (["circuit", "--plot", "x"], "--plot: did you mean --heatmap-dir or --out?"),
        (["--colour"], "--colour"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_only_what_is_like_it_or_does_the_same_is_offered(arguments, said, capsys):
    assert run(*arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: No such option: {said} (see `")
    command = arguments[0] if len(arguments) > 1 else ""
    assert errors.endswith(f" {command} --help`)\n".replace("  ", " "))
    assert errors.count("\n") == 1


def test_every_option_of_another_command_is_answered_with_the_command_s_own():
    known = {
        entry.name: {name for each in command.params for name in each.opts if name[:2] == "--"}
        for entry, command in commands()
    }
    everywhere = set().union(*known.values())
    assert set(WRITE) <= everywhere
    for own in known.values():
        for name in everywhere - own:
            said = instead(name, sorted(own))
            offered = {word.rstrip("?") for word in said.split() if word.startswith("--")}
            assert offered <= own
            # What writes a file is not answered with what reads or hides one.
            assert name not in WRITE or offered <= set(WRITE)
            assert not {"--quiet", "--json", "--debug"} & offered
