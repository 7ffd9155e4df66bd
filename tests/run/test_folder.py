"""When a folder's result is taken, and when it is made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xaikit.errors import UsageError
from xaikit.run.reuse import Folder, Request


class Thing:
    """An artefact of one word."""

    def __init__(self, identity: str, heatmaps: tuple[Path, ...] = ()) -> None:
        self.identity, self.heatmaps, self.path = identity, heatmaps, None

    def save(self, path: Path) -> None:
        """Write the word."""
        path.write_text(self.identity)

    @classmethod
    def load(cls, path: Path) -> Thing:
        """Read the word."""
        if not path.exists():
            raise UsageError("no thing")
        return cls(path.read_text())


REQUEST = Request(stage="thing", revision=3, inputs={"parent": "p"}, options={"a": 1})


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with two results, the first of which lists two pictures."""
    root = tmp_path / "run"
    (root / "heatmaps").mkdir(parents=True)
    pictures = tuple(root / "heatmaps" / name for name in ("a.png", "b.png"))
    for picture in pictures:
        picture.write_text("")
    folder = Folder(root)
    folder.keep("one", Thing("first", pictures), REQUEST)
    folder.keep("two", Thing("second"), replace(REQUEST, stage="other"))
    return root


def reused(root: Path, request: Request = REQUEST, force: bool = False) -> bool:
    """Whether the first result of a folder is taken, and the second beside it always is."""
    assert Folder(root).find("two", Thing, replace(REQUEST, stage="other")).identity == "second"
    folder = Folder(root, force)
    found = folder.find("one", Thing, request)
    assert folder.reused == ([] if found is None else [request.stage])
    return found is not None


def test_a_result_is_taken_where_all_behind_it_is_the_same(kept: Path) -> None:
    assert reused(kept)
    assert reused(kept, replace(REQUEST, options={"a": 1}))
    assert reused(kept.rename(kept.with_name("moved")))


@pytest.mark.parametrize(
    "other",
    [
        {"stage": "x"},
        {"revision": 4},
        {"inputs": {}},
        {"inputs": {"parent": "q"}},
        {"inputs": {"parent": "p", "labels": ""}},
        {"options": {}},
        {"options": {"a": 2}},
        {"options": {"a": 1, "b": None}},
    ],
    ids=str,
)
def test_any_other_request_makes_a_result_again(kept: Path, other: dict[str, Any]) -> None:
    assert not reused(kept, replace(REQUEST, **other))


@pytest.mark.parametrize("name", ["one", "heatmaps/a.png", "heatmaps/b.png"])
def test_a_result_and_each_file_that_it_lists_must_be_there(kept: Path, name: str) -> None:
    (kept / name).unlink()
    assert not reused(kept)


def test_another_result_in_its_place_and_force_make_it_again(kept: Path) -> None:
    assert not reused(kept, force=True)
    (kept / "one").write_text("of another run")
    assert not reused(kept)


def test_another_format_of_files_is_another_request(monkeypatch: pytest.MonkeyPatch) -> None:
    before = REQUEST.key()
    monkeypatch.setattr("xaikit.run.reuse.FORMAT_VERSION", 99)
    assert REQUEST.key() != before
