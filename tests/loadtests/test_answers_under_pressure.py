"""Endpoints that answer fast and wrong, end to end: each fails for the right reason and within its budget."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from probes.child import wait_until
from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run, load_run
from reports.table import read_requests, read_series
from tests.loadtests.endpoints import endpoint, raw_server

WORKLOAD = """
name: pressure
arrivals: {{kind: poisson, rate_per_s: {rate}}}
duration_s: {duration}
calibrate_prompts: false
classes:
  - weight: 1
    prompt: {{input_tokens: {{kind: constant, value: 16}}, output_tokens: {{kind: constant, value: 8}}}}
  - weight: 1
    prompt: {{input_tokens: {{kind: constant, value: 16}}, output_tokens: {{kind: constant, value: 1000}}}}
endpoint: {{timeout_s: 10}}
slos: [{{metric: goodput, objective: 0.9}}]
{more}
"""
TASKS = "tasks: {{share: 1.0, count: {count}, difficulty: [1], output_tokens: 64}}\n"
FAST = ("--decode-step-ms", "2", "--prefill-tokens-per-s", "10000000")


def load(folder: Path, url: str, *arguments: str, rate: float, duration: float, more: str) -> tuple[int, str]:
    workload = folder / "workload.yaml"
    workload.write_text(WORKLOAD.format(rate=rate, duration=duration, more=more))
    command = [sys.executable, "-P", "-m", "overproof", "load", "run", str(workload), "--endpoint", url]
    command += ["--no-calibration", "--out", str(folder / "runs"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    return done.returncode, done.stdout + done.stderr


def found(recorded: Run, rule: str) -> Finding:
    return next(finding for finding in recorded.findings if finding.rule == rule)


def spent(recorded: Run) -> int:
    (event,) = recorded.events_of("load.spent")
    return int(event.data["tokens_in"] + event.data["tokens_out"])


@pytest.mark.parametrize(
    ("fault", "count", "duration"), [("wrong:0.03@0.8", 300, 7.0), ("short:0.2@0.8", 80, 2.0)]
)
def test_a_server_that_is_right_when_idle_and_wrong_under_load_fails_by_its_answers_alone(
    tmp_path: Path, fault: str, count: int, duration: float
) -> None:
    with endpoint(*FAST, "--slots", "2", "--fault", fault, "--name", "sick") as running:
        more = TASKS.format(count=count) + "guards: {tokens_max: 2000000}\n"
        code, said = load(tmp_path, running.url, rate=110, duration=duration, more=more)
    recorded = load_run(tmp_path / "runs" / "latest")
    answers = found(recorded, "answers-right")

    assert code == 1, said
    assert answers.outcome is Outcome.FAIL, answers.observed
    assert answers.evidence["idle"] == {"answers": count, "right": count}
    assert answers.evidence["wrong_under_load"][0]["replica"] == "sick"
    assert [f.rule for f in recorded.findings if f.outcome is Outcome.FAIL] == ["answers-right"]
    assert found(recorded, "guard").outcome is Outcome.PASS
    assert spent(recorded) <= 2_000_000
    assert all(row.text for row in read_requests(recorded.path) if row.task is not None)
    assert len(read_series(recorded, "idle-answers")) == count


def test_a_server_that_loops_for_ever_is_stopped_named_and_within_budget(tmp_path: Path) -> None:
    guards = "guards: {tokens_max: 120000, runaways_max: 6, repeats_share: 1.0}\n"
    with endpoint(*FAST, "--slots", "64", "--fault", "loop:0.5") as running:
        code, said = load(tmp_path, running.url, rate=20, duration=20, more=guards)
    recorded = load_run(tmp_path / "runs" / "latest")
    rows = read_requests(recorded.path)
    kinds = {row.error for row in rows if row.error is not None}

    assert code == 1, said
    assert kinds == {"runaway", "repetition"}
    assert found(recorded, "guard").outcome is Outcome.FAIL
    assert "runaways: 7 answers did not end" in found(recorded, "guard").observed
    assert found(recorded, "accounting").outcome is Outcome.PASS
    assert len(rows) < 200
    assert spent(recorded) <= 120_000
    assert sum((row.tokens_in or 0) + max(row.tokens_out or 0, row.events) for row in rows) <= 120_000


def test_a_budget_that_ends_before_the_verdict_leaves_it_open_and_is_not_exceeded(tmp_path: Path) -> None:
    guards = "guards: {tokens_max: 20000}\n"
    with endpoint(*FAST, "--slots", "64") as running:
        code, said = load(tmp_path, running.url, rate=20, duration=20, more=guards)
    recorded = load_run(tmp_path / "runs" / "latest")
    (account,) = (event.data for event in recorded.events_of("load.spent"))
    rows = read_requests(recorded.path)

    assert code == 3, said
    assert found(recorded, "guard").outcome is Outcome.INCONCLUSIVE
    assert "ended by tokens" in found(recorded, "guard").observed
    assert 0 < sum((row.tokens_in or 0) + (row.tokens_out or 0) for row in rows) == spent(recorded)
    assert spent(recorded) <= account["tokens_committed_max"] <= 20_000
    assert found(recorded, "accounting").outcome is Outcome.PASS


def test_an_error_storm_ends_the_load_long_before_its_schedule(tmp_path: Path) -> None:
    guards = "guards: {error_storm: {share: 0.6, of_last: 20}}\n"
    with endpoint(*FAST, "--fault", "error:0.9") as running:
        code, said = load(tmp_path, running.url, rate=50, duration=30, more=guards)
    recorded = load_run(tmp_path / "runs" / "latest")

    assert code == 1, said
    assert "error_storm" in found(recorded, "guard").observed
    assert found(recorded, "guard").outcome is Outcome.FAIL
    assert len(read_requests(recorded.path)) < 100


def test_a_dry_run_and_a_host_that_is_not_allowed_open_no_connection(tmp_path: Path) -> None:
    came: list[object] = []
    more = TASKS.format(count=10) + "guards: {price_per_million_tokens: {input: 1, output: 4}}\n"
    with raw_server(came.append) as port:
        url = f"http://127.0.0.1:{port}"
        dry, said = load(tmp_path, url, "--dry-run", "--json", rate=10, duration=5, more=more)
        refused, reason = load(
            tmp_path, url, rate=10, duration=5, more='allowed_hosts: ["*.staging", "127.0.0.1:1"]'
        )
    document = json.loads(said)

    assert came == []
    assert (dry, refused) == (0, 2)
    assert "not in allowed_hosts" in reason
    assert not (tmp_path / "runs").exists()
    assert document["requests_idle"] == 10
    assert document["tokens_most"] > document["requests"] * 64
    assert 0 < document["money_most"] < 4 * document["tokens_most"] / 1e6
    assert document["prompts"][0].startswith("Task (")


def test_of_two_replicas_behind_one_address_the_one_that_answers_wrongly_is_named(tmp_path: Path) -> None:
    with (
        endpoint(*FAST, "--slots", "2", "--name", "sound") as sound,
        endpoint(*FAST, "--slots", "2", "--name", "sick", "--fault", "wrong:0.3@0.8") as sick,
        balanced([sound.port, sick.port]) as port,
    ):
        code, said = load(
            tmp_path, f"http://127.0.0.1:{port}", rate=200, duration=2, more=TASKS.format(count=60)
        )
    recorded = load_run(tmp_path / "runs" / "latest")
    named = [finding for finding in recorded.findings if finding.rule == "replica-answers"]

    assert code == 1, said
    assert [(finding.subject, finding.outcome) for finding in named] == [("replica:sick", Outcome.FAIL)]
    assert named[0].evidence["replicas"]["sound"]["wrong"] == 0


def test_a_controller_killed_while_the_tasks_are_asked_leaves_nothing_running(tmp_path: Path) -> None:
    with endpoint("--decode-step-ms", "20") as running:
        workload = tmp_path / "workload.yaml"
        workload.write_text(WORKLOAD.format(rate=5, duration=1, more=TASKS.format(count=300)))
        command = [sys.executable, "-P", "-m", "overproof", "load", "run", str(workload)]
        command += ["--endpoint", running.url, "--path", str(tmp_path / "run")]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait_until(lambda: bool(asking(tmp_path)), timeout_s=30)
            asked = wait_until(lambda: (tmp_path / "run/series/idle-answers.ndjson").exists(), timeout_s=30)
            process.kill()
            is_gone = wait_until(lambda: not asking(tmp_path), timeout_s=10)

    assert asked
    assert is_gone


def asking(folder: Path) -> list[str]:
    """Return the idle phases whose plan lies in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode()
            if "loadtests.sending.idle_phase" in line and str(folder) in line:
                found.append(line)
    return found


@contextlib.contextmanager
def balanced(ports: list[int]) -> Iterator[int]:
    """Pass each connection on to the next of several ports, as a load balancer would."""
    turns = itertools.cycle(ports)

    def pass_on(client: socket.socket) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", next(turns))) as server:
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            copy(client, server)
            back.join(5)

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with raw_server(pass_on) as port:
        yield port
