"""Load runs on several endpoints: TLS, one killed and started again, one slow, one never there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from probes.child import wait_until
from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run, load_run
from reports.table import read_requests
from tests.loadtests.endpoints import endpoint
from tests.loadtests.test_load_run import start

OF_A_BUSY_MACHINE = {"lateness", "client-lag"}  # what others on it do to this client
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
            duration=6,
            more=more,
        )
        started = start(workload, tmp_path / "run")
        assert wait_until(lambda: started.path.exists() and started.has_rows(), timeout_s=20)
        os.killpg(first.pid, signal.SIGKILL)
        assert wait_until(lambda: started.has("endpoint.lost"), timeout_s=5)
        time.sleep(0.5)
        stack.enter_context(at(port, "a-again"))
        assert started.wait() in (0, 3)

    judged = load_run(tmp_path / "run")
    found, rows = of(judged), read_requests(tmp_path / "run")
    moved = [row for row in rows if row.endpoint_name != row.endpoint_planned]
    (lost,), (back,) = judged.events_of("endpoint.lost"), judged.events_of("endpoint.back")
    assert len(lost.data["failed_in_a_row"]) == 3
    assert {(row.endpoint_planned, row.endpoint_name, row.error) for row in moved} == {("eu", "us", None)}
    assert all(lost.t_ns - 1e8 <= (row.t_sent_ns or 0) <= back.t_ns + 1e8 for row in moved)
    assert any(row.replica == "a-again" for row in rows)
    assert Counter(row.index for row in rows) == Counter(range(len(rows)))  # nothing is sent twice
    assert not_passed(judged) <= OF_A_BUSY_MACHINE
    times = found["fail-over", "endpoints:all"].evidence["outages"][0]
    assert 0 < times["detected_after_s"] <= times["recovered_after_s"] + 0.5 < 3
    assert found["errors", "endpoint:eu"].evidence["errors"] == []
    assert found["errors", "endpoints:all"].evidence["errors"]
    assert found["accounting", "endpoint:eu"].evidence["moved_away"] == len(moved)
