"""Which tensors of a file are the model's: through wrappers in any nesting, to a fixed point."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

State = dict[str, Tensor]

WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
"""Parts of names that data-parallel, compiled and checkpointed modules put anywhere in them."""
_PREFERRED = ("ema", "averaged", "teacher")
_AVOIDED = ("student", "optim", "momentum")
_DEPTH = 24
_CONTAINERS = 100_000


@dataclass(frozen=True, kw_only=True)
class Found:
    """A state dict inside a file.

    Attributes
    ----------
    state : dict of Tensor
        Names without wrappers; still with the prefix that `split` finds.
    path : tuple of str
        Keys that lead to it, and the wrappers that were taken out of its names.
    """

    state: State
    path: tuple[str, ...]


def state_dicts(tree: Any) -> Iterator[Found]:
    """Every mapping of names to tensors in what a file holds; each container is visited once."""
    waiting: deque[tuple[Any, tuple[str, ...]]] = deque()
    if isinstance(tree, (Mapping, list, tuple)):
        waiting.append((tree, ()))
    seen: set[int] = set()
    while waiting and len(seen) < _CONTAINERS:
        content, path = waiting.popleft()
        if id(content) in seen or len(path) > _DEPTH:
            continue
        seen.add(id(content))
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        named = [(str(name), value) for name, value in items]
        tensors = {name: value for name, value in named if isinstance(value, Tensor)}
        if tensors:
            state, wrappers = without_wrappers(tensors)
            yield Found(state=state, path=(*path, *wrappers))
        waiting.extend(
            (value, (*path, name[:40]))
            for name, value in named
            if isinstance(value, (Mapping, list, tuple))
        )


def without_wrappers(state: Mapping[str, Tensor]) -> tuple[State, tuple[str, ...]]:
    """Take the names of wrapping modules out of all names; return which ones there were."""
    parts = {name: name.split(".") for name in state}
    wrappers = {part for each in parts.values() for part in each[:-1]} & WRAPPERS
    if not wrappers:
        return dict(state), ()
    clean = {
        name: ".".join([part for part in each[:-1] if part not in wrappers] + each[-1:])
        for name, each in parts.items()
    }
    if len(set(clean.values())) < len(clean):
        return dict(state), ()
    named = tuple(f"{wrapper}." for wrapper in sorted(wrappers))
    return {clean[name]: value for name, value in state.items()}, named


def prefixes(state: Collection[str], wanted: Collection[str]) -> list[tuple[str, int]]:
    """Prefixes that turn names of a module into names of a file, and how many names each turns.

    Returns
    -------
    list of (prefix, matches)
        Best first. Of equals, averages and teachers come before the rest, students last.
    """
    votes: Counter[str] = Counter()
    for name in state:
        if name.count(".") > _DEPTH:
            continue
        start = 0
        while True:
            if name[start:] in wanted:
                votes[name[:start]] += 1
            dot = name.find(".", start)
            if dot < 0:
                break
            start = dot + 1
    return sorted(votes.items(), key=lambda vote: (-vote[1], preference(vote[0]), len(vote[0])))


def preference(where: str) -> int:
    """Order among equals: averages and teachers, the rest, students and optimizers."""
    lower = where.lower()
    if any(word in lower for word in _PREFERRED):
        return 0
    return 2 if any(word in lower for word in _AVOIDED) else 1
