"""Autoscaling end to end: a lab that starts and ends real replicas, well or not, and whole load runs."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.lab.autoscaler import ScalePlan
from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run, load_run
from reports.table import read_series
from tests.experiments.labs import running_lab
from tests.loadtests.endpoints import endpoint

COMMAND = [sys.executable, "-P", "-m", "overproof", "load", "run"]
# One replica is enough for 2 requests/s, three are wanted for 20.
SPIKE = """
name: spike
arrivals: {{kind: spike, rate_per_s: 2, spike_per_s: 20, at_s: 2.5, for_s: 12.5, process: constant}}
duration_s: 25
prompt: {{input_tokens: {{kind: constant, value: 16}}, output_tokens: {{kind: constant, value: 16}}}}
calibrate_prompts: false
expect:
  autoscale:
    replicas: {{kind: page, url: "{url}/metrics", metric: overproof_lab_replicas_serving}}
    scale_up: {{to_min: 3, within_s: 8}}
    release: {{to_max: 1, within_s: 8}}
    flaps_max: 0
"""
UNSEEN = """
name: unseen
arrivals: {{kind: spike, rate_per_s: 2, spike_per_s: 10, at_s: 2, for_s: 4}}
duration_s: 6
prompt: {{input_tokens: {{kind: constant, value: 16}}, output_tokens: {{kind: constant, value: 4}}}}
calibrate_prompts: false
expect:
  autoscale:
    replicas: {{{source}, window_s: 1}}
    scale_up: {{to_min: 2, within_s: 1}}
"""
FAULTS = ("", "never-up", "late-up", "never-down")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Run all of them at the same time: they mostly wait.

    One that a busy machine left undecided is run once more, alone; one that is decided is not.
    """
    folder = tmp_path_factory.mktemp("autoscale")
    with contextlib.ExitStack() as stack:
        spikes = {name: _spike(folder, name, stack) for name in FAULTS}
        started = {name: _start(folder, name, *spike) for name, spike in spikes.items()}
        nobody = stack.enter_context(endpoint("--name", ""))
        closed = stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0))))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
        closed.close()
        sources = {
            "no-header": "kind: header",
            "dead-prometheus": f'kind: prometheus, url: "{dead}", query: sum(up)',
        }
        for name, source in sources.items():
            started[name] = _start(folder, name, UNSEEN.format(source=source), nobody.url)
        for name, child in started.items():
            assert child.wait(timeout=90) in (0, 1, 3), (folder / f"{name}.log").read_text()
        found = {name: load_run(folder / f"run-{name}") for name in started}
        for name, spike in spikes.items():
            if autoscale(found[name]).outcome is Outcome.INCONCLUSIVE:
                _start(folder, f"{name}-again", *spike).wait(timeout=90)
                found[name] = load_run(folder / f"run-{name}-again")
        yield found


def _spike(folder: Path, fault: str, stack: contextlib.ExitStack) -> tuple[str, str]:
    scale = ScalePlan(replicas_min=1, replicas_max=3, in_flight_target=2, up_s=0.8, down_s=1, fault=fault)
    lab = stack.enter_context(running_lab(folder / f"lab-{fault}", replicas=1, load_s=0.3, scale=scale))
    return SPIKE.format(url=lab.url), lab.url


def _start(folder: Path, name: str, workload: str, url: str) -> subprocess.Popen[bytes]:
    path = folder / f"{name}.yaml"
    path.write_text(workload)
    arguments = [str(path), "--endpoint", url, "--path", str(folder / f"run-{name}"), "--no-calibration"]
    with (folder / f"{name}.log").open("w") as log:
        return subprocess.Popen([*COMMAND, *arguments], stdout=log, stderr=log)


def autoscale(run: Run) -> Finding:
    return next(finding for finding in run.findings if finding.rule == "autoscale")


def test_replicas_that_come_and_go_with_the_load_pass(runs: dict[str, Run]) -> None:
    found = autoscale(runs[""])

    assert found.outcome is Outcome.PASS, found.observed
    assert (found.evidence["replicas_before"], found.evidence["replicas_last"]) == (1, 1)
    assert found.evidence["replicas_most"] == 3
    assert found.evidence["t_enough_s"][1] > 2.5
    assert 0 < found.evidence["under_replica_s"] < 2 * 8
    assert 0 < found.evidence["over_replica_s"] < 2 * 8


def test_the_samples_are_in_the_record_to_the_end_of_the_idle_time(runs: dict[str, Run]) -> None:
    rows = read_series(runs[""], "replicas")

    assert {row["source"] for row in rows} == {"page"}
    assert rows[-1]["t_ns"] - rows[0]["t_ns"] > 20e9
    assert "Replicas that were seen to serve" in (runs[""].path / "report.html").read_text()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("never-up", "at most 1 replicas were seen"),
        ("late-up", "spike"),
        ("never-down", "3 replicas still"),
    ],
)
def test_replicas_that_do_not_come_or_come_late_or_stay_fail(
    runs: dict[str, Run], fault: str, said: str
) -> None:
    found = autoscale(runs[fault])

    assert (found.outcome, runs[fault].outcome) == (Outcome.FAIL, Outcome.FAIL), found.observed
    assert said in found.observed
    assert found.next_step
    if fault == "late-up":  # after its ten delays, or on a busy machine not before the spike's end
        assert (found.evidence["t_enough_s"][1] or 99) > 2.5 + 8


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-header", "by header: no answer named its replica"),
        ("dead-prometheus", "by prometheus: [Errno 111] Connection refused"),
    ],
)
def test_replicas_that_nobody_saw_are_inconclusive(runs: dict[str, Run], name: str, said: str) -> None:
    found = autoscale(runs[name])

    assert (found.outcome, runs[name].outcome) == (Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE)
    assert said in found.observed
