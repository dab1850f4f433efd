"""Every kind of report page, light and dark, without a serious finding of axe, in a real browser."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from reports.publish import publish
from tests.reports.every_kind import KINDS, record

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.needs("chromium")
GRAVE = ("serious", "critical")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    runs = {kind: record(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}
    for run in runs.values():
        publish(run)
    return {kind: run.path / "report.html" for kind, run in runs.items()}


def grave_findings(browser: Browser, page: Path, *, width: int = 1280, **options: str) -> list[str]:
    tab = browser.new_page(viewport={"width": width, "height": 900}, **options)  # type: ignore[arg-type]
    tab.goto(page.as_uri())
    found = Axe().run(tab).response["violations"]
    tab.close()
    return [
        f"{one['id']}: {node['html'][:120]} {node.get('failureSummary', '')[:200]}"
        for one in found
        if one["impact"] in GRAVE
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_serious(kind: str, scheme: str, browser: Browser, pages: dict[str, Path]) -> None:
    assert grave_findings(browser, pages[kind], color_scheme=scheme) == []


@pytest.mark.parametrize("kind", KINDS)
def test_nor_on_a_phone(kind: str, browser: Browser, pages: dict[str, Path]) -> None:
    assert grave_findings(browser, pages[kind], width=390) == []


def test_axe_does_find_what_is_wrong(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    """A page whose language is not stated, and with a button that has lost its name."""
    text = pages["gameday"].read_text()
    spoilt = tmp_path / "spoilt.html"
    text = text.replace("Around the fault</button>", "</button>").replace('<html lang="en"', "<html")
    spoilt.write_text(text)

    found = " ".join(grave_findings(browser, spoilt))

    assert "button-name" in found
    assert "html-has-lang" in found


@pytest.mark.parametrize("kind", KINDS)
def test_the_headings_lead_through_the_page_without_a_gap(
    kind: str, browser: Browser, pages: dict[str, Path]
) -> None:
    tab = browser.new_page()
    tab.goto(pages[kind].as_uri())
    levels = tab.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(one => Number(one.tagName[1]))")
    tab.close()

    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
