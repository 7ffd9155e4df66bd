"""Take pictures of a run's report, a section each, in light and dark and on a phone.

    xaikit run-all --out-dir xaikit-out
    python examples/07_look_at_a_run.py xaikit-out --out pictures

Needs `pip install playwright` and a Chromium or Chrome of the system (no download):
`apt-get install chromium`, or XAIKIT_CHROMIUM=/path/to/it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from xaikit.report.page import write_report

SECTIONS = ("answer", "clusters", "edges", "graph", "faithfulness", "image", "provenance")
VIEWS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light")}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    arguments = parser.parse_args()
    browser = os.environ.get("XAIKIT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")
    if not browser:
        sys.exit("no Chromium or Chrome on the path; XAIKIT_CHROMIUM may name one")
    arguments.out.mkdir(parents=True, exist_ok=True)
    page = arguments.run_dir / "report.html"
    if not page.exists():
        page = write_report(arguments.run_dir)
    for view in VIEWS:
        for path in pictures(page, arguments.out, view, browser):
            print(path)


def pictures(page: Path, out: Path, view: str, browser: str) -> list[Path]:
    """One picture of each section."""
    from playwright.sync_api import sync_playwright

    width, scheme = VIEWS[view]
    made = []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        context = started.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        tab = context.new_page()
        tab.goto(page.resolve().as_uri())
        # The bar that stays in sight would lie across sections taller than the window.
        tab.evaluate("document.querySelector('.top').style.position = 'static'")
        edges = tab.locator("#edge-table tbody tr")
        if edges.count():
            edges.first.click()
        nodes = tab.locator("#circuit .node")
        if nodes.count():
            nodes.first.dispatch_event("click")
        tab.wait_for_timeout(500)
        for section in SECTIONS:
            made.append(out / f"{view}-{section}.png")
            tab.locator(f"#{section}").screenshot(path=made[-1])
        started.close()
    return made


if __name__ == "__main__":
    main()
