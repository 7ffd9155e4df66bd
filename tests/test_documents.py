"""Every command of README, CONTRIBUTING and the examples is one that exists, with its flags.

What is short runs here or in `examples/test_examples.py`; what downloads or takes long is parsed by
the parser that would run it, so that a flag that disappears is found.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from xaikit.cli.app import load_command

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md"]
SCRIPTS = sorted(path for path in (ROOT / "examples").iterdir() if path.is_file())
# What a block of shell may begin with beside commands of ours: these are what CI installs with.
_OTHERS = ("python3 -m venv", ".venv/bin/pip", ".venv/bin/pre-commit", ".venv/bin/pytest")
_OTHERS += (".venv/bin/ruff", ".venv/bin/mypy")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def lines(text: str) -> list[str]:
    """Single commands, with continued lines joined and comments left out."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [
        part.strip()
        for line in joined.splitlines()
        for part in re.split(r"&&", line.partition(" #")[0])
        if part.strip()
    ]


def shown(path: Path) -> list[str]:
    """Commands that a file shows or holds: ours, and its examples'."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        inline = re.findall(r"`((?:xaikit|python examples/)[^`\n]*)`", text)
        return [line for block in blocks(path, "sh") for line in lines(block)] + inline
    text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    starts = r"^\s*((?:xaikit |python examples/|bash examples/|torchrun )[^\n]*)"
    joined = re.sub(r"\\\n\s*", " ", text)
    # Words of explanation stand apart from a command by several spaces.
    return [re.split(r"\s{3,}| &$", each)[0] for each in re.findall(starts, joined, re.MULTILINE)]


COMMANDS = sorted({command for path in [*DOCUMENTS, *SCRIPTS] for command in shown(path)})


def ours(words: list[str]) -> list[str] | None:
    """What follows `xaikit` in a command, however it is started."""
    names = [Path(word).name for word in words]
    return words[names.index("xaikit") + 1 :] if "xaikit" in names else None


def parsed(arguments: list[str]) -> None:
    """Parse a command as the command line would, and run nothing."""
    name, *rest = arguments
    command = load_command(name)
    values = {"model": "ViT-B-16", "XAIKIT_OPTIONS": "--quiet"}
    given = [re.sub(r"\$\{?(\w+)\S*", lambda found: values.get(found[1], "x"), w) for w in rest]
    # Text names a command by its name alone.
    if given:
        command.make_context(name, [word for word in given if word not in ("$@", "…", "...")])


@pytest.mark.parametrize("command", [each for each in COMMANDS if ours(shlex.split(each))])
def test_commands_parse(command: str) -> None:
    arguments = ours(shlex.split(command))
    assert arguments
    parsed(arguments)


@pytest.mark.parametrize("command", [each for each in COMMANDS if "examples/" in each])
def test_commands_of_examples_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    at = next(i for i, word in enumerate(words) if "examples/" in word)
    script = ROOT / words[at]
    assert script.exists()
    if script.suffix != ".py" or "argparse" not in script.read_text(encoding="utf-8"):
        # They take positions alone, and run in `examples/test_examples.py`.
        assert not any(word.startswith("--") for word in words[at + 1 :]) or script.suffix == ".sh"
        return

    class Parsed(Exception):  # noqa: N818
        pass

    real = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *given: object) -> None:
        real(self, *given)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", [str(script), *words[at + 1 :]])
    with pytest.raises(Parsed):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_of_shell_hold_nothing_that_is_not_tried(path: Path) -> None:
    for block in blocks(path, "sh"):
        for line in lines(block):
            words = shlex.split(line)
            assert ours(words) is not None or line.startswith(_OTHERS), line


def test_python_of_the_readme_runs() -> None:
    (block,) = blocks(DOCUMENTS[0], "python")
    assert "max_images=256" in block
    found: dict[str, object] = {}
    exec(block.replace("max_images=256", "max_images=16"), found)
    assert found["circuit"].paths  # type: ignore[attr-defined]


def test_the_readme_s_test_command_is_what_ci_runs() -> None:
    (command,) = (line for line in blocks(DOCUMENTS[0], "sh") if "pytest" in line)
    assert command.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
