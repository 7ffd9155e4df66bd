"""The page as a file: what it says of a run, and what it makes of a broken one."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import orjson
import pytest
import torch
from command_line import run
from PIL import Image
from report.made_run import add_live

from xaikit.artifacts.files import write_json
from xaikit.artifacts.results import Causal, Circuit, Intervention, TargetCausal
from xaikit.artifacts.studies import Stability
from xaikit.artifacts.tensors import Features, Fit
from xaikit.errors import UsageError
from xaikit.report.page import Naming, static, write_report
from xaikit.report.page.answer import found
from xaikit.report.page.clusters import cluster_cards
from xaikit.report.page.doubts import doubts
from xaikit.report.page.edges import edge_rows
from xaikit.report.page.parts import read_run
from xaikit.report.page.pictures import Pictures
from xaikit.report.page.provenance import command, provenance
from xaikit.report.page.shell import coded, embedded_json
from xaikit.report.page.testable import testable as has_test


def copied(folder: Path, out: Path) -> Path:
    return Path(shutil.copytree(folder, out / "copy"))


def test_one_file_that_may_load_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text) < 10_000_000
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r"""(?:src|href)=["']?(?:https?:|//)""", text)


def test_command_writes_where_it_is_told(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "page.html"
    assert run("report", str(run_folder), "--out", str(out), "--json") == 0
    said = orjson.loads(capsys.readouterr().out)
    assert said == {"report": str(out), "bytes": out.stat().st_size}


def test_a_page_of_somebody_else_is_not_written_over(run_folder: Path, tmp_path: Path) -> None:
    folder = copied(run_folder, tmp_path)
    own = write_report(folder)
    write_report(folder)
    own.write_text("<!doctype html><title>My report</title>")
    with pytest.raises(UsageError, match="was not written by xaikit"):
        write_report(folder)
    assert "My report" in own.read_text()


def test_says_what_is_wrong_with_the_run(page: Path, run_folder: Path, tmp_path: Path) -> None:
    assert "Only 24 images" in page.read_text(encoding="utf-8")
    folder = copied(run_folder, tmp_path)
    (folder / "causal.json").unlink()
    (folder / "intervene.json").unlink()
    text = write_report(folder).read_text(encoding="utf-8")
    assert "the live model was not asked" in text.lower()
    assert "causal.json" in text


def resave(folder: Path, features: Features) -> None:
    """Save changed features, and let all that follows say that it is of them."""
    features.save(folder / "features.safetensors")
    made = Fit.load(folder / "fit.safetensors")
    made.provenance.parents["features"] = features.identity
    made.save(folder / "fit.safetensors")
    kinds = {"circuit": Circuit, "causal": Causal, "target_causal": TargetCausal}
    for name, kind in {**kinds, "intervene": Intervention}.items():
        part = kind.load(folder / f"{name}.json")
        part.provenance.parents["fit"] = made.identity
        part.save(folder / f"{name}.json")


def test_without_the_trace_images_come_from_the_record(run_folder: Path, tmp_path: Path) -> None:
    folder = copied(run_folder, tmp_path)
    (folder / "trace.safetensors").unlink()
    features = Features.load(folder / "features.safetensors")
    features.trace_file = "gone"
    resave(folder, features)
    text = write_report(folder).read_text(encoding="utf-8")
    assert '<span class="tile' in text
    assert '"logits":null' in text
    features.recorded = {}
    resave(folder, features)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "No image is shown: the run keeps no record of its images" in text
    assert '<span class="tile' not in text


def test_images_that_are_gone_are_said_in_one_line(run_folder: Path, tmp_path: Path) -> None:
    folder = copied(run_folder, tmp_path)
    (folder / "trace.safetensors").unlink()
    features = Features.load(folder / "features.safetensors")
    features.trace_file = "gone"
    features.recorded["source"] = {"kind": "folder", "root": str(tmp_path / "no <b> photos")}
    resave(folder, features)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "the images cannot be opened again" in text
    assert "no &lt;b&gt; photos" in text
    assert '<span class="tile' not in text


def test_figures_for_print_are_svg_and_png(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert static.DPI == 300
    monkeypatch.setattr(static, "DPI", 100)
    run_parts = read_run(run_folder)
    (parts,) = run_parts.layers
    parts.fit = replace(parts.fit, contrast=parts.fit.contrast[:, :1])
    written = {path.name: path for path in static.write_figures(run_parts, tmp_path / "figures")}
    stems = ("curves", "overview", "graph", "calibration", "head_0")
    assert set(written) == {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")}
    for stem in stems:
        assert "<svg" in written[f"{stem}.svg"].read_text(encoding="utf-8")
        with Image.open(written[f"{stem}.png"]) as picture:
            assert picture.info["dpi"] == pytest.approx((100, 100), abs=1)
            assert picture.width >= 360


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        read_run(tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        read_run(tmp_path / "none")
    assert run("report", str(tmp_path)) == 2


def test_folders_of_an_earlier_run_are_not_shown(layers_folder: Path, tmp_path: Path) -> None:
    folder = copied(layers_folder, tmp_path)
    assert [parts.layer for parts in read_run(folder).layers] == [2, 3]
    record = orjson.loads((folder / "run.json").read_bytes())
    del record["digest"]
    write_json(folder / "run.json", {**record, "folders": ["layer_3"]})
    assert [parts.layer for parts in read_run(folder).layers] == [3]


def test_what_an_earlier_run_left_at_the_root_is_not_taken_for_that_of_all_layers(
    layers_folder: Path, run_folder: Path, tmp_path: Path
) -> None:
    folder = copied(layers_folder, tmp_path)
    whole = Circuit.load(folder / "circuit.json").identity
    for name, left in (("intervene.json", [whole, None]), ("circuit.json", [None, None])):
        shutil.copy(run_folder / name, folder / name)
        parts = read_run(folder)
        assert [each and each.identity for each in (parts.circuit, parts.intervention)] == left
    assert parts.graph is not None


def test_parts_of_another_run_are_refused(run_folder: Path, tmp_path: Path) -> None:
    folder = copied(run_folder, tmp_path)
    path = folder / "circuit.json"
    circuit = Circuit.load(path)
    circuit.provenance.parents["fit"] = "another"
    circuit.save(path)
    with pytest.raises(UsageError, match="made from another"):
        read_run(folder)


def test_clusters_of_another_fit_are_refused(run_folder: Path, tmp_path: Path) -> None:
    folder = copied(run_folder, tmp_path)
    features = Features.load(folder / "features.safetensors")
    features.labels = features.labels.flip(0)
    features.save(folder / "features.safetensors")
    with pytest.raises(UsageError, match="not of the same run"):
        read_run(folder)


def test_what_the_live_model_did_for_an_earlier_fit_is_not_shown(
    run_folder: Path, tmp_path: Path
) -> None:
    """A later run with --no-intervene leaves it in the folder."""
    folder = copied(run_folder, tmp_path)
    live = Intervention.load(folder / "intervene.json")
    live.provenance.parents["fit"] = "an earlier one"
    live.save(folder / "intervene.json")
    (folder / "overview.png").write_bytes(b"")
    (parts,) = read_run(folder).layers
    assert (parts.intervention, parts.overview) == (None, None)


def test_what_a_whole_circuit_does_is_said_of_no_other(run_folder: Path, tmp_path: Path) -> None:
    """The circuit alone was ranked again by hand."""
    folder = copied(run_folder, tmp_path)
    circuit = Circuit.load(folder / "circuit.json")
    live = Intervention.load(folder / "intervene.json")
    shares = dict.fromkeys(("share", "removed", "kept", "completeness", "faithfulness"), 0.5)
    live.completeness = {
        "edges": 1,
        "random_mean": None,
        "random_high": None,
        "pvalue": 1.0,
        **shares,
    }
    for of, there in ((circuit.identity, True), ("another", False)):
        live.provenance.parents["circuit"] = of
        live.save(folder / "intervene.json")
        run_parts = read_run(folder)
        (parts,) = run_parts.layers
        assert parts.intervention is not None
        assert bool(parts.intervention.completeness) == there
        assert any("listed circuit does as a whole" in what for what in run_parts.missing) != there


def test_a_trace_and_studies_of_other_images_are_not_the_run_s(
    run_folder: Path, tmp_path: Path
) -> None:
    folder = copied(run_folder, tmp_path)
    run_parts = read_run(folder)
    (parts,) = run_parts.layers
    assert parts.trace is not None
    provenance = parts.features.provenance
    shared = {"rank": "weight", "top_k": 1, "seeds": 1, "resamples": 1, "holdout": 0.0, "seed": 0}
    counts = {"num_images": 1, "num_test_images": 1, "rows": []}
    for images, there in ((provenance.origin.images_fingerprint, True), ("others", False)):
        origin = replace(provenance.origin, images_fingerprint=images)
        study = Stability(provenance=replace(provenance, origin=origin), **shared, **counts)
        study.save(folder / "stability.json")
        assert (read_run(folder).stability is not None) == there
    parts.features.provenance.parents["trace"] = "another"
    resave(folder, parts.features)
    assert read_run(folder).layers[0].trace is None


@pytest.mark.parametrize("text", ["{", "[]", '{"stage": "fit"}'])
def test_a_damaged_part_is_one_line(run_folder: Path, tmp_path: Path, text: str) -> None:
    folder = copied(run_folder, tmp_path)
    (folder / "circuit.json").write_text(text)
    assert run("report", str(folder)) == 2


def test_an_edge_without_variance_is_not_testable() -> None:
    assert not has_test(0.0, 1.0)
    assert not has_test(None, None)
    assert not has_test(float("nan"), float("nan"))
    assert has_test(0.0, 0.99)
    assert has_test(2.0, 0.05)


def test_what_was_measured_of_all_layers_together_is_asked_of_no_layer_again(
    layers_folder: Path,
) -> None:
    run = read_run(layers_folder)
    for parts in run.layers:
        parts.intervention = None
    said = [doubt.text for doubt in doubts(run, Pictures(run.layers[0]))]
    assert (
        "Every layer: the live model was asked of all layers together, and not of each alone."
        in said
    )
    assert any(
        text.startswith("All layers together: effects in the running model") for text in said
    )
    run.intervention = None
    said = [doubt.text for doubt in doubts(run, Pictures(run.layers[0]))]
    assert "Every layer: the live model was not asked: run `xaikit intervene`." in said


def test_too_few_random_sets_are_no_evidence_against_a_circuit(run_folder: Path) -> None:
    run = read_run(run_folder)
    (parts,) = run.layers
    assert parts.intervention is not None
    whole = {"edges": 9, "share": 0.01, "removed": 0.4, "kept": 0.1, "pvalue": 0.2}
    for high, level, text in (
        (0.1, "caution", "more than random edges of like cover, of which too few sets"),
        (0.5, "serious", "no more than random edges of like cover (2.0%, p = 0.200)"),
    ):
        parts.intervention.completeness = {**whole, "random_mean": 0.02, "random_high": high}
        said = [doubt for doubt in doubts(run, Pictures(parts)) if text in doubt.text]
        assert [doubt.level for doubt in said] == [level]
    parts.intervention.objective = {"kind": "toward", "toward": "red"}
    assert not any("like cover" in doubt.text for doubt in doubts(run, Pictures(parts)))


def test_says_how_to_check_the_clusters(run_folder: Path, layers_folder: Path) -> None:
    for folder, trace in ((run_folder, ""), (layers_folder, "layer_2/")):
        run = read_run(folder)
        features = run.layers[0].features
        rest = (
            f" --method {features.method} --prefix {features.prefix} "
            f"--num-clusters {features.num_clusters} --out stability.json` in the run's folder"
        )
        command = f"`xaikit stability --trace {trace}trace.safetensors{rest}."
        assert any(command in doubt.text for doubt in doubts(run, Pictures(run.layers[0])))
        for parts in run.layers:
            parts.trace = None
        command = f"`xaikit stability --target-layer {features.layer}{rest}, with the run's model"
        assert any(command in doubt.text for doubt in doubts(run, Pictures(run.layers[0])))


def test_an_edge_that_is_more_than_its_places_and_less_than_others_says_both(
    run_folder: Path,
) -> None:
    run = read_run(run_folder)
    (parts,) = run.layers
    assert parts.circuit is not None
    first = replace(parts.circuit.paths[0], zscore=3.0, pvalue=0.01, contrast=-1.0)
    parts.circuit = replace(parts.circuit, paths=[first])
    assert "than its places alone explain, though less than other tokens do" in found(run, {})[0]
    parts.circuit = replace(parts.circuit, paths=[replace(first, contrast=1.0)])
    assert "though" not in found(run, {})[0]


def test_a_cluster_that_never_moves_may_have_edges_with_a_test(run_folder: Path) -> None:
    (parts,) = read_run(run_folder).layers
    parts.features.labels[:] = parts.features.labels[0]
    alone = "sits at the same tokens in every image"
    for z, notes in ((2.0, alone), (0.0, f"{alone}: its edges cannot be tested")):
        parts.fit.edge_zscores[:], parts.fit.edge_pvalues[:] = z, 1.0
        cards = cluster_cards(parts, Pictures(parts))
        assert all(notes in card["notes"] for card in cards)


def test_untestable_edges_are_counted_and_named(run_folder: Path, tmp_path: Path) -> None:
    folder = copied(run_folder, tmp_path)
    fit = Fit.load(folder / "fit.safetensors")
    fit.edge_zscores[0], fit.edge_pvalues[0] = 0.0, 1.0
    fit.save(folder / "fit.safetensors")
    circuit = Circuit.load(folder / "circuit.json")
    circuit.paths[0] = replace(circuit.paths[0], zscore=0.0, pvalue=1.0, qvalue=1.0)
    circuit.provenance.parents["fit"] = fit.identity
    circuit.save(folder / "circuit.json")
    for name in ("causal.json", "target_causal.json"):
        (folder / name).unlink()
    add_live(folder)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "are not testable" in text
    data = orjson.loads(text.split('id="data" type="application/json">')[1].split("</script>")[0])
    assert data["edges"][0]["q"] is None
    assert torch.isfinite(fit.edge_qvalues).all()


def test_data_cannot_leave_its_element() -> None:
    text = embedded_json({"a": "</script><script>", "b": "<!--", "c": float("nan"), "d": "&amp;"})
    assert not set("<>&") & set(text)
    assert orjson.loads(text) == {"a": "</script><script>", "b": "<!--", "c": None, "d": "&amp;"}


def test_several_layers_in_one_page(layers_page: Path) -> None:
    text = layers_page.read_text(encoding="utf-8")
    assert "circuits of layers 2, 3" in text
    assert 'data-cluster="2.0"' in text
    assert 'data-cluster="3.0"' in text


def test_run_all_ends_with_the_page(run_folder: Path) -> None:
    assert (run_folder / "report.html").exists()


def test_a_failed_page_does_not_fail_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UsageError("cannot write report.html: disk full")

    monkeypatch.setattr("xaikit.report.page.write_report", fail)
    arguments = ["--max-images", "8", "--num-clusters", "2", "--num-permutations", "5"]
    assert run("run-all", *arguments, "--no-intervene", "--out-dir", str(tmp_path), "--json") == 0
    said = capsys.readouterr()
    assert "no report was written: cannot write report.html: disk full" in said.err
    assert orjson.loads(said.out)["report"] is None


def test_text_in_backticks_is_code_and_escaped() -> None:
    spans = "<span>a</span> <span>&lt;b&gt;</span>"
    assert coded("run `a <b>` & go") == f"run <code>{spans}</code> &amp; go"
    assert coded("one ` alone <i>") == "one ` alone &lt;i&gt;"


def test_edges_of_all_layers_together_come_first(layers_folder: Path, tmp_path: Path) -> None:
    folder = copied(layers_folder, tmp_path)
    circuits = [Circuit.load(folder / f"layer_{layer}" / "circuit.json") for layer in (2, 3)]
    last = [
        replace(c.paths[-1], layer=c.layer, next_layer=c.next_layer, effect=0.1, side="for")
        for c in circuits
    ]
    joint = replace(circuits[0], paths=last[::-1], rank="reach", layers=[[2, 3], [3, 4]])
    parents = {f"fit_{each.fit.layer}": each.fit.identity for each in read_run(folder).layers}
    joint.provenance = replace(joint.provenance, parents=parents)
    joint.save(folder / "circuit.json")
    rows = edge_rows(read_run(folder))
    assert [row["layer"] for row in rows[:2]] == [3, 2]
    assert [(row["cluster"], row["head"]) for row in rows[:2]] == [e.key[:2] for e in last[::-1]]
    assert len(rows) == sum(len(c.paths) for c in circuits)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    text = write_report(folder).read_text(encoding="utf-8")
    assert "circuits of layers 2, 3" in text


def test_the_command_of_a_run_is_the_one_that_was_typed(
    layers_folder: Path, tmp_path: Path
) -> None:
    words = shlex.split(command(read_run(layers_folder)))
    assert words[:2] == ["xaikit", "run-all"]
    assert words[-2:] == ["--out-dir", str(layers_folder)]
    assert "--no-intervene" in words
    # Of several options of one name the last counts.
    assert {"--target-layer": "2,3", "--destination": "cluster"}.items() <= dict(
        pairwise(words)
    ).items()
    folder = copied(layers_folder, tmp_path)
    (folder / "run.json").unlink()
    text = write_report(folder, naming=Naming(wanted=False)).read_text(encoding="utf-8")
    assert "No single command made this run" in text
    assert 'id="command"' not in text


def test_what_is_of_all_layers_together_has_its_origin_too(layers_folder: Path) -> None:
    found = read_run(layers_folder)
    said = provenance(found, None)
    of_all = [(row["stage"], row["identity"]) for row in said["stages"] if row["layer"] == "all"]
    assert found.circuit is not None
    assert found.intervention is not None
    assert of_all == [
        ("circuit", found.circuit.identity),
        ("intervene", found.intervention.identity),
    ]
    assert {"circuit.json", "graph.json", "layer_2/fit.safetensors"} <= {
        row["name"] for row in said["files"]
    }
