"""report.html as text: what it must hold, what it must never hold, and how large it may get."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.event import Event
from probes.outcome import Outcome
from reports.html import content_policy, embed_json, render_html
from reports.record import create_run
from reports.run import FINISHED, Run, load_run
from tests.reports.hostile import TEXTS
from tests.reports.recorded import finding, game_day, judged

BYTES_MAX = 8 * 1024 * 1024


class Page(HTMLParser):
    """The elements and the visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def empty_run(out: Path, *kinds: str) -> Run:
    with create_run(out, kind="burnin", spec={}, seed=0) as writer:
        for kind in kinds:
            writer.event("controller", kind)
    return load_run(writer.path)


def test_the_outcome_comes_first_then_what_decided_then_the_timeline(tmp_path: Path) -> None:
    text = Page(render_html(game_day(tmp_path))).text

    order = [
        "It did not hold: 1 of 4 findings failed.",
        "fault injected 20.00",
        "What decided",
        "88.21% of 34 values at most 500 ms",
        "Next look at the slowest requests of this phase",
        "Timeline",
        "Requests, counted per second",
        "All findings",
        "Detectors proven in this run",
        "What this run does not show",
        "Not decided",
        "Owner sre@example.org",
        "Environment, and how to do it again",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)


@pytest.mark.parametrize("kinds", [(), (FINISHED,), ("run.interrupted",), ("run.crashed",)])
def test_a_run_with_nothing_in_it_renders_and_is_inconclusive(kinds: tuple[str, ...], tmp_path: Path) -> None:
    text = Page(render_html(empty_run(tmp_path, *kinds))).text

    assert "INCONCLUSIVE Nothing was judged" in text
    assert "there is nothing to draw" in text


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_run_with_only_one_kind_of_finding_renders(outcome: Outcome, tmp_path: Path) -> None:
    page = Page(render_html(judged(tmp_path, [finding("slo", "slo:x", outcome, "observed this")])))

    assert page.tags[0] == ("html", {"lang": "en", "data-outcome": outcome.value})
    assert page.text.count("observed this") >= 2


def test_a_run_of_an_unknown_kind_renders(tmp_path: Path) -> None:
    run = empty_run(tmp_path, FINISHED)
    header = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(header | {"kind": "<b>new</b>"}))

    assert "<b>new</b>" not in render_html(load_run(run.path))


def tags_of(page: str) -> set[tuple[str, tuple[str, ...]]]:
    return {(tag, tuple(attributes)) for tag, attributes in Page(page).tags}


@pytest.fixture(scope="module")
def ordinary_tags(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, tuple[str, ...]]]:
    rows = [finding("r", "s", Outcome.FAIL, "o", next_step="n", evidence={"k": "v"})]
    return tags_of(render_html(judged(tmp_path_factory.mktemp("ordinary"), rows, spec={"a": "b"})))


@pytest.mark.parametrize("hostile", TEXTS)
def test_no_text_of_a_target_becomes_an_element(
    hostile: str, ordinary_tags: set[tuple[str, tuple[str, ...]]], tmp_path: Path
) -> None:
    rows = [finding(hostile, hostile, Outcome.FAIL, hostile, evidence={hostile: hostile})]
    run = judged(tmp_path, rows, spec={hostile: hostile})
    with (run.path / "events.ndjson").open("a") as file:
        file.write(
            json.dumps(
                {"t_ns": 1, "host": hostile, "source": hostile, "kind": hostile, "data": {"x": hostile}}
            )
        )
        file.write("\n")

    text = render_html(load_run(run.path))

    assert tags_of(text) <= ordinary_tags
    assert text.count("<script") == 4
    assert not {c for c in text if ord(c) < 32 and c not in "\n\t"}


def test_the_policy_allows_the_four_parts_of_the_page_and_no_request(tmp_path: Path) -> None:
    text = render_html(game_day(tmp_path))
    page = Page(text)
    [policy] = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)

    assert policy == content_policy(tuple(scripts), style)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    links = [a.get("src") or a.get("href") for _, a in page.tags if a.get("src") or a.get("href")]
    assert [link for link in links if link and not link.startswith(("#", "data:", "load/"))] == []


@given(st.recursive(st.text() | st.floats(allow_nan=False), lambda c: st.lists(c, max_size=3), max_leaves=5))
def test_json_in_the_page_comes_back_as_it_was_and_cannot_leave_its_script(value: object) -> None:
    text = str(embed_json({"value": value}))

    assert json.loads(text) == {"value": value}
    assert not set("<>&") & set(text)
    assert text.isascii()


def test_the_command_to_do_it_again_names_the_seed_and_quotes_what_needs_it(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    header = json.loads((run.path / "run.json").read_text())
    command = ["/usr/bin/overproof", "load", "run", "my file.yaml", "--api-key", "***"]
    (run.path / "run.json").write_text(json.dumps(header | {"command": command, "seed": 5}))

    assert (
        "overproof load run 'my file.yaml' --api-key '***' --seed 5"
        in Page(render_html(load_run(run.path))).text
    )


def test_a_very_large_run_stays_within_eight_megabytes_and_says_what_it_left_out(tmp_path: Path) -> None:
    long = "a long remark " * 30
    found = [finding("ecc", f"gpu:{n}", Outcome.PASS, long, evidence={"k": long}) for n in range(10_000)]
    run = game_day(tmp_path, findings=[*found, finding("ecc", "gpu:bad", Outcome.FAIL)])
    with create_run(tmp_path, kind="load", spec={}, seed=0, path=tmp_path / "x") as writer:
        for k in range(2000):
            writer.append_event(Event(t_ns=k, host="h", source="s", kind="k", data={"x": long}))
    (run.path / "events.ndjson").write_bytes((writer.path / "events.ndjson").read_bytes())

    text = render_html(load_run(run.path))

    assert len(text.encode()) < BYTES_MAX
    assert "8001 more findings, of the least weight" in Page(text).text
    assert "gpu:bad" in text
    assert "400 events, the first of 2000" in Page(text).text


def test_what_the_plan_left_out_was_not_tested_and_is_not_among_what_does_not_apply(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=0) as writer:
        left_out = finding("left-out", "stage:memory", None, observed="left out by the plan")
        writer.write_findings([left_out, finding("ecc", "host:a", None, observed="no GPU here")])
    text = Page(render_html(load_run(writer.path))).text

    assert "Not tested stage:memory : left out by the plan Not decided" in text
    assert "Not applicable ecc host:a : no GPU here Waived" in text
