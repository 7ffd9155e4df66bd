"""Imports run down the floors of the house and never up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import xaikit

FLOORS = ["cli", "run", "stages", "rankings", "interventions", "passes", "report", "towers"]
FLOORS += ["images", "statistics", "artifacts"]
"""From the top; what is in none of them (demo, testing, errors, …) is the ground."""


def floor(module: str) -> int:
    part = module.split(".")[1]
    return FLOORS.index(part) if part in FLOORS else len(FLOORS)


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules of the package that a file imports, those for types alone included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xaikit."):
            yield str(node.module)
        if isinstance(node, ast.ImportFrom) and node.module == "xaikit":
            yield from (f"xaikit.{each.name}" for each in node.names)


def test_no_file_imports_from_a_floor_above_its_own():
    root = Path(xaikit.__file__).parent
    upward = []
    for path in root.glob("*/**/*.py"):
        own = ".".join(("xaikit", *path.relative_to(root).with_suffix("").parts))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        upward += [f"{own} imports {name}" for name in imported(tree) if floor(name) < floor(own)]
    assert not upward


def test_every_folder_of_the_package_has_a_floor_or_is_the_ground():
    root = Path(xaikit.__file__).parent
    folders = {path.parent.name for path in root.glob("*/__init__.py")}
    assert folders - set(FLOORS) == {"demo", "testing"}


def unexplained(source: str) -> list[str]:
    """Imports inside functions that no comment gives a reason for."""
    lines = source.splitlines()
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        inner = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
        places = {node.lineno for node in inner}
        for node in inner:
            first = node.lineno
            # One reason serves the imports that stand together.
            while first - 1 in places:
                first -= 1
            if not lines[first - 2].strip().startswith("#"):
                found.append(lines[node.lineno - 1].strip())
    return found


def test_imports_inside_functions_say_why_below_the_command_line():
    root = Path(xaikit.__file__).parent
    assert unexplained("def f():\n    x = 1\n    import torch\n") == ["import torch"]
    assert not unexplained("def f():\n    # Slow.\n    import a\n    import b\n")
    hidden = {
        str(path.relative_to(root)): found
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0] != "cli"
        and (found := unexplained(path.read_text(encoding="utf-8")))
    }
    assert not hidden


def flags_in_errors(source: str) -> list[str]:
    """Flags of the command line that an error names outside a whole command in backticks."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        words = (
            each.value
            for message in node.exc.args
            for each in ast.walk(message)
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        )
        text = re.sub(r"`[^`]*`", "", "".join(words))
        found += re.findall(r"--[a-z][a-z-]*", text)
    return found


def test_errors_below_the_command_line_speak_of_arguments():
    root = Path(xaikit.__file__).parent
    assert flags_in_errors('raise E(f"--rank {x}: run `xaikit fit --trace` first")') == ["--rank"]
    named = {
        str(path.relative_to(root)): flags
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0] != "cli"
        and (flags := flags_in_errors(path.read_text(encoding="utf-8")))
    }
    assert not named


def bound(module: str) -> set[str]:
    """Names at the top of one of the package's files, and the files of a folder."""
    path = Path(xaikit.__file__).parent.joinpath(*module.split(".")[1:])
    found = {each.stem for each in path.glob("*")}
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {each.asname or each.name for each in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_every_name_that_a_benchmark_imports_is_there():
    """Nobody runs benchmarks for weeks on end; a name that moved would be found out only then."""
    missing = []
    for path in (Path(__file__).parent / "benchmarks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xaikit."):
                known = bound(str(node.module))
                missing += [
                    f"{path.name} imports {each.name} from {node.module}"
                    for each in node.names
                    if each.name not in known
                ]
    assert not missing
