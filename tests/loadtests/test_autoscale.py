"""Capacity that follows a spike: the rule by table, what is seen in answers and pages, what a file asks."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadtests.rules.autoscale import (
    Expectation,
    Phases,
    Sample,
    Watch,
    answers_to_exclude_more,
    at_most,
    judge_autoscale,
)
from loadtests.rules.autoscale_evidence import judge_capacity
from loadtests.rules.replicas_seen import read_replicas_seen
from loadtests.spec.expect import AutoscaleSpec, PageReplicas, PrometheusReplicas, ScaleUpSpec, find_phases
from loadtests.spec.workload import WorkloadSpec, load_workload, override
from loadtests.watching.replica_watch import look, read_authorization
from probes.errors import ConfigError
from probes.finding import Finding
from probes.outcome import Outcome
from probes.request import Request
from reports.record import create_run
from reports.request_table import REQUEST_COLUMNS
from reports.run import load_run
from reports.telemetry import telemetry_panels

SPIKE = Phases(up_s=10, idle_s=40)
EXPECTED = Expectation(to_min=3, up_within_s=10, to_max=1, release_within_s=15, flaps_max=None, window_s=0)
Course = Sequence[tuple[float, int | None]]
GOOD: Course = ((0, 1), (14, 2), (16, 3), (50, 2), (52, 1))


def course(steps: Course, *, until_s: int = 60, hidden: Sequence[tuple[float, float]] = ()) -> list[Sample]:
    """Return a sample a second of a number that changes at these moments, but for hidden times."""
    samples = []
    for t_s in range(until_s):
        count = [count for begun_s, count in steps if begun_s <= t_s][-1]
        if count is not None and not any(begin <= t_s < end for begin, end in hidden):
            samples.append(Sample(t_s=t_s, at_least=count, at_most=count))
    return samples


def judge(
    samples: Sequence[Sample], *, expected: Expectation = EXPECTED, arrived: int = 100, planned: int = 100
) -> Finding:
    watch = Watch(
        samples=samples, looks=60, problems=(), planned=planned, arrived=arrived, source="prometheus"
    )
    return judge_autoscale(expected, SPIKE, watch, subject="endpoint:x")


@pytest.mark.parametrize(
    ("steps", "outcome", "said"),
    [
        (GOOD, Outcome.PASS, "3 replicas 6.0 s after the spike began; down to 1 12.0 s after it ended"),
        (((0, 1),), Outcome.FAIL, "at most 1 replicas were seen in the 30.0 s watched"),
        (((0, 1), (14, 2), (50, 1)), Outcome.FAIL, "at most 2 replicas"),
        (((0, 1), (24, 4), (50, 1)), Outcome.FAIL, "3 replicas 14.0 s after"),
        (((0, 1), (16, 3)), Outcome.FAIL, "3 replicas still 19.0 s after it ended"),
        (((0, 1), (16, 4), (50, 2)), Outcome.FAIL, "2 replicas still"),
        (((0, 1), (16, 3), (58, 1)), Outcome.FAIL, "down to 1 18.0 s after it ended"),
        (((0, 3), (50, 1)), Outcome.INCONCLUSIVE, "served already before the spike"),
        (((0, None), (16, 3), (50, 1)), Outcome.INCONCLUSIVE, "not known how many replicas served before"),
    ],
)
def test_only_capacity_that_came_and_went_in_time_passes(steps: Course, outcome: Outcome, said: str) -> None:
    found = judge(course(steps))

    assert (found.outcome, said in found.observed) == (outcome, True), found.observed


@pytest.mark.parametrize(
    ("steps", "hidden", "outcome"),
    [
        (GOOD, [(11, 19)], Outcome.PASS),  # hidden, but seen to be enough before the limit
        (GOOD, [(15, 25)], Outcome.INCONCLUSIVE),  # it may have come in time, or just not
        (((0, 1), (24, 3), (50, 1)), [(12, 22)], Outcome.INCONCLUSIVE),  # it may have come, gone, and come
        (((0, 1), (24, 3), (50, 1)), [(12, 14)], Outcome.FAIL),
        (GOOD, [(51, 60)], Outcome.INCONCLUSIVE),  # the watch ended before the release
        (((0, 1), (16, 3)), [(42, 60)], Outcome.INCONCLUSIVE),
        (GOOD, [(40, 60)], Outcome.INCONCLUSIVE),
        (GOOD, [(0, 60)], Outcome.INCONCLUSIVE),
    ],
)
def test_what_a_silence_could_hide_is_not_decided(
    steps: Course, hidden: list[tuple[float, float]], outcome: Outcome
) -> None:
    assert judge(course(steps, hidden=hidden)).outcome is outcome


def test_a_spike_that_did_not_come_as_planned_decides_nothing() -> None:
    assert judge(course(GOOD), arrived=94).outcome is Outcome.INCONCLUSIVE
    assert judge(course(((0, 1),)), arrived=94).outcome is Outcome.INCONCLUSIVE
    assert judge(course(GOOD), planned=0, arrived=0).outcome is Outcome.INCONCLUSIVE


def test_samples_that_cannot_exclude_more_replicas_show_no_release_and_no_lack() -> None:
    blind = [replace(sample, at_most=None) if sample.t_s > 12 else sample for sample in course(GOOD)]
    starved = [replace(sample, at_most=None) if sample.t_s > 12 else sample for sample in course(((0, 1),))]

    assert judge(blind).outcome is Outcome.INCONCLUSIVE
    assert judge(starved).outcome is Outcome.INCONCLUSIVE


def test_a_window_makes_a_moment_an_interval() -> None:
    windowed = replace(EXPECTED, window_s=5)
    late = course(((0, 1), (22, 3), (50, 1)))

    assert judge(course(GOOD), expected=windowed).outcome is Outcome.PASS
    assert judge(late).outcome is Outcome.FAIL
    assert judge(late, expected=windowed).outcome is Outcome.INCONCLUSIVE
    assert judge(late, expected=windowed).evidence["t_enough_s"] == [16, 22]
    assert "the limit lies between" in judge(late, expected=windowed).observed


def test_flaps_are_counted_and_judged_where_that_is_asked() -> None:
    flapping = course(((0, 1), (14, 3), (20, 1), (24, 3), (28, 2), (32, 3), (50, 1), (55, 2), (57, 1)))
    settling = course(((0, 1), (14, 5), (20, 3), (50, 1)))

    assert (judge(flapping).outcome, judge(flapping).evidence["flaps"]) == (Outcome.PASS, 3)
    assert judge(flapping, expected=replace(EXPECTED, flaps_max=2)).outcome is Outcome.FAIL
    assert judge(flapping, expected=replace(EXPECTED, flaps_max=3)).outcome is Outcome.PASS
    assert judge(settling, expected=replace(EXPECTED, flaps_max=0)).outcome is Outcome.PASS


def test_the_evidence_has_the_moments_and_the_replica_seconds() -> None:
    evidence = judge(course(GOOD)).evidence

    assert (evidence["t_load_up_s"], evidence["t_first_scale_s"], evidence["t_idle_s"]) == (10, 14, 40)
    assert (evidence["t_enough_s"], evidence["t_released_s"]) == ([15, 16], [51, 52])
    assert evidence["under_replica_s"] == 2 * 3 + 1 * 2  # 2 short at 11, 12 and 13 s, then 1 short for 2 s
    assert evidence["over_replica_s"] == 2 * 9 + 1 * 2


def test_so_many_answers_from_one_replica_show_that_there_is_no_other() -> None:
    assert at_most(0, 0) is None
    assert at_most(1, 1) is None
    assert at_most(answers_to_exclude_more(1), 1) == 1
    assert at_most(answers_to_exclude_more(1) - 1, 1) == 2
    assert answers_to_exclude_more(1) == 15  # 2 * (1/2)^15 is at most 1 in 10,000
    assert at_most(10_000, 3) == 3


def _rows(run: Path, requests: Sequence[tuple[float, float, str]]) -> None:
    """Write rows of good answers: sent, ended, replica."""
    (run / "requests").mkdir()
    lines = []
    for index, (sent_s, end_s, name) in enumerate(requests):
        sent_ns, end_ns = round(sent_s * 1e9), round(end_s * 1e9)
        row = Request(
            index=index, worker=0, endpoint="http://x", t_intended_ns=sent_ns, t_sent_ns=sent_ns,
            t_first_ns=end_ns, t_last_ns=end_ns, t_end_ns=end_ns, connect_ms=None, status=200, error=None,
            replica=name,
        )  # fmt: skip
        lines.append(json.dumps({column: getattr(row, column) for column in REQUEST_COLUMNS}))
    (run / "requests" / "worker-0.ndjson").write_text("".join(f"{line}\n" for line in lines))


def test_replicas_are_counted_from_the_answers_of_a_window(tmp_path: Path) -> None:
    both = [(t / 10, t / 10 + 0.05, f"replica-{t % 2}") for t in range(100)]
    one = [(t / 10, t / 10 + 0.05, "replica-0") for t in range(100, 200)]
    _rows(tmp_path, both + one)

    seen = {row["t_ns"] / 1e9: row for row in read_replicas_seen(tmp_path, window_s=2)}

    assert (seen[8.0]["replicas"], seen[8.0]["replicas_at_most"]) == (2, 3)  # 20 answers from 2
    assert (seen[11.0]["replicas"], seen[13.0]["replicas"]) == (2, 1)
    assert seen[13.0]["replicas_at_most"] == 1


def test_a_trickle_too_thin_shows_one_replica_and_excludes_no_other(tmp_path: Path) -> None:
    _rows(tmp_path, [(t * 1.0, t + 0.05, "replica-0") for t in range(20)])

    rows = list(read_replicas_seen(tmp_path, window_s=3))

    assert {row["replicas"] for row in rows} == {1}
    assert min(row["replicas_at_most"] for row in rows) > 2


@contextlib.contextmanager
def pages(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    """Serve these pages by path, the query left out."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answers.get(self.path.partition("?")[0], (404, ""))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: object) -> None:
            del arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def vector(*values: str) -> str:
    result = [{"metric": {}, "value": [1.0, value]} for value in values]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


@pytest.mark.parametrize(
    ("status", "text", "replicas", "problem"),
    [
        (200, vector("3"), 3, ""),
        (200, json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [1, "2"]}}), 2, ""),
        (200, vector(), None, "gives 0 series"),
        (200, vector("1", "1"), None, "gives 2 series"),
        (200, vector("NaN"), None, "is no number of replicas"),
        (200, vector("2.5"), None, "is no number of replicas"),
        (200, vector("-1"), None, "is no number of replicas"),
        (200, "<html>", None, "not an answer of Prometheus"),
        (200, '{"data": []}', None, "not an answer of Prometheus"),
        (400, "{}", None, "HTTP 400"),
    ],
)
def test_prometheus_counts_only_with_one_whole_number(
    status: int, text: str, replicas: int | None, problem: str
) -> None:
    with pages({"/api/v1/query": (status, text)}) as url:
        row = look(PrometheusReplicas(kind="prometheus", url=url, query="sum(up)"), {})

    assert row.get("replicas") == replicas
    assert problem in row["problem"]
    assert bool(problem) == (replicas is None)


def test_a_page_counts_by_the_sum_of_the_samples_that_are_asked_for() -> None:
    text = '# TYPE up gauge\nup{job="llm",pod="a"} 1\nup{job="llm",pod="b"} 1\nup{job="db"} 1\n'
    with pages({"/metrics": (200, text)}) as url:
        both = look(PageReplicas(kind="page", url=f"{url}/metrics", metric="up", labels={"job": "llm"}), {})
        none = look(PageReplicas(kind="page", url=f"{url}/metrics", metric="down"), {})

    assert (both["replicas"], both["replicas_at_most"]) == (2, 2)
    assert "no sample of down" in none["problem"]


WORKLOAD = """
name: x
arrivals: {{kind: spike, rate_per_s: {rate}, spike_per_s: 30, at_s: 10, for_s: {spike}}}
duration_s: {duration}
expect:
  autoscale:
    replicas: {{kind: header}}
    scale_up: {{to_min: 3, within_s: 20}}
    release: {{to_max: 1, within_s: 30}}
"""


@pytest.mark.parametrize(
    ("rate", "spike", "duration", "said"),
    [
        (4, 40, 80, "duration_s must be at least 87"),
        (4, 20, 90, "the spike must last 27 s"),
        (2, 40, 90, "15 are needed to tell 1 replicas from more"),
    ],
)
def test_an_expectation_that_could_never_be_decided_is_refused(
    tmp_path: Path, rate: int, spike: int, duration: int, said: str
) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(WORKLOAD.format(rate=rate, spike=spike, duration=duration))

    with pytest.raises(ConfigError, match=said):
        load_workload(path)


def test_the_example_is_one_and_a_shorter_time_for_it_is_refused() -> None:
    spec = load_workload(Path(__file__).parents[2] / "loadtests" / "workloads" / "spike-autoscale.yaml")

    assert WorkloadSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert find_phases(spec.arrivals.to_arrivals().rate) == Phases(up_s=10, idle_s=60)
    with pytest.raises(ConfigError, match=r"--duration-s 60: .* duration_s must be at least 97"):
        override(spec, url=None, duration_s=60)


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"scale_up": {"within_s": 5}}, "give to_min, slos or both"),
        ({"scale_up": {"within_s": 5, "to_min": 3}}, "say where they are seen"),
        (
            {"scale_up": {"within_s": 5, "to_min": 3}, "release": {"to_max": 3, "within_s": 5}},
            "say where they are seen",
        ),
        (
            {
                "replicas": {"kind": "header"},
                "scale_up": {"within_s": 5, "to_min": 3},
                "release": {"to_max": 3, "within_s": 5},
            },
            "must be less than",
        ),
        ({"replicas": {"kind": "page", "url": "ftp://x", "metric": "up"}}, "wanted an address"),
        ({"replicas": {"kind": "page", "url": "http://x", "metric": "up{}"}}, "is no name of a metric"),
        ({"replicas": {"kind": "prometheus", "url": "http://u:p@x", "query": "up"}}, "wanted an address"),
    ],
)
def test_an_expectation_that_makes_no_sense_is_refused(expect: dict[str, object], said: str) -> None:
    data = {
        "name": "x",
        "arrivals": {"kind": "spike", "rate_per_s": 4, "spike_per_s": 9, "at_s": 10, "for_s": 40},
        "duration_s": 90,
        "expect": {"autoscale": {"scale_up": {"to_min": 3, "within_s": 20}} | expect},
    }

    with pytest.raises(ValueError, match=said):
        WorkloadSpec.model_validate(data)


def test_an_even_load_or_one_with_sessions_cannot_expect_capacity_to_follow() -> None:
    expect = {"autoscale": {"replicas": {"kind": "header"}, "scale_up": {"to_min": 3, "within_s": 5}}}
    even = {"name": "x", "arrivals": {"kind": "poisson", "rate_per_s": 4}, "duration_s": 90, "expect": expect}

    with pytest.raises(ValueError, match="needs arrivals of kind spike or steps"):
        WorkloadSpec.model_validate(even)


def test_the_report_has_a_panel_of_the_replicas(tmp_path: Path) -> None:
    writer = create_run(tmp_path, kind="load", spec={}, seed=1)
    with writer:
        for second, count in enumerate((1, 1, 3, 3, 1)):
            row = {"subject": "endpoint", "source": "page", "replicas": count, "replicas_at_most": count}
            writer.sample("replicas", {"t_ns": second * 1_000_000_000} | row)

    panels, _ = telemetry_panels(load_run(writer.path), 0)

    assert [panel.title for panel in panels] == ["Replicas that were seen to serve"]
    assert panels[0].series[0].stepped


def test_a_secret_that_is_missing_is_told_before_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = PageReplicas(kind="page", url="http://x/metrics", metric="up", authorization_env="TOKEN_OF_PAGE")
    expected = AutoscaleSpec(replicas=probe, scale_up=ScaleUpSpec(to_min=2, within_s=1))
    monkeypatch.delenv("TOKEN_OF_PAGE", raising=False)

    with pytest.raises(ConfigError, match="TOKEN_OF_PAGE does not hold one header"):
        read_authorization(expected)

    monkeypatch.setenv("TOKEN_OF_PAGE", "Bearer abc")
    assert read_authorization(expected) == {"Authorization": "Bearer abc"}


def test_promises_that_hold_again_are_judged_without_counting_replicas() -> None:
    data = {
        "name": "x",
        "arrivals": {"kind": "spike", "rate_per_s": 4, "spike_per_s": 9, "at_s": 10, "for_s": 40},
        "duration_s": 60,
        "expect": {
            "autoscale": {
                "scale_up": {
                    "within_s": 20,
                    "slos": [{"metric": "ttft_ms", "statistic": "p50", "bound": 100}],
                }
            }
        },
    }
    expected = WorkloadSpec.model_validate(data).to_workload().expect

    assert expected is not None
    rows = [_answered(second, ttft_ms=900 if second < 30 else 50) for second in range(10, 60)]
    slow = [_answered(second, ttft_ms=900) for second in range(10, 60)]
    sound, late = (
        judge_capacity(expected.autoscale, SPIKE_OF_FILE, requests, t0_ns=0) for requests in (rows, slow)
    )

    assert [(one.subject, one.outcome) for one in sound] == [("slo:ttft_ms_p50@scaled up", Outcome.PASS)]
    assert [one.outcome for one in late] == [Outcome.FAIL]


SPIKE_OF_FILE = Phases(up_s=10, idle_s=50)


def _answered(second: int, *, ttft_ms: int) -> Request:
    sent_ns = second * 1_000_000_000
    end_ns = sent_ns + ttft_ms * 1_000_000
    return Request(
        index=second, worker=0, endpoint="http://x", t_intended_ns=sent_ns, t_sent_ns=sent_ns,
        t_first_ns=end_ns, t_last_ns=end_ns, t_end_ns=end_ns, connect_ms=None, status=200, error=None,
    )  # fmt: skip
