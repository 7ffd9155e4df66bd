"""What `import xaikit` offers."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import xaikit


@pytest.mark.parametrize("name", xaikit.__all__)
def test_every_name_is_there_and_documented(name):
    found = getattr(xaikit, name)
    assert inspect.getdoc(found)
    assert name in dir(xaikit)


def test_what_a_public_function_takes_is_public_too():
    for name in xaikit.__all__:
        found = getattr(xaikit, name)
        if not inspect.isfunction(found):
            continue
        taken = str(inspect.signature(found).parameters.get("options", ""))
        for word in taken.replace("|", " ").replace("'", " ").split():
            if word.endswith("Options"):
                assert word in xaikit.__all__


def test_importing_loads_nothing_heavy(monkeypatch):
    monkeypatch.setenv("XAIKIT_SHAPES", "0")  # what checks shapes is heavy itself
    script = (
        "import sys, xaikit\n"
        "print([m for m in ('torch', 'numpy', 'rich', 'typer', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
