"""The Prometheus page of a run: where it listens, what it answers, and names that are documented."""

from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from probes.errors import ConfigError
from reports.exporter import SERVED, MetricsPage, render_page, serve_metrics, served_live
from reports.live import Progress
from reports.live_metrics import METRICS, Figure
from reports.record import create_run
from reports.run import load_run
from reports.text import one_line
from tests.reports.hostile import TEXTS

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
UNITS = ("_seconds", "_ratio", "_watts", "_celsius", "_hertz", "_flops", "_bytes_per_second", "_total")
COUNTED = {"info", "step", "stage", "back", "hosts", "flight", "phase", "fault", "ready", "wanted"}  # no unit


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


def test_every_name_is_in_the_reference_with_its_labels() -> None:
    rows = {
        name: f"| `{name}` | {', '.join(f'`{label}`' for label in m.labels)} |" for name, m in METRICS.items()
    }

    assert [name for name, row in rows.items() if row not in REFERENCE] == []


def test_every_name_has_its_unit_in_it_or_counts_something() -> None:
    assert [n for n in METRICS if not n.endswith(UNITS) and n.rpartition("_")[2] not in COUNTED] == []


def test_nobody_asked_means_that_nobody_listens() -> None:
    with serve_metrics(MetricsPage(), list) as url:
        assert url is None


def test_the_page_is_made_anew_for_each_question_and_gone_at_the_end() -> None:
    asked = []

    def figures() -> list[Figure]:
        asked.append(1)
        return [Figure("overproof_run_elapsed_seconds", len(asked))]

    with serve_metrics(MetricsPage(port=0), figures) as url:
        assert url is not None
        assert [read(url)[-5:-1], read(url)[-5:-1]] == [" 1.0", " 2.0"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            read(url.replace("/metrics", "/"))

    with pytest.raises(urllib.error.URLError, match="refused"):
        read(url)


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    with serve_metrics(MetricsPage(port=0), list) as url:
        assert str(url).startswith("http://127.0.0.1:")
        port = int(str(url).rpartition(":")[2].partition("/")[0])
        with contextlib.closing(socket.socket()) as other, pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", port))
    with serve_metrics(MetricsPage(port=0, listen="127.0.0.2"), list) as url:
        assert str(url).startswith("http://127.0.0.2:")
        assert read(str(url)) == ""


@pytest.mark.parametrize("page", [MetricsPage(port=0, listen="192.0.2.1"), MetricsPage(port=70_000)])
def test_an_address_that_is_not_ours_is_a_usage_error(page: MetricsPage) -> None:
    with pytest.raises(ConfigError, match=f"--metrics-port {page.port}"), serve_metrics(page, list):
        pass


def test_a_port_that_is_taken_is_a_usage_error() -> None:
    with serve_metrics(MetricsPage(port=0), list) as url:
        port = int(str(url).rpartition(":")[2].partition("/")[0])
        taken = serve_metrics(MetricsPage(port=port), list)
        with pytest.raises(ConfigError, match=f"--metrics-port {port}: cannot be listened on"), taken:
            pass


@pytest.mark.parametrize("text", TEXTS)
def test_what_a_target_says_stays_within_its_label(text: str) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    page = render_page([Figure("overproof_load_errors_total", 2, {"kind": text})]).decode()
    samples = [s for family in text_string_to_metric_families(page) for s in family.samples]

    assert [(s.labels, s.value) for s in samples] == [({"kind": one_line(text)}, 2.0)]


def test_a_name_that_is_not_declared_is_our_own_bug() -> None:
    with pytest.raises(KeyError):
        render_page([Figure("overproof_new", 1)])


def test_a_run_tells_where_its_page_is_and_shows_its_steps(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="load", spec={}, seed=1) as writer:
        progress = Progress("load", quiet=True)
        progress.step("endpoint", "done")
        with served_live(MetricsPage(port=0), writer, progress, list):
            [served] = load_run(writer.path).events_of(SERVED)
            page = read(served.data["url"])

    assert f'overproof_run_info{{kind="load",run="{writer.header.id}",title="load"}} 1.0' in page
    assert 'overproof_run_step{state="done",step="endpoint"} 1.0' in page
