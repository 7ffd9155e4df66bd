"""The page in a real browser: offline, without an error, and everything a reader may do."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import networkx as nx
import orjson
import pytest
from PIL import Image
from report.browser import opened
from report.made_run import HOSTILE, TOWARD

from xaikit.report.live import at_share

HERE = Path(__file__).parent
AXE, OVERLAPS = HERE / "axe" / "axe.min.js", HERE / "overlaps.js"


def numbers(tab: Any, column: int) -> list[float]:
    cells = tab.locator(f"#edge-table tbody tr > :nth-child({column})").all_inner_texts()
    return [float(cell.replace("−", "-").replace("+", "")) for cell in cells]


def download(tab: Any, selector: str, folder: Path) -> Path:
    with tab.expect_download() as waiting:
        tab.click(selector)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_opens_without_network_and_shows_every_section(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        titles = tab.locator("main > section > h2, main > section > h1").all_inner_texts()
        assert titles[1:] == [
            *("Clusters", "Edges", "Circuit", "Faithfulness", "One image", "Provenance"),
        ]
        assert tab.locator(".card").count() == 6
        assert tab.locator(".card .tile img").count() >= 30
        assert tab.locator("#curves svg").count() == 2
        assert tab.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth)")


def test_edges_are_sorted_and_filtered(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        assert numbers(tab, 1) == list(range(1, 31))
        tab.click('#edge-table th[data-key="contrast"] button')
        found = numbers(tab, 6)
        assert found == sorted(found, reverse=True)
        tab.click('#edge-table th[data-key="contrast"] button')
        assert numbers(tab, 6) == sorted(found)
        tab.check("#edge-live")
        assert tab.locator("#edge-table tbody tr").count() == 3
        tab.uncheck("#edge-live")
        name = tab.locator("#edge-table tbody tr td:nth-child(4)").first.inner_text()
        tab.fill("#edge-search", name)
        keys = tab.locator("#edge-table tbody tr td:nth-child(4)").all_inner_texts()
        assert keys
        assert set(keys) == {name}
        tab.fill("#edge-search", "no such thing")
        assert tab.locator("#edge-table tbody tr").count() == 0
        assert "0 of 30" in tab.inner_text("#edge-count")


def test_an_edge_is_drawn_on_images_from_the_keyboard(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        tab.locator("#edge-table tbody tr").first.focus()
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#edge-detail canvas")
        said = tab.inner_text("#edge-detail")
        assert "query" in said
        assert "of these queries' attention" in said


def test_select_pin_hide_and_search(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        tab.locator('#circuit .node[data-node$="|query"]').first.focus()
        tab.keyboard.press("Enter")
        assert tab.locator("#circuit .node.selected").count() == 1
        assert "Reads from" in tab.inner_text("#node-panel")
        tab.click("#pin")
        assert tab.locator("#circuit .node.pinned").count() == 1
        before = tab.locator("#circuit .node").count()
        tab.click("#hide")
        assert tab.locator("#circuit .node").count() == before - 1
        tab.click("#show-all")
        assert tab.locator("#circuit .node").count() == before
        tab.fill("#node-search", "patch (")
        assert tab.locator("#circuit .node.found").count() > 0


def test_slider_says_what_the_visible_part_does(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        shown = tab.locator("#circuit .link").count()
        every = tab.inner_text("#prune-says")
        tab.locator("#prune").fill("3")
        assert tab.locator("#circuit .link").count() == 3 < shown
        said = tab.inner_text("#prune-says")
        assert said.startswith("3 of 30 edges")
        assert "of the full effect, by the measured curve of “energy”" in said
        assert said != every
        # The first edge's key goes, and with it the place of the others in the measured order.
        key = tab.evaluate("X.edgeEnds(X.data.edges[0]).key")
        tab.locator(f'[data-node="{key}"]').click()
        tab.click("#hide")
        left = tab.locator("#circuit .link").count()
        said = tab.inner_text("#prune-says")
        assert left < 3
        assert said.startswith(f"{left} of 30 edges")
        assert "no removal curve was measured" in said


def test_a_directed_circuit_has_two_colours_and_falls_of_its_direction(
    chromium: Any, directed_page: Path
) -> None:
    direction = f"“{TOWARD}” against “blue”"
    with opened(chromium, directed_page) as tab:
        assert f"pushes for {direction}" in tab.inner_text(".legend")
        links = [tab.locator(f"#circuit .link.{side}").count() for side in ("for", "against")]
        assert min(links) > 0
        colours = "side => getComputedStyle(document.querySelector(`#circuit .${side}`)).stroke"
        assert tab.evaluate(colours, "for") != tab.evaluate(colours, "against")
        share = tab.evaluate("X.data.edges[0].cover")
        curve = tab.evaluate("X.data.measured[0].curves.find((c) => c.metric === 'toward')")
        assert curve["fractions"] == pytest.approx([0.02, 0.06, 0.12, 0.2])
        tab.locator("#prune").fill("1")
        said = tab.inner_text("#prune-says")
        fall = float(said.partition(f"removing them lowers {direction} by ")[2].partition(",")[0])
        assert fall == pytest.approx(at_share(curve, share), rel=0.01)
        assert tab.locator("#curve-metric option").first.inner_text() == f"fall of {direction}"
        assert "%" not in tab.inner_text("#curve-table tbody tr")
        assert f"lowers {direction} by 0.12" in tab.inner_text("#answer")


def test_clusters_are_renamed_merged_and_kept(chromium: Any, page: Path, tmp_path: Path) -> None:
    with opened(chromium, page) as tab:
        first, second = (tab.locator(".card").nth(at) for at in (0, 1))
        first.locator(".rename").fill("stripes")
        first.locator(".rename").press("Tab")
        assert "stripes" in tab.inner_text("#edge-table")
        for card in (first, second):
            card.locator(".select").check()
        tab.click("#merge")
        tab.fill("#groups input", "ground")
        tab.locator("#groups input").press("Tab")
        assert "ground" in tab.text_content("#circuit")
        address = tab.url
        saved = download(tab, "#save-view", tmp_path)
    view = orjson.loads(saved.read_bytes())
    assert view["format"] == "xaikit-view"
    assert "stripes" in view["view"]["names"].values()
    assert view["view"]["groups"][0]["name"] == "ground"
    with opened(chromium, page, fragment=address[address.index("#") :]) as tab:
        assert "ground" in tab.text_content("#circuit")
    with opened(chromium, page) as tab:
        assert "ground" not in tab.text_content("#circuit")
        tab.set_input_files("#load-view", saved)
        tab.wait_for_selector("#view-note:not(:empty)")
        assert "ground" in tab.text_content("#circuit")
        assert first_name(tab) == "stripes"
        tab.reload()
        tab.wait_for_selector("#circuit .node")
        assert first_name(tab) == "stripes"


def first_name(tab: Any) -> str:
    return str(tab.locator(".card .rename").first.input_value())


def test_a_file_that_is_no_view_is_refused(chromium: Any, page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    for text in ("{", "[]", "null", '{"format": "xaikit-view", "view": {"groups": [null, 3]}}'):
        broken.write_text(text)
        with opened(chromium, page) as tab:
            tab.set_input_files("#load-view", broken)
            tab.wait_for_selector("#view-note:not(:empty)")
            assert tab.locator("#circuit .node").count() > 2


def test_grouping_in_the_graph(chromium: Any, layers_page: Path) -> None:
    with opened(chromium, layers_page) as tab:
        before = tab.locator("#circuit .node").count()
        tab.locator("#circuit .node").nth(0).click()
        tab.locator("#circuit .node").nth(1).click(modifiers=["Shift"])
        assert tab.locator("#circuit .node.selected").count() == 2
        tab.click("#group")
        assert tab.locator("#circuit .node").count() == before - 1
        tab.locator('#circuit .node[data-node="g1"]').click()
        tab.click("#ungroup")
        assert tab.locator("#circuit .node").count() == before


def test_exports(chromium: Any, layers_page: Path, tmp_path: Path) -> None:
    with opened(chromium, layers_page) as tab:
        tab.locator(".card .rename").first.fill(HOSTILE)
        tab.locator(".card .rename").first.press("Tab")
        nodes = tab.locator("#circuit .node").count()
        files = {
            kind: download(tab, f'[data-export="{kind}"]', tmp_path)
            for kind in ("svg", "png", "json", "graphml")
        }
    assert ET.parse(files["svg"]).getroot().tag.endswith("svg")
    with Image.open(files["png"]) as picture:
        assert picture.width > 400
        assert len(set(picture.convert("L").resize((64, 64)).getdata())) > 10
    data = orjson.loads(files["json"].read_bytes())
    joined = nx.node_link_graph(data, edges="edges")
    marked = nx.read_graphml(files["graphml"])
    assert joined.number_of_nodes() == marked.number_of_nodes() == nodes
    assert joined.number_of_edges() == marked.number_of_edges() > 0
    names = {node["label"] for node in data["nodes"]}
    assert names == set(nx.get_node_attributes(marked, "label").values())
    assert any(HOSTILE in name for name in names)


def test_one_image(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        before = tab.inner_text("#image-says")
        tab.focus("#image-main")
        tab.keyboard.press("ArrowRight")
        assert tab.inner_text("#image-says") != before
        assert "is in cluster" in tab.inner_text("#image-says")
        assert "attention predicted" in tab.inner_text("#image-heads")
        tab.click("#image-prefix button")
        assert "class token" in tab.inner_text("#image-says").lower()


def test_names_never_run(chromium: Any, hostile_page: Path) -> None:
    with opened(chromium, hostile_page) as tab:
        tab.locator(".card .rename").first.fill(HOSTILE)
        tab.locator(".card .rename").first.press("Tab")
        tab.locator("#edge-table tbody tr").first.click()
        tab.wait_for_selector("#edge-detail figure")
        tab.wait_for_timeout(200)
        assert "hacked" not in tab.title()
        assert tab.locator("img[src='x']").count() == 0
        assert "onerror" in tab.inner_text("#edge-detail")
        assert "onerror" in tab.inner_text("#edge-table")


@pytest.mark.parametrize("width", [360, 412])
def test_nothing_overlaps_on_a_phone(chromium: Any, layers_page: Path, width: int) -> None:
    with opened(chromium, layers_page, width=width) as tab:
        tab.locator("#edge-table tbody tr").first.click()
        # Paths of weights and names of images may be long and without a space.
        tab.evaluate("document.querySelector('.lead').textContent = '/weights'.repeat(40)")
        tab.evaluate("document.querySelector('#image-pick option').textContent = 'n'.repeat(200)")
        tab.wait_for_timeout(200)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(OVERLAPS.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(chromium: Any, layers_page: Path, scheme: str) -> None:
    with opened(chromium, layers_page, scheme=scheme) as tab:
        tab.locator("#circuit .node").first.click()
        tab.locator("#edge-table tbody tr").first.click()
        tab.wait_for_timeout(200)
        # Evaluated and not added as an element: the page's policy lets no other script in.
        tab.evaluate(AXE.read_text(encoding="utf-8"))
        found = tab.evaluate("async () => (await axe.run()).violations")
        grave = [
            (each["id"], [node["html"][:120] for node in each["nodes"][:3]])
            for each in found
            if each["impact"] in ("serious", "critical")
        ]
        assert grave == []


CONTRASTS = """() => {
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ratio = (a, b) => {
    const [dark, bright] = [light(a), light(b)].sort((x, y) => x - y);
    return (bright + 0.05) / (dark + 0.05);
  };
  const best = (cell) => Math.max(...X.OUTLINE.map(([hex]) => ratio(cell, X.rgb(hex))));
  return [-1, -0.5, 0, 0.5, 1].map((part) => best(X.diverging(part)));
}"""
OUTLINED = """() => {
  const canvas = X.byId("heat");
  const { data } = canvas.getContext("2d").getImageData(150, 0, canvas.width - 150, canvas.height);
  let [dark, light] = [0, 0];
  for (let at = 0; at < data.length; at += 4) {
    const [r, g, b, a] = data.slice(at, at + 4);
    if (a === 255 && r + g + b < 30) dark += 1;
    if (a === 255 && Math.min(r, g, b) > 252) light += 1;
  }
  const [head, layer] = ["heat-head", "heat-layer"].map((id) => Number(X.byId(id).value));
  const edges = X.data.edges.filter((edge) => edge.head === head && edge.layer === layer);
  return [dark, light, edges.length];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_outlines_of_the_heatmap_stand_out(chromium: Any, layers_page: Path, scheme: str) -> None:
    with opened(chromium, layers_page, scheme=scheme) as tab:
        assert min(tab.evaluate(CONTRASTS)) >= 3
        # Dark lines and their light borders are drawn, some twenty pixels around a cell at least.
        dark, light, edges = tab.evaluate(OUTLINED)
        assert edges > 0
        assert min(dark, light) >= 20 * edges


BROKEN = """(selector) => {
  const found = [];
  for (const cell of document.querySelectorAll(selector)) {
    const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
      for (const word of walk.currentNode.data.matchAll(/\\S+/g)) {
        const range = document.createRange();
        range.setStart(walk.currentNode, word.index);
        range.setEnd(walk.currentNode, word.index + word[0].length);
        const tops = [...range.getClientRects()].map((box) => Math.round(box.top));
        if (new Set(tops).size > 1) found.push(word[0]);
      }
    }
  }
  return found;
}"""


@pytest.mark.parametrize("width", [360, 390])
def test_names_are_whole_words_on_a_phone(chromium: Any, layers_page: Path, width: int) -> None:
    with opened(chromium, layers_page, width=width) as tab:
        cells = "#provenance td:not(.long):not(.free), #provenance th"
        assert tab.locator(cells).count() > 30
        assert tab.evaluate(BROKEN, cells) == []
        assert tab.locator("#answer code").count() > 0
        assert tab.evaluate(BROKEN, "#answer code") == []


def test_the_button_turns_the_page_dark(chromium: Any, page: Path) -> None:
    with opened(chromium, page) as tab:
        ground = "getComputedStyle(document.body).backgroundColor"
        before = tab.evaluate(ground)
        tab.click("#theme")
        assert tab.evaluate(ground) != before
