"""The pages beside the reports: deaf to what a target sends, quiet, linked, and readable on any screen."""

from __future__ import annotations

import itertools
import operator
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from axe_playwright_python.sync_playwright import Axe

from probes.detectors import detectors
from probes.failure_categories import failure_categories
from probes.outcome import Outcome
from reports.certificate import Certificate, Part, Shown, render_certificate
from reports.compare import Change, Comparison, compare
from reports.compare_page import render_comparison
from reports.coverage import Injection, compute_coverage
from reports.coverage import Shown as ShownFault
from reports.coverage_page import render_coverage
from reports.history import build_history
from reports.history_page import render_history
from reports.publish import publish
from reports.run import load_run
from tests.reports.hostile import TEXTS
from tests.reports.kept import KEPT
from tests.reports.load_runs import SPEC, Truth, figures, record_run
from tests.reports.recorded import finding, judged
from tests.reports.tabs import once

if TYPE_CHECKING:
    from playwright.sync_api import Browser

KINDS = ("compare", "history", "coverage", "certificate")
HOSTILE = " ".join(TEXTS)
CALM = Truth(between=0.01, requests=300)


def _compare(out: Path) -> str:
    named = {"workload": HOSTILE, "endpoint": HOSTILE, "model": HOSTILE, "host": HOSTILE}
    base = [figures(CALM, seed, id=f"{seed} {HOSTILE}", **named) for seed in range(5)]
    run = figures(Truth(scale=1.5, between=0.01, requests=300), 9, problems=[HOSTILE], **named)
    return render_comparison(compare(base, run), page=out, runs={f"1 {HOSTILE}": out.parent})


def _history(out: Path) -> str:
    for seed in range(3):
        record_run(out.parent / "runs", seed, CALM, spec=SPEC | {"name": HOSTILE})
    judged(out.parent / "runs", [finding(HOSTILE, HOSTILE, Outcome.FAIL, HOSTILE)], spec={"title": HOSTILE})
    return render_history(build_history(out.parent / "runs", last=9), folder=HOSTILE, page=out)


def _coverage(out: Path) -> str:
    shown = ShownFault(category="hang", fault=HOSTILE, fidelity="P", how=HOSTILE, run=HOSTILE)
    coverage = compute_coverage(
        failure_categories(),
        detects=detectors().all(),
        injections=[Injection(category="hang", fault=HOSTILE, fidelity="P")],
        shown=[shown],
        runs=[HOSTILE],
        not_counted=[HOSTILE],
    )
    return render_coverage(coverage, page=out, runs={HOSTILE: out.parent})


def _certificate(_: Path) -> str:
    pair = ((HOSTILE, HOSTILE),)
    shown = (Shown(name=HOSTILE, lasted=HOSTILE, result=HOSTILE),)
    texts = dict.fromkeys(("host", "run_id", "title", "sentence", "digest", "command"), HOSTILE)
    return render_certificate(
        Certificate(
            **texts,
            facts=pair,
            parts=(Part(name=HOSTILE, model=HOSTILE, identity=pair, load=HOSTILE, bound=HOSTILE),),
            stages=shown,
            rules=shown,
            proven=((HOSTILE, (HOSTILE,)),),
            reservations=(HOSTILE,),
            versions=pair,
            files=pair,
            report="../somewhere/report.html",
        )
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = {kind: folder / f"{kind}.html" for kind in KINDS}
    for kind, path in found.items():
        path.write_text(globals()[f"_{kind}"](path), encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_asks_nobody_runs_nothing_of_a_targets_and_fits_a_phone(
    kind: str, browser: Browser, pages: dict[str, Path]
) -> None:
    tab, seen = browser.new_page(viewport={"width": 390, "height": 800}), []
    tab.on("console", lambda message: seen.append(message.text))
    tab.on("pageerror", lambda error: seen.append(str(error)))
    tab.on("request", lambda request: seen.append(request.url))
    tab.goto(pages[kind].as_uri())
    hurt, images = tab.evaluate("window.hurt"), tab.locator("img").count()
    is_wide = tab.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    levels = tab.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(one => Number(one.tagName[1]))")
    tab.close()

    assert [text for text in seen if text != pages[kind].as_uri()] == []
    assert (hurt, images) == (None, 0)
    assert not is_wide
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_has_no_serious_finding_of_axe_by_day_or_night(
    kind: str, browser: Browser, pages: dict[str, Path]
) -> None:
    grave = []
    for scheme in ("light", "dark"):
        tab = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
        tab.goto(pages[kind].as_uri())
        found = Axe().run(tab).response["violations"]
        grave += [
            (scheme, one["id"], one["nodes"][0]["html"][:200])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        tab.close()

    assert grave == []


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_printed_with_dark_ink_also_where_the_screen_is_dark(
    kind: str, browser: Browser, pages: dict[str, Path]
) -> None:
    tab = browser.new_page(color_scheme="dark")
    tab.goto(pages[kind].as_uri())
    read = "getComputedStyle(document.body).color"
    charts = "[...document.querySelectorAll('canvas')].map(one => one.toDataURL())"
    on_screen, drawn = tab.evaluate(read), tab.evaluate(charts)
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    redrawn = once(tab, charts, lambda now: all(map(operator.ne, drawn, now)))
    tab.emulate_media(media="print", color_scheme="dark")
    on_paper = tab.evaluate(read)
    tab.close()

    def brightest(colour: str) -> int:
        return max(int(part) for part in re.findall(r"\d+", colour)[:3])

    assert brightest(on_paper) < 80 < brightest(on_screen)
    assert len(redrawn) == len(drawn)
    assert all(before != after for before, after in zip(drawn, redrawn, strict=True))


def test_the_drawing_of_a_change_ends_in_an_arrow_only_beyond_the_scale() -> None:
    comparison = compare([figures(CALM, seed) for seed in range(5)], figures(CALM, 9))
    first = comparison.changes[0]

    def arrows(**changes: float) -> int:
        changed: Change = replace(first, **changes)  # type: ignore[arg-type]
        shown: Comparison = replace(comparison, changes=(changed,))
        return render_comparison(shown, page=Path("c.html"), runs={}).count('class="arrow"')

    assert arrows(low=-0.02, high=0.03) == 0
    assert arrows(low=-0.02, high=3.0) == 1
    assert arrows(low=-2.0, high=3.0) == 2


def test_every_command_writes_its_page_by_one_option_with_links_that_lead_somewhere(tmp_path: Path) -> None:
    runs = tmp_path / "the runs"
    shutil.copytree(KEPT, runs, ignore=shutil.ignore_patterns("*.py", "__pycache__", "README.md"))
    for run in (record_run(tmp_path / "loads", 1, CALM), record_run(tmp_path / "loads", 2, CALM)):
        publish(run)
    for folder in runs.glob("2*"):
        publish(load_run(folder))
    commands = {
        "history": [str(runs)],
        "coverage": [str(runs)],
        "compare": [str(path) for path in sorted((tmp_path / "loads").glob("2*"))],
    }
    (tmp_path / "pages").mkdir()
    for name, arguments in commands.items():
        page = tmp_path / "pages" / f"{name}.html"
        command = [sys.executable, "-P", "-m", "overproof", name, *arguments, "--html", str(page)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        links = [
            unquote(link) for link in re.findall(r'href="([^"#]+)"', page.read_text()) if link != "data:,"
        ]

        assert done.returncode in (0, 3), done.stderr
        assert links, name
        assert [link for link in links if not (page.parent / link).exists()] == []


def test_a_page_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    record_run(tmp_path, 1, CALM)
    command = [sys.executable, "-P", "-m", "overproof", "history", str(tmp_path), "--html", "/nowhere/h.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "--html /nowhere/h.html: cannot be written" in done.stderr
