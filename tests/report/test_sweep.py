"""The curve of ``--num-clusters auto`` on the page and in the terminal."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from xaikit.artifacts.studies import ClusterSweep
from xaikit.artifacts.tensors import Fit
from xaikit.report.page import write_report
from xaikit.report.page.sweep import sweep_figure
from xaikit.report.studies import sweep_sheet


def made(folder: Path, chosen: int) -> ClusterSweep:
    fit = Fit.load(folder / "fit.safetensors")
    rows = [
        {"num_clusters": number, "r2_added": added, "r2_added_se": 0.01}
        for number, added in ((4, 0.1), (chosen, 0.19), (64, 0.2))
    ]
    return ClusterSweep(
        provenance=fit.provenance,
        method="guided",
        prefix="own",
        destination="cluster",
        num_clusters=chosen,
        folds=4,
        num_images=12,
        layers=[[fit.layer, fit.next_layer]],
        rows=rows,
    ).identify()


def test_higher_values_are_higher_up_and_the_chosen_one_is_marked(run_folder: Path) -> None:
    sweep = made(run_folder, 8)
    figure = sweep_figure(sweep)
    assert figure is not None
    heights = [point["y"] for point in figure["points"]]
    assert heights == sorted(heights, reverse=True)
    assert all(point["top"] < point["y"] < point["bottom"] for point in figure["points"])
    assert [point["chosen"] for point in figure["points"]] == [False, True, False]
    assert [row[2] for row in sweep_sheet(sweep).rows] == ["", "chosen", ""]
    assert sweep_figure(None) is None


def test_the_page_shows_the_curve_of_its_own_clusters_alone(
    run_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run_folder, tmp_path / "copy"))
    own = len(Fit.load(folder / "fit.safetensors").counts)
    sweep = made(folder, own)
    sweep.save(folder / "num_clusters.json")
    text = write_report(folder).read_text(encoding="utf-8")
    assert f'<th scope="row">{own} (chosen)</th>' in text
    assert "12 discovery images" in text
    replace(sweep, num_clusters=own + 1, path=None).save(folder / "num_clusters.json")
    assert "(chosen)" not in write_report(folder).read_text(encoding="utf-8")
