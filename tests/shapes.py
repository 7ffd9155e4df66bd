"""Every jaxtyping annotation of the package, executed while the tests run.

The package names its types for readers and type checkers alone (``if TYPE_CHECKING``), so that it
starts quickly and its files may name each other. Importing this module has functions and records
whose annotations hold a shape check it at each call: the names are looked up at the first call,
when all modules are there, and beartype sees the shapes alone, so that a stand-in for a class will
do. The code with its checks is kept beside Python's own caches.

The tests' own process imports this first of all (``conftest.py``), and so does every process that
they start, by ``startup/``. ``XAIKIT_SHAPES=0 pytest`` leaves it out.
"""

from __future__ import annotations

import ast
import functools
import importlib.machinery
import inspect
import sys
import threading
import zlib
from importlib import _bootstrap_external as importing
from importlib.util import cache_from_source
from pathlib import Path
from types import CodeType
from typing import Any

_once = threading.RLock()
_VERSION = zlib.crc32(Path(__file__).read_bytes())


def install() -> None:
    """Check the modules that are imported from now on."""
    early = [name for name in sys.modules if name.startswith("xaikit.")]
    assert not early, f"imported before its shapes could be checked: {early}"
    sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds the package's modules with a loader of our own."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith("xaikit."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Puts a decorator on what has a shape."""

    def get_code(self, fullname: str) -> CodeType | None:
        # Python's own caches hold the plain code: ours lie beside them, under another name.
        before, importing.cache_from_source = importing.cache_from_source, _cache_of
        try:
            return super().get_code(fullname)
        finally:
            importing.cache_from_source = before

    def source_to_code(self, data: Any, path: Any, **given: Any) -> CodeType:  # type: ignore[override]
        tree = ast.parse(data, path)
        for node in ast.walk(tree):
            mark = ast.Name("__checked_shapes__", ast.Load())
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and _has_shape(node):
                ast.copy_location(mark, node)
                # Around a record once it is one, around a function before anything else.
                place = 0 if isinstance(node, ast.ClassDef) else len(node.decorator_list)
                node.decorator_list.insert(place, mark)
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    def exec_module(self, module: Any) -> None:
        module.__dict__["__checked_shapes__"] = _decorate
        super().exec_module(module)


def _cache_of(path: Any, *_: Any, **given: Any) -> str:
    """Where the code that checks is kept; it also depends on this file."""
    return cache_from_source(path, optimization=f"shapes{_VERSION:08x}")


@functools.cache
def _kinds() -> set[str]:
    """Names such as ``Float``, whose subscript is a shape."""
    import jaxtyping  # not before it is needed: commands that tests start are many

    return {name for name in dir(jaxtyping) if hasattr(getattr(jaxtyping, name), "dtypes")}


def _has_shape(node: ast.FunctionDef | ast.ClassDef) -> bool:
    if isinstance(node, ast.ClassDef):
        hints = [each.annotation for each in node.body if isinstance(each, ast.AnnAssign)]
        hints = hints if any("dataclass" in ast.unparse(d) for d in node.decorator_list) else []
    else:
        known = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        hints = [each.annotation for each in known if each.annotation] + [node.returns]
    return any(_is_shape(hint) for hint in hints if hint is not None)


def _is_shape(hint: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id in _kinds()
        for node in ast.walk(hint)
    )


def _decorate(found: Any) -> Any:
    if not inspect.isclass(found):
        return _lazily(found)
    found.__init__ = _lazily(found.__init__)
    return found


def _lazily(function: Any) -> Any:
    """The function, checked from its first call on."""
    made: list[Any] = []

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        if not made:
            with _once:  # images are decoded in threads
                made.append(_checked(function))
        return made[0](*args, **given)

    return call


@functools.cache
def _checked(function: Any) -> Any:
    import jaxtyping  # not before it is needed: commands that tests start are many
    from beartype import beartype

    names = function.__globals__
    _look_up_types(names)
    hints = {
        name: text
        for name, text in function.__annotations__.items()
        if isinstance(text, str) and _is_shape(ast.parse(text.strip(), mode="eval"))
    }
    function.__annotations__ = {name: eval(text, names) for name, text in hints.items()}
    return jaxtyping.jaxtyped(function, typechecker=beartype)


def _look_up_types(names: dict[str, Any]) -> None:
    """Run what the module imports for its types."""
    if "__types_known__" in names:
        return
    tree = ast.parse(inspect.getsource(sys.modules[names["__name__"]]))
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            code = ast.Module(list(node.body), [])
            known = dict(names)
            exec(compile(code, names["__file__"], "exec"), known)
            for name, value in known.items():
                names.setdefault(name, value)
    names["__types_known__"] = True


install()
