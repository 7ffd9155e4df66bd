"""The page of one image in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import run
from PIL import Image
from report.browser import opened
from report.test_page_in_browser import AXE, OVERLAPS

from xaikit.artifacts.explanation import Explanation
from xaikit.report.page.explained import Explained, write_explained
from xaikit.towers import load_tower

READY = "body[data-ready]"
HOSTILE = "</script><script>document.title='hacked'</script><img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def one_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of the demo model, of a picture whose name is markup."""
    picture = Image.effect_noise((90, 64), 60).convert("RGB")
    found = Explained.of(load_tower("xaikit-demo"), HOSTILE, picture)
    return write_explained(found, tmp_path_factory.mktemp("one") / "explain.html", command="x")


def shown(tab: Any) -> str:
    """The large map's pixels."""
    return str(tab.evaluate("document.getElementById('large').toDataURL()"))


def test_every_map_is_drawn_and_follows_mouse_keys_and_address(
    chromium: Any, one_image: Path
) -> None:
    with opened(chromium, one_image, ready=READY) as tab:
        assert tab.locator("#maps button").count() == 6 * 5
        assert "hacked" not in tab.title().replace(HOSTILE, "")
        assert tab.locator("img[src='x']").count() == 0
        assert "class token" in tab.inner_text("#large-says")
        before = shown(tab)
        tab.hover("#image-main", position={"x": 20, "y": 20})
        tab.wait_for_function("document.getElementById('token-says').textContent.includes('patch')")
        passing = tab.inner_text("#token-says")
        assert shown(tab) != before
        tab.mouse.move(2, 2)
        assert "class token" in tab.inner_text("#token-says")
        tab.click("#image-main", position={"x": 20, "y": 20})
        tab.mouse.move(2, 2)
        assert tab.inner_text("#token-says") == passing
        tab.keyboard.press("ArrowRight")
        assert tab.inner_text("#token-says") != passing
        tab.locator("#maps button").nth(12).click()
        said = tab.inner_text("#large-says")
        assert said.startswith("layer 2, head 1")
        tab.keyboard.press("ArrowDown")
        tab.keyboard.press("Enter")
        assert tab.inner_text("#large-says").startswith("layer 3, head 1")
        tab.select_option("#side", "query")
        assert "who attends to" in tab.inner_text("#large-says")
        tab.click("#token-prefix button")
        address, last = tab.url, tab.inner_text("#large-says")
        tab.click("#head-table th:nth-child(6) button")
        cells = tab.locator("#head-table tbody tr > :nth-child(6)").all_inner_texts()
        assert [float(c) for c in cells] == sorted((float(c) for c in cells), reverse=True)
    fragment = address[address.index("#") :]
    with opened(chromium, one_image, ready=READY, fragment=fragment) as tab:
        assert tab.inner_text("#large-says") == last


@pytest.fixture(scope="module")
def of_a_run(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of an image of the run, with its own circuit."""
    out = tmp_path_factory.mktemp("own") / "explain.html"
    few = ["--views", "2", "--draws", "2", "--edges", "1", "--edge-draws", "2"]
    few += ["--score-images", "2", "--shares", "0.1,1", "--no-names"]
    assert run("explain", "demo/0/000003", "--run", str(run_folder), "--out", str(out), *few) == 0
    return out


def test_a_run_adds_clusters_and_the_own_circuit(chromium: Any, of_a_run: Path) -> None:
    made = Explanation.load(of_a_run.with_suffix(".json"))
    with opened(chromium, of_a_run, ready=READY) as tab:
        assert tab.locator("#run-clusters li").count() == len(set(made.labels[0]))
        rows = tab.locator("#run-edges tbody tr")
        assert rows.count() == len(made.edges)
        assert tab.locator("#run-curves svg").count() == 2
        first = made.edges[0]
        assert "e-" in rows.first.inner_text() or "e+" in rows.first.inner_text()
        rows.first.focus()
        tab.keyboard.press("Enter")
        assert "query tokens (blue)" in tab.inner_text("#run-says")
        assert tab.inner_text("#large-says").startswith(
            f"layer {first.next_layer}, head {first.head}"
        )
        tab.select_option("#run-list", "common")
        assert rows.count() == len(made.common_edges)
        effects = tab.locator("#curve-table tbody tr").count()
        assert effects >= 4
        assert "of what doing so everywhere does" in tab.inner_text("#answer")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_page_is_accessible_and_fits(
    chromium: Any, of_a_run: Path, scheme: str, width: int
) -> None:
    with opened(chromium, of_a_run, ready=READY, scheme=scheme, width=width) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(OVERLAPS.read_text(encoding="utf-8")) == []
        tab.evaluate(AXE.read_text(encoding="utf-8"))
        found = tab.evaluate("async () => (await axe.run()).violations")
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
