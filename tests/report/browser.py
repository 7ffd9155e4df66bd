"""A real browser for tests of the page: Chromium from the system's packages, never a download."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def executable() -> str:
    """The browser to start; without one the test is skipped, in CI it fails."""
    given = os.environ.get("XAIKIT_CHROMIUM")
    found = given or next(filter(None, map(shutil.which, NAMES)), None)
    found = found or next((place for place in PLACES if Path(place).exists()), None)
    if found:
        return found
    reason = "no Chromium or Chrome on the path; XAIKIT_CHROMIUM may name one"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless browser."""
    path = executable()
    os.environ["PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD"] = "1"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # The sandbox needs rights that containers do not have.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(
    chromium: Any,
    page: Path,
    *,
    width: int = 1280,
    scheme: str = "light",
    fragment: str = "",
    ready: str = "#circuit .node",
) -> Iterator[Any]:
    """The page in a tab without a network; whatever its console says fails the test."""
    context = chromium.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        offline=True,
        accept_downloads=True,
    )
    said: list[str] = []
    asked: list[str] = []
    tab = context.new_page()
    tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    try:
        tab.goto(page.resolve().as_uri() + fragment)
        tab.wait_for_selector(ready)
        yield tab
        assert said == []
        loads = {url.split("#")[0] for url in asked if not url.startswith(("data:", "blob:"))}
        assert loads == {page.resolve().as_uri()}
    finally:
        context.close()
