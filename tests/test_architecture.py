"""Imports run down the floors of the house and never up."""

from __future__ import annotations

import ast
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
    """Modules of the package that run when the code does, those of types alone left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("xaikit."):
            yield str(node.module)
        if isinstance(node, ast.ImportFrom) and node.module == "xaikit":
            yield from (f"xaikit.{each.name}" for each in node.names)
        yield from imported(node)


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
