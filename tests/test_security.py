"""What `.github/SECURITY.md` says of code in files and of the network."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xaikit

ROOT = Path(__file__).parents[1]
PACKAGE = Path(xaikit.__file__).parent
SOURCES = [*PACKAGE.rglob("*.py"), *(ROOT / "examples").glob("*.py")]
UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUNNING = {"eval", "exec", "compile", "__import__"}


def faults(code: str) -> list[str]:
    """What in a source unpickles, or runs text as code."""
    tree, found = ast.parse(code), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLING:
            found.append(f"line {node.lineno} imports from {node.module}")
        if isinstance(node, ast.Import):
            # Its errors may be caught: `import pickle` alone is looked at by its uses.
            bad = [each.name for each in node.names if each.name in UNPICKLING - {"pickle"}]
            bad += [each.name for each in node.names if each.name == "pickle" and each.asname]
            found += [f"line {node.lineno} imports {name}" for name in bad]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            named = f"{node.value.id}.{node.attr}"
            if node.value.id == "pickle" and node.attr != "UnpicklingError":
                found.append(f"line {node.lineno} uses {named}")
            if named in ("os.system", "os.popen", "torch.hub", "jit.load", "builtins.eval"):
                found.append(f"line {node.lineno} uses {named}")
        if isinstance(node, ast.Call):
            found += [f"line {node.lineno} {words}" for words in called(node)]
    return found


def called(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    given = {each.arg: ast.unparse(each.value) for each in node.keywords}
    found = []
    if name in RUNNING:
        found.append(f"calls {name}")
    if name == "torch.load" and given.get("weights_only") != "True":
        found.append("loads without weights_only")
    if given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
        found.append(f"calls {name} with a shell or with pickles")
    if given.get("trust_remote_code", "False") != "False":
        found.append(f"calls {name} with code from elsewhere")
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle\npickle.loads(x)",
        "from pickle import loads",
        "import pickle as p",
        "import joblib",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "torch.load(p, weights_only=safe)",
        "eval(x)",
        "exec(x)",
        "numpy.load(p, allow_pickle=True)",
        "subprocess.run(x, shell=True)",
        "load_dataset(x, trust_remote_code=True)",
        "os.system(x)",
    ],
)
def test_the_check_finds_what_it_is_for(code: str) -> None:
    assert faults(code)


def test_nothing_is_unpickled_and_no_text_is_run_as_code() -> None:
    assert len(SOURCES) > 150
    found = {str(path): faults(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: each for path, each in found.items() if each} == {}


def test_no_import_asks_the_network() -> None:
    script = (
        "import importlib, pkgutil, sys\n"
        "def heard(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.addaudithook(heard)\n"
        "import xaikit\n"
        "names = [m.name for m in pkgutil.walk_packages(xaikit.__path__, 'xaikit.')]\n"
        "for name in names:\n"
        "    if not name.endswith('__main__'):\n"
        "        importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 100


def test_actions_are_pinned_by_digest_with_their_version() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))
        assert used
        for each in used:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), each
