"""report.html in a real browser: quiet, linked, and deaf to what a target sends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from probes.outcome import Outcome
from reports.publish import publish
from reports.record import create_run
from reports.run import Run, load_run
from tests.reports.every_kind import KINDS, record
from tests.reports.hostile import TEXTS
from tests.reports.nodes import gpu_node
from tests.reports.recorded import finding, game_day, request, write_requests
from tests.reports.tabs import once

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.needs("chromium")
TIMES = "overproofCharts.map(chart => chart.scales.x.min.toFixed(3) + ' ' + chart.scales.x.max.toFixed(3))"
CURSORS = "overproofCharts.map(chart => Math.round(chart.cursor.left))"


@dataclass
class Opened:
    """A report in a browser tab, and all that it did on its own."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A published game day; opening it does not change it."""
    run = game_day(tmp_path_factory.mktemp("runs"))
    publish(run)
    return run


def open_report(browser: Browser, run: Run, **options: object) -> Opened:
    opened = Opened(page=browser.new_page(**options))  # type: ignore[arg-type]
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.on("console", lambda message: opened.complaints.append(message.text))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on("dialog", lambda dialog: opened.complaints.append(dialog.message))
    opened.page.goto((run.path / "report.html").as_uri())
    return opened


def are_alike(values: list[str]) -> bool:
    return len(set(values)) == 1


@pytest.fixture
def opened(browser: Browser, run: Run) -> Iterator[Opened]:
    opened = open_report(browser, run, viewport={"width": 1280, "height": 900})
    yield opened
    opened.page.close()


def test_the_report_asks_the_network_for_nothing_and_complains_of_nothing(opened: Opened) -> None:
    opened.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    opened.page.wait_for_load_state("networkidle")

    assert [url for url in opened.requests if not url.endswith("/report.html")] == []
    assert opened.complaints == []


@pytest.mark.parametrize("kind", KINDS)
def test_so_does_every_kind_of_report(kind: str, browser: Browser, tmp_path: Path) -> None:
    run = record(kind, tmp_path)
    publish(run)
    opened = open_report(browser, run)
    opened.page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    opened.page.wait_for_load_state("networkidle")

    assert [url for url in opened.requests if not url.endswith("/report.html")] == []
    assert opened.complaints == []
    assert opened.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    opened.page.close()


def test_a_script_that_got_into_the_page_would_not_run(browser: Browser, run: Run, tmp_path: Path) -> None:
    """The second line of defence, tried by putting one there, as no target can."""
    text = (run.path / "report.html").read_text()
    inserted = "<script>window.hurt = 1</script><img src=x onerror='window.hurt = 1'>"
    copy = Run(path=tmp_path, header=run.header)
    (tmp_path / "report.html").write_text(text.replace("<main>", "<main>" + inserted))
    opened = open_report(browser, copy)

    once(opened.page, "0", lambda _: bool(opened.complaints))  # they come beside what is evaluated
    assert opened.page.evaluate("window.hurt") is None
    assert any("Content Security Policy" in said for said in opened.complaints)
    opened.page.close()


def test_lines_of_one_chart_differ_without_their_colour(browser: Browser, tmp_path: Path) -> None:
    """In the legend, where dash and width stand beside each name."""
    run = gpu_node(tmp_path)
    publish(run)
    opened = open_report(browser, run)
    strokes = opened.page.evaluate(
        """[...document.querySelectorAll('.legend')].map(
            legend => [...legend.querySelectorAll('.swatch line')].map(
                line => line.getAttribute('stroke-dasharray') + ' ' + line.getAttribute('stroke-width')))"""
    )
    opened.page.close()

    assert max(map(len, strokes)) >= 8
    assert all(len(set(each)) == len(each) for each in strokes)


def test_outcome_what_decided_and_the_first_chart_are_on_the_first_screen(opened: Opened) -> None:
    page = opened.page
    tops = [
        page.locator(name).first.bounding_box()["y"]  # type: ignore[index]
        for name in ("h1", ".decider", "#timeline-title", "#strip")
    ]

    assert page.locator("h1").inner_text() == "FAIL"
    assert tops == sorted(tops)
    assert tops[-1] < 900


def test_every_panel_is_drawn_with_ink_on_it(opened: Opened) -> None:
    inks = opened.page.evaluate(
        """[...document.querySelectorAll('.panel canvas')].map(canvas => {
            const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            const colours = new Set();
            for (let k = 0; k < pixels.length; k += 4)
                if (pixels[k + 3] > 200) colours.add(pixels.slice(k, k + 3).join());
            return colours.size;
        })"""
    )

    assert len(inks) == 6
    assert min(inks) >= 3


def test_a_drag_across_one_chart_zooms_all_and_a_double_click_takes_it_back(opened: Opened) -> None:
    page = opened.page
    whole = page.evaluate(TIMES)
    page.locator("#panel-2").scroll_into_view_if_needed()
    box = page.locator("#panel-2 .u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 30, steps=5)
    page.mouse.up()
    zoomed = once(page, TIMES, lambda times: times != whole and are_alike(times))

    assert len(set(whole)) == len(set(zoomed)) == 1
    low, high = map(float, zoomed[0].split())
    assert (round(low), round(high)) == (18, 27)

    page.mouse.dblclick(box["x"] + 100, box["y"] + 30)
    assert once(page, TIMES, lambda times: times == whole) == whole


def test_the_cursor_over_one_chart_is_in_all_and_each_says_its_value(opened: Opened) -> None:
    page = opened.page
    page.locator("#panel-0").scroll_into_view_if_needed()
    box = page.locator("#panel-0 .u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 23.5 / 45, box["y"] + 40)
    clock = "document.querySelector('#clock').innerText"

    assert once(page, clock, lambda text: text.startswith("23.")).startswith("23.")
    assert are_alike(once(page, CURSORS, are_alike))
    [replicas] = page.locator("[data-name='lab.replicas_ready'] .u-value").all_inner_texts()[1:]
    assert replicas == "2"


def test_the_fault_can_be_zoomed_to_and_the_keyboard_does_it_all(opened: Opened) -> None:
    page = opened.page
    whole = page.evaluate(TIMES)
    page.locator("#zoom-fault").click()
    [low, high] = map(float, once(page, TIMES, lambda times: times != whole and are_alike(times))[0].split())
    assert low < 20 < 30.1 < high < 40

    page.locator("#charts").focus()
    page.keyboard.press("0")
    assert once(page, TIMES, lambda times: times == whole) == whole
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    near = once(page, TIMES, lambda times: times != whole and are_alike(times))

    assert are_alike(once(page, CURSORS, are_alike))
    assert are_alike(near)
    assert near != whole


def test_findings_can_be_filtered_by_outcome(opened: Opened) -> None:
    page = opened.page
    rows = page.locator("#findings-table tbody tr")
    assert rows.count() == 6

    page.locator("#filter input[value=pass]").uncheck()
    page.locator("#filter input[value=waived]").uncheck()

    shown = [rows.nth(n).get_attribute("data-outcome") for n in range(6) if rows.nth(n).is_visible()]
    assert shown == ["fail", "not applicable"]


@pytest.mark.parametrize("width", [360, 768])
def test_on_a_narrow_screen_nothing_stands_out_of_the_page(width: int, browser: Browser, run: Run) -> None:
    opened = open_report(browser, run, viewport={"width": width, "height": 800})

    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.page.locator("h1").is_visible()
    opened.page.close()


def test_dark_mode_and_print_change_the_ink_of_page_and_charts(browser: Browser, run: Run) -> None:
    opened = open_report(browser, run, color_scheme="dark")
    page = opened.page
    ground = "getComputedStyle(document.querySelector('.page')).backgroundColor"
    picture = "document.querySelector('#panel-0 canvas').toDataURL()"
    dark, dark_chart = page.evaluate(ground), page.evaluate(picture)

    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")

    assert once(page, ground, lambda colour: colour != dark) == "rgb(255, 255, 255)" != dark
    assert once(page, picture, lambda chart: chart != dark_chart) != dark_chart
    assert not page.locator("#tools").is_visible()
    assert len(page.pdf()) > 10_000
    page.close()


def test_without_scripts_the_report_is_still_read(browser: Browser, run: Run) -> None:
    opened = open_report(browser, run, java_script_enabled=False)

    assert opened.page.locator("h1").inner_text() == "FAIL"
    assert opened.page.locator("noscript p").inner_text().startswith("The charts need this file's own script")
    assert opened.page.locator("#findings-table tbody tr").count() == 6
    opened.page.close()


def test_hostile_texts_do_nothing_in_the_browser(browser: Browser, tmp_path: Path) -> None:
    rows = [
        finding(text, text, outcome, text, expected=text, next_step=text, evidence={text: [text]})
        for text in TEXTS
        for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS, None)
    ]
    run = game_day(tmp_path, findings=rows, spec={text: text for text in TEXTS})
    with create_run(tmp_path / "other", kind="gameday", spec={}, seed=0) as writer:
        for k, text in enumerate(TEXTS):
            writer.event(text, "fault.injected", id=text, fault=text)
            writer.event(text, "stage.started", stage=text)
            writer.event(text, "inventory", device_kind=text, devices=[{"name": text}])
            writer.sample(
                "gpu", {"t_ns": writer.header.started_ns, "subject": text, "temperature_c": 40 + k, text: 1}
            )
        writer.write_findings(rows)

    with create_run(tmp_path / "burnin", kind="burnin", spec={}, seed=0) as burn_in:
        burn_in.event("agent", "inventory", devices=[{"name": text, "model": text} for text in TEXTS])
        for text in TEXTS:
            sample = {"t_ns": burn_in.header.started_ns, "device": text, "format": text, "tflops": 1.0}
            burn_in.sample("matmul", sample)
            ends = {"link": f"{text}-{TEXTS[0]}", "receiver": TEXTS[0], "gbps": 1.0}
            burn_in.sample("links", {"t_ns": burn_in.header.started_ns, **ends})
        burn_in.write_findings(rows)
    with create_run(tmp_path / "load", kind="load", spec={}, seed=0) as load:
        failed = [request(load.header.started_ns, k, k, error=text) for k, text in enumerate(TEXTS)]
        write_requests(load.path, [replace(row, error_detail=row.error or "") for row in failed])
        named = [replace(row, endpoint_name=row.error, endpoint=row.error or "") for row in failed]
        write_requests(load.path, named)
        load.write_findings(rows)

    for each in (run, *(load_run(one.path) for one in (writer, burn_in, load))):
        publish(each)
        opened = open_report(browser, each)
        opened.page.mouse.move(300, 600)

        assert opened.page.evaluate("window.hurt") is None
        assert opened.complaints == []
        assert [url for url in opened.requests if not url.endswith("/report.html")] == []
        assert opened.page.locator("script").count() == 4
        assert opened.page.locator("img, iframe, object, embed, form, b script").count() == 0
        assert opened.page.locator("h1").inner_text() == "FAIL"
        assert opened.page.locator(".panel canvas").count() >= 1
        opened.page.close()


def test_a_run_with_nothing_in_it_opens_without_a_complaint(browser: Browser, tmp_path: Path) -> None:
    run = load_run(create_run(tmp_path, kind="load", spec={}, seed=0).path)
    publish(run)
    opened = open_report(browser, run)

    assert opened.complaints == []
    assert opened.page.locator("h1").inner_text() == "INCONCLUSIVE"
    opened.page.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_word_of_ten_thousand_letters_makes_no_page_wider(
    width: int, browser: Browser, tmp_path: Path
) -> None:
    word = "A" * 10_000
    findings = [
        finding(f"{word}{outcome}", f"host:{word}", outcome, observed=word, next_step=word)
        for outcome in (*Outcome, None)
    ]
    with create_run(tmp_path, kind="load", spec={word: word}, seed=0) as writer:
        writer.write_findings(findings)
    run = load_run(writer.path)
    publish(run)

    opened = open_report(browser, run, viewport={"width": width, "height": 800})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.page.close()


def test_on_a_phone_why_a_host_did_not_pass_has_the_whole_width(browser: Browser, tmp_path: Path) -> None:
    run = record("fleet", tmp_path)
    publish(run)

    opened = open_report(browser, run, viewport={"width": 390, "height": 800})
    why = opened.page.locator(".fleet tbody tr").first.locator("td").last.bounding_box()
    assert why is not None
    assert why["width"] > 300
    opened.page.close()
