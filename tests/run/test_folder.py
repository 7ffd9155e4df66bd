"""When a folder's result is taken, and when it is made again."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from xaikit.artifacts.files import FORMAT_VERSION, fingerprint, read_json, write_json
from xaikit.errors import UsageError, XaikitWarning
from xaikit.report.plain_figures import blank, save_as
from xaikit.run.reuse import MANIFEST, STAGE, Folder, Request, require_none_of_others


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
        {"inputs": {"labels": "p"}},
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


def test_each_file_that_a_result_lists_must_hold_what_it_held(kept: Path) -> None:
    picture = kept / "heatmaps" / "b.png"
    picture.write_text("cut short")
    assert not reused(kept)
    picture.unlink()
    picture.mkdir()
    assert not reused(kept)


def test_another_result_in_its_place_and_force_make_it_again(kept: Path) -> None:
    assert not reused(kept, force=True)
    (kept / "one").write_text("of another run")
    assert not reused(kept)


def test_another_format_of_files_is_another_request(monkeypatch: pytest.MonkeyPatch) -> None:
    before = REQUEST.key()
    monkeypatch.setattr("xaikit.run.reuse.FORMAT_VERSION", 99)
    assert REQUEST.key() != before


def test_what_was_made_elsewhere_is_saved_here_and_what_is_here_is_not_written_again(
    tmp_path: Path,
) -> None:
    for place, written in ((tmp_path / "elsewhere", "word"), (tmp_path / "one", "as it was made")):
        made: Any = Thing("word")
        made.path = place
        (tmp_path / "one").write_text("as it was made")
        Folder(tmp_path).keep("one", made, REQUEST)
        assert (tmp_path / "one").read_text() == written


def test_the_manifest_says_what_is_behind_each_result_by_names_that_may_be_moved(
    kept: Path,
) -> None:
    results = read_json(kept / MANIFEST, STAGE)["results"]
    assert set(results) == {"one", "two"}
    assert results["one"] == {
        "key": REQUEST.key(),
        "identity": "first",
        "stage": "thing",
        "revision": 3,
        "inputs": {"parent": "p"},
        "options": {"a": 1},
        "files": ["heatmaps/a.png", "heatmaps/b.png"],
        "file_digests": [fingerprint(b""), fingerprint(b"")],
    }


def test_a_stage_that_runs_is_timed_and_one_that_is_reused_is_not(kept: Path) -> None:
    folder = Folder(kept)
    assert folder.make("one", Thing, REQUEST, lambda: pytest.fail("was made")).identity == "first"
    assert (folder.reused, folder.seconds) == (["thing"], {})
    made = folder.make("three", Thing, replace(REQUEST, stage="new"), lambda: Thing("third"))
    assert made.identity == "third"
    assert (folder.reused, list(folder.seconds)) == (["thing"], ["new"])
    assert (kept / "three").read_text() == "third"


@pytest.mark.parametrize("name", ["manifest.json", "circuit.json", "fit.safetensors"])
def test_a_file_of_a_result_s_name_that_something_else_wrote_is_not_written_over(
    kept: Path, name: str
) -> None:
    require_none_of_others(kept)
    require_none_of_others(kept / "none")
    path = kept / name
    for foreign in (True, False):
        if path.suffix == ".json":
            path.write_text('{"name": "a web page", "icons": []}' if foreign else '{"stage": "ci')
        else:
            save_file({"a": torch.zeros(1)}, path, {} if foreign else {"stage": '"fit"'})
        if foreign:
            with pytest.raises(UsageError, match=f"{name} was not written by xaikit"):
                require_none_of_others(kept)
        else:
            require_none_of_others(kept)


@pytest.mark.parametrize("name", ["overview.png", "heatmaps/head_0.png", "report.html"])
def test_pictures_and_pages_that_something_else_made_are_not_written_over(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".png":
        save_as(blank(1.0, 1.0), path, 10)
        own = path.read_bytes()
        Image.new("RGB", (2, 2)).save(path)
    else:
        own = (files("xaikit.report") / "assets" / "page.html.j2").read_bytes()
        path.write_text("<!doctype html><title>My report</title>")
    with pytest.raises(UsageError, match=f"{name} was not written by xaikit"):
        require_none_of_others(tmp_path)
    for content in (own, own[: len(own) // 2] if path.suffix == ".html" else own[:20]):
        path.write_bytes(content)
        require_none_of_others(tmp_path)


def test_a_damaged_manifest_makes_all_again_and_says_so(kept: Path) -> None:
    for fields in ({}, {"results": {"one": {"key": 3}}}):
        shared = {"stage": STAGE, "format_version": FORMAT_VERSION}
        write_json(kept / MANIFEST, {**shared, **fields})
        with pytest.warns(XaikitWarning, match="every result in .* is made again"):
            assert Folder(kept).find("one", Thing, REQUEST) is None


def test_only_a_result_that_is_there_and_cannot_be_read_is_worth_a_word(
    kept: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (kept / "one").unlink()
    assert Folder(kept).find("one", Thing, REQUEST) is None
    assert not recwarn.list
    (kept / "one").mkdir()

    class Broken(Thing):
        @classmethod
        def load(cls, path: Path) -> Thing:
            raise UsageError("it is damaged")

    with pytest.warns(XaikitWarning, match="one is made again: it is damaged"):
        assert Folder(kept).find("one", Broken, REQUEST) is None
