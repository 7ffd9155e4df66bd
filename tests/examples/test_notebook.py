"""The notebook runs from its first cell to its last, and every result shows itself."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import orjson

NOTEBOOK = Path(__file__).parents[2] / "examples" / "12_in_a_notebook.ipynb"


def shown(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; return what its last line is worth."""
    *before, last = ast.parse(source).body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_every_cell_shows_what_it_made() -> None:
    cells = orjson.loads(NOTEBOOK.read_bytes())["cells"]
    names: dict[str, Any] = {}
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    results = [shown(source, names) for source in sources]
    assert len(results) >= 6
    assert "xaikit-demo" in repr(results[0])
    pages = [result._repr_html_() for result in results[1:]]
    assert all("<" in page for page in pages)
    assert "48 images" in pages[0]
    assert pages[3].count("<tr>") == 9
    assert len(names["edges"]) == 12
    assert all(not cell.get("outputs") for cell in cells)
