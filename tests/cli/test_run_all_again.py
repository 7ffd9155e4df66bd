"""The command that a run's record keeps gives the run's options again, whatever they were."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run

import xaikit.cli.run_all as cli
import xaikit.run.run_all as runs
from xaikit.artifacts.inputs import FormatOptions, ImageOptions, ModelOptions, PreprocessOptions
from xaikit.artifacts.options import Flag, flags, value_of
from xaikit.cli.app import load_command
from xaikit.run.options import Options

RECORDS = (Options, ModelOptions, ImageOptions, FormatOptions, PreprocessOptions)
HOSTILE = "a b'\"$(x)`y`\\;é \x1b[31m\u202e-\n"
OWN = {"target_layer": "0,2", "next_attn_layer": "3", "control": "random-weights"}
"""Options of `run-all` that stand in no record."""
NO_RESULT = {"help", "json", "quiet", "debug", "plan", "force", "out_dir"}
"""Flags that change no result, or say where it is put."""


def options() -> Iterator[tuple[Flag, list[str]]]:
    """Each option of the records, and words that give it another value."""
    for kind in RECORDS:
        settled = kind().settled() if kind is Options else kind()
        for flag in flags(kind):
            yield flag, other(value_of(settled, flag), flag)


def other(default: Any, flag: Flag) -> list[str]:
    """Words that give an option another value than its default."""
    known, name = flag.option, flag.option.flag or "--" + flag.name.replace("_", "-")
    if flag.name == "against":
        # A direction starts somewhere.
        return ["--toward", HOSTILE, name, HOSTILE]
    if known.choices:
        return [name, next(each for each in known.choices if each != default)]
    if flag.hint in (bool, "bool", bool | None):
        return [f"--no-{name[2:]}" if default else name]
    if known.parse is not None:
        read = [each for each in ("auto", "3", "0.1,0.2,0.3") if _reads(known.parse, each)]
        return [name, next(each for each in read if known.parse(each) != default)]
    if flag.hint in (int, int | None):
        return [name, str((default or 0) + max(2, int(known.least or 0)))]
    if flag.hint in (float, float | None):
        return [name, "0.125"]
    return [name, HOSTILE]


def _reads(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


class Asked:
    """What `run-all` made of its words, in place of a run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
        self.found: dict[str, Any] = {}
        self.command, self.out, self.text = "", str(out), False
        monkeypatch.setattr(cli, "open_source", self.source)
        monkeypatch.setattr(cli, "open_tower", self.tower)
        monkeypatch.setattr(cli, "warn_left_out", lambda *_: None)
        monkeypatch.setattr(runs, "run_all", self.run)

    def source(self, images: Any, model: Any, **more: Any) -> None:
        self.found |= {"images": images, "model": model, **more}

    def tower(
        self, model: Any, form: Any, preprocess: Any = None, with_text: bool = False, **_: Any
    ) -> Any:
        self.text = with_text
        self.found.setdefault("towers", []).append((model, form, preprocess))

        class Tower:
            class info:  # noqa: N801
                layers = 6

        return Tower

    def run(self, tower: Any, source: Any, *, options: Options, command: str, **more: Any) -> list:
        kept = {name: more[name] for name in ("layers", "next_attn_layer")}
        self.found |= {"options": options.settled(), "controlled": bool(more["control"]), **kept}
        self.command = command
        return []

    def __call__(self, words: list[str]) -> dict[str, Any]:
        self.found = {}
        assert run("run-all", *words, "--out-dir", self.out) == 0
        return self.found


def words_of(line: str) -> list[str]:
    """A line as a shell takes it apart."""
    script = f"printf '%s\\0' {line}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


def test_every_option_of_a_run_is_given_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = Asked(monkeypatch, tmp_path)
    plain = asked([])
    assert asked.command == "xaikit run-all"
    cases = {flag.name: words for flag, words in options()}
    cases |= {name: [f"--{name.replace('_', '-')}", value] for name, value in OWN.items()}
    # None is forgotten: neither one of a record nor one of the command's own.
    assert set(cases) == {each.name for each in load_command("run-all").params} - NO_RESULT
    for name, words in cases.items():
        found = asked(words)
        assert found != plain, f"{words} changes nothing"
        again = words_of(asked.command)
        assert again == ["xaikit", "run-all", *words], name
        assert asked(again[2:]) == found


def test_all_options_together_and_what_changes_no_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = Asked(monkeypatch, tmp_path)
    # There is no model of such a name.
    monkeypatch.setattr(cli, "wants_text", lambda *_: False)
    # An objective of its own and a direction exclude each other.
    words = [word for flag, given in options() if flag.name != "objective" for word in given]
    found = asked([*words, "--force", "--quiet", "--json"])
    again = words_of(asked.command)[2:]
    assert asked(again) == found
    assert not {"--force", "--quiet", "--json", "--out-dir"} & set(again)


CLIP, TIMM = ["--model", "ViT-B-32"], ["--model", "timm/vit_tiny_patch16_224"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (CLIP, False),
        ([*CLIP, "--toward", "a cat"], True),
        ([*CLIP, "--toward", "a cat", "--no-intervene"], True),
        ([*CLIP, "--labels", "prompts.txt"], True),
        ([*CLIP, "--labels", "prompts.txt", "--no-intervene"], False),
        ([*CLIP, "--labels", "prompts.txt", "--objective", "margin", "--no-intervene"], True),
        ([*TIMM, "--toward", "goldfish"], False),
        (["--no-intervene"], False),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, list) else "",
)
def test_the_text_tower_is_loaded_where_prompts_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], text: bool
) -> None:
    asked = Asked(monkeypatch, tmp_path)
    asked(words)
    assert asked.text is text
