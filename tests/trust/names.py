"""Hostile names of files, folders, prompts and models: each is shown as nothing but itself."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from trust.kit import ended

from xaikit.cli import main
from xaikit.text import printable

_PIECES = (
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x9b2J",
    "\r",
    "\n",
    "\t",
    "\x08",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u200f",
    "\ufeff",
    "\u2028",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</title>",
    "</script>",
    "-->",
    "&lt;",
    '"',
    "'",
    "`",
    "${x}",
    "{{x}}",
    "{x}",
    "%s",
    "$x^2$",
    "$\\frac{1}{0}$",
    "$",
    "\\",
    "[bold red]",
    "[/]",
    ":smile:",
    "javascript:alert(1)",
    "猫",
    "é",
    "-rf",
    "=1+1",
    "a" * 120,
)
_GROUP = 25
_RUN_SECONDS = 60.0


def run(cases: int, seed: int) -> tuple[int, list[str]]:
    """Try so many names, up to 25 in a run: as files, as folders and as prompts, in turn."""
    rng, failures = random.Random(seed), []
    for at in range(0, cases, _GROUP):
        names = [_name(rng, i) for i in range(min(_GROUP, cases - at))]
        failures += _shown(names, what=("files", "folders", "prompts")[(at // _GROUP + seed) % 3])
    return cases, failures


def _name(rng: random.Random, number: int) -> str:
    pieces = rng.sample(_PIECES, rng.choice((1, 1, 2, 3)))
    return f"{number:02d}{''.join(pieces)}"


def _shown(names: list[str], what: str) -> list[str]:
    """What is wrong where a run and its report say these names, beside the same run of others."""
    plain = [f"{number:02d}plain" for number in range(len(names))]
    with tempfile.TemporaryDirectory() as folder:
        wild = _run(Path(folder) / "wild", names, what)
        tame = _run(Path(folder) / "tame", plain, what)
    if isinstance(wild, str) or isinstance(tame, str):
        return [f"{what} {names}: {wild if isinstance(wild, str) else tame}"]
    failures = [f"{what}: {words}" for words in wild.faults]
    if wild.structure != tame.structure:
        both = zip(wild.structure, tame.structure, strict=False)
        apart = next((pair for pair in both if pair[0] != pair[1]), "its length")
        failures.append(f"{what} {names}: the page has other elements: {apart}")
    return failures


class _Page(HTMLParser):
    """The elements of a page, with the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Any] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *(name for name, _ in attrs)))


class _Said:
    """What a run said and wrote."""

    def __init__(self, output: str, folder: Path) -> None:
        bad = [each for each in output if printable(each, keep="\n") != each]
        self.faults = [f"the terminal got {bad[0]!r}"] if bad else []
        page = _Page()
        page.feed((folder / "report.html").read_text(encoding="utf-8"))
        self.structure = page.found
        for path in folder.rglob("*.json"):
            json.loads(path.read_bytes())


def _run(folder: Path, names: list[str], what: str) -> _Said | str:
    folder.mkdir()
    arguments = ["run-all", "--pretrained", "random", "--target-layer", "1", "--num-clusters", "3"]
    arguments += ["--num-permutations", "9", "--top-k", "2", "--recipe", "seed"]
    arguments += ["--no-intervene", "--images", str(folder / "images"), "--holdout", "0.5"]
    arguments += ["--out-dir", str(folder / "run")]
    _pictures(folder / "images", names, what)
    if what == "prompts":
        words = folder / "words.txt"
        lines = [re.sub(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", " ", name) for name in names]
        words.write_text("\n".join(lines), encoding="utf-8")
    with _terminal() as said, _literal_pictures() as drawn:
        found = ended(lambda: _ends(arguments), seconds=_RUN_SECONDS)
        if not found.failure and what == "prompts":
            again = ["report", str(folder / "run"), "--vocabulary", str(folder / "words.txt")]
            found = ended(lambda: _ends(again), seconds=_RUN_SECONDS)
    if found.failure or found.value:
        return f"{found.failure or found.value}: {said.getvalue()[-300:]!r}"
    made = _Said(said.getvalue(), folder / "run")
    made.faults += drawn
    return made


def _pictures(folder: Path, names: list[str], what: str) -> None:
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        safe = name.replace("/", "∕").replace("\0", "")
        parts = {"files": (f"{safe}.png",), "folders": (safe[:150], "1.png")}
        path = folder.joinpath(*parts.get(what, (f"{number:02d}.png",)))
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        image.save(path)
        if what == "folders":
            image.save(path.with_name("2.png"))
        if number % 8 == 0:
            # One that cannot be used is named in a warning.
            path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")


def _ends(arguments: list[str]) -> str:
    try:
        main(arguments)
    except SystemExit as end:
        return "" if end.code in (0, None) else f"exit status {end.code}"
    return ""


@contextlib.contextmanager
def _terminal() -> Iterator[io.StringIO]:
    """Both streams of a terminal in one."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        yield text


@contextlib.contextmanager
def _literal_pictures() -> Iterator[list[str]]:
    """Names that a picture takes for mathematics."""
    from matplotlib.mathtext import MathTextParser

    found: list[str] = []
    real = MathTextParser.parse

    def parse(self: Any, text: str, *rest: Any, **more: Any) -> Any:
        if any(word in text for word in ("x^2", "frac")):
            found.append(f"a picture takes {text!r} for mathematics")
        return real(self, text, *rest, **more)

    MathTextParser.parse = parse
    try:
        yield found
    finally:
        MathTextParser.parse = real
