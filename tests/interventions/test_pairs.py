"""Files of image pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from xaikit.errors import UsageError
from xaikit.interventions.pairs import read_pairs, write_pairs


class Names:
    ids = ("a.png", "cats/b.png", "cats/c.png")


def read(tmp_path: Path, name: str, text: str) -> dict[str, str]:
    path = tmp_path / name
    path.write_text(text)
    return read_pairs(path, Names())  # type: ignore[arg-type]


def test_pairs_are_ids_or_paths_in_csv_or_json(tmp_path: Path) -> None:
    expected = {"a.png": "cats/b.png", "cats/c.png": "a.png"}
    plain = "image,partner\na.png,cats/b.png\n\n/data/photos/cats/c.png , ./a.png\n"
    assert read(tmp_path, "pairs.csv", plain) == expected
    assert read(tmp_path, "b.csv", "a.png,cats/b.png\ncats/c.png,a.png") == expected
    listed = '[["a.png", "cats/b.png"], ["x/cats/c.png", "a.png"]]'
    assert read(tmp_path, "pairs.json", listed) == expected
    assert read(tmp_path, "o.json", '{"a.png": "cats/b.png", "cats/c.png": "a.png"}') == expected


def test_what_was_written_reads_back(tmp_path: Path) -> None:
    pairs = {"a.png": "cats/b.png", "cats/b.png": "a.png"}
    write_pairs(tmp_path / "pairs.csv", pairs)
    assert read_pairs(tmp_path / "pairs.csv", Names()) == pairs  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("p.csv", "a.png", "line 1: expected two"),
        ("p.csv", "a.png,", "line 1: expected two"),
        ("p.csv", "a.png,b.png", r"line 1: b\.png is none of the 3 images"),
        ("p.csv", "a.png,a.png", r"a\.png is its own partner"),
        ("p.csv", "a.png,cats/b.png\na.png,cats/c.png", "line 2: .* has a partner already"),
        ("p.csv", "image,partner\n", "no pair in it"),
        ("p.json", "{", "not valid JSON"),
        ("p.json", "3", "expected a list of pairs"),
        ("p.json", "[[1, 2]]", "pair 1: expected two"),
    ],
)
def test_what_is_no_pair_is_refused_by_line(
    tmp_path: Path, name: str, text: str, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        read(tmp_path, name, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv`: No such file"):
        read_pairs(tmp_path / "none.csv", Names())  # type: ignore[arg-type]
