"""Words for clusters: what holds up on held-out images, and what does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import run

from xaikit.errors import UsageError
from xaikit.report.page.factors import known_factors
from xaikit.report.page.names import (
    DEMO_WORDS,
    Halves,
    Scores,
    best_words,
    demo_prompts,
    passes,
    read_vocabulary,
)
from xaikit.report.page.parts import read_run
from xaikit.report.page.pictures import Pictures


def planted(rng: np.random.Generator, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of four clusters, and scores of six words: word k follows cluster k for k < 2."""
    counts = rng.poisson(5.0, (images, 4)).astype(float)
    counts[:, 3] = 7.0
    scores = rng.standard_normal((images, 6))
    scores[:, :2] += counts[:, :2]
    return counts, scores


def test_planted_words_are_found_and_noise_is_not_named(rng: np.random.Generator) -> None:
    words = ["zero", "one", "a", "b", "c", "d"]
    named = 0
    for _ in range(50):
        choose, scores = planted(rng, 100)
        check, scores_check = planted(rng, 100)
        found = best_words(choose, check, Scores(words, scores, scores_check))
        assert [each["word"] for each in found[:2]] == ["zero", "one"]
        assert all(each["holds"] for each in found[:2])
        assert found[3] is None
        named += found[2]["holds"]
    assert named <= 3


def test_a_word_of_every_cluster_names_none(rng: np.random.Generator) -> None:
    shared = rng.standard_normal((80, 1))
    counts = shared + 0.01 * rng.standard_normal((80, 3))
    scores = np.hstack([shared, rng.standard_normal((80, 1))])
    found = best_words(counts, counts, Scores(["all", "none"], scores, scores))
    assert sum(each["holds"] for each in found if each["word"] == "all") < 3


def test_few_images_cannot_check() -> None:
    assert not passes(0.9, 3, 4)
    assert not passes(0.3, 20, 16)
    assert passes(0.8, 30, 16)


def test_words_are_checked_on_images_that_chose_none() -> None:
    def halves(labels: int, **split: list[int]) -> Halves:
        features = SimpleNamespace(labels=range(labels), **split)
        return Halves.of(SimpleNamespace(features=features))  # type: ignore[arg-type]

    held = halves(9, discovery=[0, 3, 5, 8], heldout=[1, 2, 4])
    assert (held.choose, held.check) == ([0, 3, 5, 8], [1, 2, 4])
    every = halves(7, discovery=list(range(7)), heldout=[])
    assert (every.choose, every.check) == ([0, 2, 4, 6], [1, 3, 5])


def test_vocabularies(tmp_path: Path) -> None:
    assert len(read_vocabulary(None)) > 200
    words = tmp_path / "words.txt"
    words.write_text("cat\n\n dog \ncat\n")
    assert read_vocabulary(words) == ["cat", "dog"]
    words.write_text("cat\n")
    with pytest.raises(UsageError, match="`vocabulary="):
        read_vocabulary(words)
    words.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a text file"):
        read_vocabulary(words)


def test_every_word_of_the_demo_has_prompts() -> None:
    for word in DEMO_WORDS:
        assert all(word in prompt for prompt in demo_prompts(word))


def test_cards_say_both_figures_and_the_known_factor(page: Path, run_folder: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("held out") > 6
    factors = known_factors(
        read_run(run_folder).layers[0], Pictures(read_run(run_folder).layers[0])
    )
    assert factors is not None
    assert all(factor is None or -1 <= factor["heldout"] <= 1 for factor in factors)
    # A single image chooses nothing that others could check.
    pictures = Pictures(read_run(run_folder).layers[0])
    alone = SimpleNamespace(features=SimpleNamespace(labels=[0], heldout=[]))
    assert known_factors(alone, pictures) is None  # type: ignore[arg-type]


def test_a_wrong_vocabulary_is_one_line(run_folder: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.txt")
    out = str(tmp_path / "page.html")
    assert run("report", str(run_folder), "--out", out, "--vocabulary", missing) == 2
    assert not (tmp_path / "page.html").exists()


def test_without_names_the_model_is_not_run(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert run("report", str(run_folder), "--out", str(out), "--no-names") == 0
    assert "No words are given: they were not asked for" in out.read_text(encoding="utf-8")
