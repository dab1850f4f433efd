"""Load runs on several endpoints: TLS, one killed and started again, one slow, one never there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import gevent

from loadtests.plan import LoadPlan
from loadtests.reading.connections import Connections
from loadtests.reading.poll_clock import PollClock
from loadtests.sending.dispatcher import Dispatcher, make_targets
from loadtests.sending.prober import ask_until
from loadtests.sending.routes import Routes
from loadtests.sending.spending import Budget, Spending
from loadtests.spec.workload import WorkloadSpec, load_workload
from probes.child import wait_until
from probes.finding import Finding
from probes.outcome import Outcome
from probes.request import Request
from reports.run import Run, load_run
from reports.table import read_requests
from tests.loadtests.certificates import make_authority
from tests.loadtests.endpoints import endpoint, raw_server
from tests.loadtests.noise import OF_A_BUSY_MACHINE
from tests.loadtests.test_load_run import run, start

FAST = ("--decode-step-ms", "4", "--slots", "64")
WORKLOAD = """
name: several
arrivals: {{kind: poisson, rate_per_s: {rate}}}
duration_s: {duration}
prompt:
  input_tokens: {{kind: constant, value: 16}}
  output_tokens: {{kind: constant, value: 4}}
endpoint: {{timeout_s: 5}}
endpoints: [{endpoints}]
calibration: {{is_skipped: true}}
{more}
"""


def write(
    folder: Path, *endpoints: str, rate: float = 60, duration: float = 2, more: str = "failed_share_max: 0.3"
) -> Path:
    path = folder / "workload.yaml"
    path.write_text(WORKLOAD.format(rate=rate, duration=duration, endpoints=", ".join(endpoints), more=more))
    return path


def not_passed(run: Run) -> set[str]:
    return {finding.rule for finding in run.findings if finding.outcome not in (Outcome.PASS, None)}


def of(run: Run) -> dict[tuple[str, str], Finding]:
    return {(finding.rule, finding.subject): finding for finding in run.findings}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def at(port: int, name: str) -> Iterator[subprocess.Popen[str]]:
    """Run an endpoint on a port of our own, so that another can take its place."""
    with endpoint("--port", str(port), "--name", name, *FAST) as running:
        yield running.child


def test_a_killed_endpoint_is_failed_over_and_taken_back_once_it_answers(tmp_path: Path) -> None:
    port = free_port()
    more = "fail_over: {within_s: 3, after_failures: 3, probe_every_s: 0.3}\nfailed_share_max: 0.3"

    with endpoint("--name", "b", *FAST) as other, contextlib.ExitStack() as stack:
        first = stack.enter_context(at(port, "a"))
        workload = write(
            tmp_path,
            f"{{name: eu, url: 'http://127.0.0.1:{port}', weight: 2, may_disappear: true}}",
            f"{{name: us, url: '{other.url}'}}",
            duration=60,
            more=more,
        )
        started = start(workload, tmp_path / "run")
        assert wait_until(lambda: started.path.exists() and started.has_rows(), timeout_s=20)
        os.killpg(first.pid, signal.SIGKILL)
        assert wait_until(lambda: started.has("endpoint.lost"), timeout_s=20)
        time.sleep(0.5)
        stack.enter_context(at(port, "a-again"))
        assert wait_until(lambda: started.has_rows("a-again"), timeout_s=20)
        started.process.send_signal(signal.SIGUSR1)  # nothing new is sent
        assert started.wait() in (0, 3)

    judged = load_run(tmp_path / "run")
    found, rows = of(judged), read_requests(tmp_path / "run")
    moved = [row for row in rows if row.endpoint_name != row.endpoint_planned]
    (lost,), (back,) = judged.events_of("endpoint.lost"), judged.events_of("endpoint.back")
    assert len(lost.data["failed_in_a_row"]) == 3
    assert {(row.endpoint_planned, row.endpoint_name, row.error) for row in moved} == {("eu", "us", None)}
    lost_ns, back_ns = lost.data["at_ns"], back.data["at_ns"]
    assert all(lost_ns - 1e8 <= (row.t_sent_ns or 0) <= back_ns + 1e8 for row in moved)
    assert any(row.replica == "a-again" for row in rows)
    assert Counter(row.index for row in rows) == Counter(range(len(rows)))  # nothing is sent twice
    assert not_passed(judged) <= OF_A_BUSY_MACHINE
    times = found["fail-over", "endpoints:all"].evidence["outages"][0]
    assert 0 < times["detected_after_s"] <= times["recovered_after_s"] + 0.5 < 3
    assert found["errors", "endpoint:eu"].evidence["errors"] == []
    assert found["errors", "endpoints:all"].evidence["errors"]
    assert found["accounting", "endpoint:eu"].evidence["moved_away"] == len(moved)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "what the schedule planned for it" in page
    assert "eu lost" in page  # over every panel, for as long as it was


def test_three_endpoints_by_two_processes_and_only_the_slow_one_fails(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    tls = ("--tls-cert-file", str(authority.certificate("good")))
    more = (
        "failed_share_max: 0.2\nslos:\n  - {metric: ttft_ms, statistic: p70, bound: 400}\n"
        "  - {metric: goodput, objective: 0.5}"
    )

    with (
        endpoint("--name", "a", *FAST) as plain,
        endpoint("--name", "b", *FAST, *tls) as secure,
        endpoint("--name", "c", "--decode-step-ms", "600", "--slots", "64") as slow,
    ):
        workload = write(
            tmp_path,
            f"{{name: eu, url: '{plain.url}', weight: 2}}",
            f"{{name: us, url: 'https://127.0.0.1:{secure.port}', weight: 2, ca_file: authority.pem}}",
            f"{{name: ap, url: '{slow.url}/v1'}}",
            rate=70,
            duration=3,
            more=more,
        )
        done = run(str(workload), "--path", str(tmp_path / "run"), "--processes", "2", "--seed", "5")

    judged = load_run(tmp_path / "run")
    found, rows = of(judged), read_requests(tmp_path / "run")
    routes = Routes(load_workload(workload).to_workload(), seed=5)
    assert done.returncode == 1, done.stdout
    failed = {(rule, subject) for (rule, subject), one in found.items() if one.outcome is Outcome.FAIL}
    assert failed == {("slo", "slo:ttft_ms_p70@endpoint:ap"), ("slo", "slo:goodput@endpoint:ap")}
    assert [row.endpoint_name for row in rows] == [
        ("eu", "us", "ap")[routes.planned(row.index)] for row in rows
    ]
    assert {row.worker for row in rows} == {0, 1}
    assert {(row.endpoint_name, row.replica) for row in rows} == {("eu", "a"), ("us", "b"), ("ap", "c")}
    assert {row.tls_ms is not None for row in rows if row.connect_ms and row.endpoint_name == "us"} == {True}
    assert {row.tls_ms for row in rows if row.endpoint_name != "us"} == {None}
    for name in ("eu", "us", "ap"):
        assert found["accounting", f"endpoint:{name}"].outcome is Outcome.PASS
        assert f"\n{name} " in done.stdout  # its row
    assert ("outage", "endpoint:eu") not in found  # without fail_over nobody looks for it


def test_one_that_is_never_there_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    port = free_port()
    with endpoint(*FAST) as there:
        workload = write(
            tmp_path,
            f"{{name: eu, url: '{there.url}'}}",
            f"{{name: us, url: 'http://127.0.0.1:{port}'}}",
        )
        done = run(str(workload), "--out", str(tmp_path / "runs"))
        refused = run(str(workload), "--endpoint", there.url, "--out", str(tmp_path / "runs"))
        dry = run(str(workload), "--dry-run", "--seed", "9")
        workload.write_text(workload.read_text() + f"allowed_hosts: ['127.0.0.1:{there.port}']\n")
        outside = run(str(workload), "--out", str(tmp_path / "runs"))

    assert done.returncode == 3
    assert f"us: http://127.0.0.1:{port}: cannot be reached" in done.stderr
    assert "eu: " not in done.stderr.splitlines()[-1]
    assert refused.returncode == 2
    assert "the workload has 2 endpoints" in refused.stderr
    assert outside.returncode == 2
    assert f"127.0.0.1:{port} is not in allowed_hosts" in outside.stderr
    assert f"nothing was sent to eu: {there.url}, us: http://127.0.0.1:{port}" in dry.stdout
    assert re.search(r"each gets +eu \d+ \(\d\d\.\d%\), us \d+", dry.stdout)


def drive(plan: LoadPlan) -> tuple[list[Request], list[str], Dispatcher]:
    """Walk a plan in this process; return its rows and what was told of endpoints."""
    rows: list[Request] = []
    told: list[str] = []
    first, *others = make_targets(plan)
    dispatcher = Dispatcher(
        plan,
        first,
        rows.append,
        worker=0,
        workers=1,
        others=others,
        on_endpoint=lambda kind, at_ns, data: told.append(f"{kind} {data['endpoint']}"),
    )
    dispatcher.walk(t0_ns=time.time_ns() + 20_000_000)
    dispatcher.drain(timeout_s=5)
    dispatcher.polls.close()
    return rows, told, dispatcher


def plan_for(path: Path, *urls: str, models: tuple[str, ...] = ("m", "m"), **keys: object) -> LoadPlan:
    data: dict[str, object] = {
        "name": "t",
        "arrivals": {"kind": "constant", "rate_per_s": 40},
        "duration_s": 1.5,
        "prompt": {
            "input_tokens": {"kind": "constant", "value": 16},
            "output_tokens": {"kind": "constant", "value": 4},
        },
        "endpoint": {"timeout_s": 5},
        "endpoints": [{"name": name, "url": url} for name, url in zip("ab", urls, strict=False)],
    }
    spec = WorkloadSpec.model_validate(data | keys)
    others = tuple(zip(urls[1:], models[1:], strict=True))
    return LoadPlan(run=path, spec=spec, seed=2, url=urls[0], model=models[0], others=others)


def test_conversations_stay_on_one_endpoint_and_go_on_at_another_when_it_is_lost(tmp_path: Path) -> None:
    keys: dict[str, object] = {
        "arrivals": {"kind": "closed", "users": 8},
        "session": {"turns": {"kind": "constant", "value": 3}},
    }
    gone = f"http://127.0.0.1:{free_port()}"
    with endpoint(*FAST) as one, endpoint(*FAST) as two:
        kept, _, _ = drive(plan_for(tmp_path, one.url, two.url, **keys))
        lost, told, _ = drive(
            plan_for(tmp_path, gone, two.url, fail_over={"after_failures": 4, "probe_every_s": 0.2}, **keys)
        )

    by_user: dict[int | None, set[str | None]] = {}
    for row in kept:
        by_user.setdefault(row.session, set()).add(row.endpoint_name)
    assert sorted(map(sorted, by_user.values())) == [["a"]] * 4 + [["b"]] * 4  # type: ignore[arg-type]
    assert {(row.endpoint_planned == row.endpoint_name) for row in kept} == {True}
    failed = [row for row in lost if row.error is not None]
    assert told == ["endpoint.lost a"]
    assert {(row.error, row.endpoint_name) for row in failed} == {("refused", "a")}
    assert len(failed) == 4  # one of each user whose endpoint it was, and none once it was known
    assert {row.session for row in lost if row.endpoint_name != row.endpoint_planned} == {
        row.session for row in failed
    }


def test_without_fail_over_each_keeps_its_part_and_a_hanging_one_drops_nothing_of_the_others(
    tmp_path: Path,
) -> None:
    with endpoint(*FAST, "--fault", "hang") as hanging, endpoint(*FAST) as well:
        plan = plan_for(tmp_path, hanging.url, well.url, in_flight_max=20, endpoint={"timeout_s": 3})
        rows, told, _ = drive(plan)

    errors = {name: Counter(row.error for row in rows if row.endpoint_name == name) for name in "ab"}
    assert told == []
    assert {row.endpoint_planned == row.endpoint_name for row in rows} == {True}
    assert errors["b"].keys() == {None}
    assert errors["a"].keys() == {"dropped", "timeout"}
    assert errors["a"]["timeout"] == 20


def test_a_moved_request_asks_for_the_model_by_its_name_there(tmp_path: Path) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    asked: list[str] = []

    def answer(connection: socket.socket) -> None:
        asked.append(json.loads(connection.recv(65536).rpartition(b"\r\n\r\n")[2])["model"])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno")

    keys = {"fail_over": {"after_failures": 1, "probe_every_s": 0.1}}
    with raw_server(answer) as port:
        url = f"http://127.0.0.1:{port}"
        rows, _, _ = drive(plan_for(tmp_path, gone, url, models=("here", "there"), **keys))

    assert any(row.endpoint_planned == "a" and row.endpoint_name == "b" for row in rows)
    assert set(asked) == {"there"}


def test_questions_at_a_lost_endpoint_cost_budget_and_none_is_asked_beyond_it(tmp_path: Path) -> None:
    with endpoint(*FAST) as there:
        plan = plan_for(tmp_path, there.url, there.url, fail_over={"probe_every_s": 0.05})
        spent = [_spent_on_a_question(plan, tokens_max=tokens) for tokens in (10, 10_000)]

    assert spent[0] == (None, 0)
    assert spent[1][0] == 1
    assert spent[1][1] > 0


def _spent_on_a_question(plan: LoadPlan, *, tokens_max: int) -> tuple[int | None, int]:
    spending, polls = Spending(Budget(tokens=tokens_max)), PollClock()
    connections = Connections(make_targets(plan)[1], polls)
    asking = gevent.spawn(ask_until, lambda _: True, plan, 1, connections, worker=0, spending=spending)
    asking.join(0.7 if tokens_max < 100 else 20)  # who may ask ends with the answer
    asked = asking.value
    asking.kill()
    connections.close()
    polls.close()
    return asked, spending.spent.total
