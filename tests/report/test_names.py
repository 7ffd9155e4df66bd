"""Words for clusters: what holds up on held-out images, and what does not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from report.made_parts import made_parts

from xaikit.errors import UsageError, XaikitError
from xaikit.images.scenes import SceneSource
from xaikit.report.page import factors, names
from xaikit.report.page.factors import known_factors
from xaikit.report.page.names import (
    DEMO_WORDS,
    Halves,
    Scores,
    best_words,
    correlations,
    counted,
    demo_prompts,
    model_of,
    passes,
    read_vocabulary,
    word_scores,
)
from xaikit.report.page.parts import LayerParts, read_run
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
    words.write_text("cat\n\n dog \ncat\n", encoding="utf-8-sig")
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
    known = known_factors(read_run(run_folder).layers[0], Pictures(read_run(run_folder).layers[0]))
    assert known is not None
    assert all(factor is None or -1 <= factor["heldout"] <= 1 for factor in known)
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


def test_a_word_holds_at_a_level_shared_among_the_clusters() -> None:
    """r = .4 over 40 images: p = .005, one-sided."""
    assert passes(0.4, 40, 9)
    assert not passes(0.4, 40, 11)


def test_a_word_must_beat_the_other_clusters_where_it_is_checked(rng: np.random.Generator) -> None:
    """It follows its own cluster where it was chosen, and any cluster where it is checked."""
    counts = rng.poisson(5.0, (200, 2)).astype(float)
    choose = np.stack([counts[:, 0], rng.standard_normal(200)], 1)
    both = rng.standard_normal(200)
    check = np.stack([both, both], 1) + 0.01 * rng.standard_normal((200, 2))
    check[:, 1] += 0.001 * both
    scores = Scores(["word", "other"], choose, np.stack([check[:, 1], both * 0 + 1], 1))
    found = best_words(counts, check, scores)[0]
    assert (found["word"], found["discovery"]) == ("word", pytest.approx(1.0))
    assert found["heldout"] > 0.9
    assert not found["holds"]


@pytest.fixture
def layer() -> LayerParts:
    return made_parts()


def test_a_model_of_other_weights_names_nothing(
    layer: LayerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    origin = layer.fit.provenance.origin
    tower = SimpleNamespace(weights_fingerprint=origin.weights_fingerprint)

    def loaded(*given: object, **more: object) -> object:
        asked.append((given, more))
        return tower

    monkeypatch.setattr(names, "load_tower", loaded)
    assert model_of(layer) is tower
    assert asked == [((origin.model, origin.pretrained), {"with_text": True})]
    tower.weights_fingerprint = "other"
    with pytest.raises(XaikitError, match="no longer those of the run"):
        model_of(layer)


def test_scores_are_less_their_mean_over_words_and_words_are_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = {at: torch.full((1, 2), float(at)) for at in range(20)}
    tower: Any = SimpleNamespace(
        text=None,
        info=SimpleNamespace(classes=3, model="made up"),
        device="cpu",
        outputs=lambda pixels: SimpleNamespace(class_logits=pixels @ torch.eye(2, 3)),
    )
    pictures: Any = SimpleNamespace(source="images", preprocess=None, place=lambda image: image)

    def batches(_source: object, _how: object, *, indices: list[int], **_: object) -> Any:
        return (SimpleNamespace(pixels=images[at]) for at in indices)

    monkeypatch.setattr(names, "iter_batches", batches)
    monkeypatch.setattr(names, "class_names", lambda _: ["cat", "dog\x1b[31m", "cow"])
    halves = Halves(list(range(10)), list(range(10, 18)))
    found = word_scores(tower, pictures, halves)
    assert found.words[0] == "cat"
    assert "\x1b" not in found.words[1]
    for part, half in ((found.choose, halves.choose), (found.check, halves.check)):
        raw = np.array([[at, at, 0.0] for at in half])
        np.testing.assert_allclose(part, raw - raw.mean(1, keepdims=True))
    with pytest.raises(XaikitError, match="fewer than 8 images in a half"):
        word_scores(tower, pictures, Halves(list(range(10)), list(range(7))))
    pictures.place = lambda image: None if image == 3 else image
    with pytest.raises(XaikitError, match="no longer there"):
        word_scores(tower, pictures, halves)


def test_known_factors_are_chosen_on_one_half_and_checked_on_the_other(
    layer: LayerParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Factor b is where cluster 1 is, in the half that chooses; nowhere in the other."""
    labels = layer.features.labels
    facts = {}
    halves = Halves.of(layer)
    for half, images in (("choose", halves.choose), ("check", halves.check)):
        patches = np.zeros((len(images), 4, 2), bool)
        patches[:, 0, 0] = True
        if half == "choose":
            patches[..., 1] = labels[images, 1:].numpy() == 1
        facts[tuple(images)] = (["a", "b"], patches.any(1), patches)
    monkeypatch.setattr(factors, "_facts", lambda _seed, scenes: facts[tuple(scenes)])
    pictures: Any = SimpleNamespace(source=SceneSource(1), place=lambda image: image)
    found = known_factors(layer, pictures)
    assert found is not None
    one = found[1]
    assert one is not None
    assert (one["patch"], one["f1"], one["f1_heldout"]) == ("b", pytest.approx(1.0), 0.0)
    chosen = correlations(counted(layer, halves.choose), facts[tuple(halves.choose)][1] * 1.0)
    assert one["name"] == "b"
    assert one["discovery"] == pytest.approx(chosen[1, 1])
    assert one["heldout"] == 0.0
    # Scenes that the source no longer has are left out, and nothing is said where none is left.
    asked: list[list[int]] = []

    def other_facts(_seed: int, scenes: list[int]) -> tuple[Any, ...]:
        asked.append(scenes)
        patches = np.zeros((len(scenes), 4, 2), bool)
        return ["a", "b"], patches.any(1), patches

    monkeypatch.setattr(factors, "_facts", other_facts)
    pictures.place = lambda image: None if image == halves.choose[0] else image + 100
    known_factors(layer, pictures)
    wanted = (halves.choose[1:], halves.check)
    assert asked == [[image + 100 for image in images] for images in wanted]
    pictures.place = lambda image: None
    assert known_factors(layer, pictures) is None
    half = factors._f1(np.array([True, True, False]), np.array([True, False, True]))
    assert half == pytest.approx(0.5)


def test_a_word_is_put_into_sentences_and_a_line_of_several_is_one_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[str]] = []

    def features(_tower: object, prompts: list[str]) -> torch.Tensor:
        asked.append(prompts)
        return torch.tensor([[3.0, 0.0], [0.0, 4.0]])

    monkeypatch.setattr(names, "text_features", features)
    tower: Any = None
    found = names._encoded(tower, "big red dog", demo=False)
    assert found.tolist() == pytest.approx([0.6, 0.8])
    names._encoded(tower, "a dog on grass", demo=False)
    assert [len(prompts) for prompts in asked] == [3, 1]
    assert asked[0][0] == "a photo of a big red dog."
    assert asked[1] == ["a dog on grass"]
