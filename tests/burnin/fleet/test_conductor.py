"""Hosts conducted together: limits and caps are kept, nobody runs without permission, Ctrl-C ends all."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from burnin.fleet.conductor import Conductor
from burnin.fleet.host import Access, Expected, Fleet, Host, Place, PowerCap
from burnin.fleet.host_run import HostJob
from burnin.fleet.judges import Judges
from burnin.fleet.launchers.channel import ARCHIVE, Program
from burnin.fleet.launchers.local import LocalLauncher
from burnin.node.order import PHASE_OFFSET, Order, StageOrder
from probes.child import wait_until
from reports.record import create_run
from reports.run import Run, load_run
from reports.table import read_series
from tests.processes import start_job, wait_for

POWER = StageOrder(name="power", length_s=1)
ORDER = Order(device="cuda", stages=(POWER,), left_out=(), seed=1, stall_s=5)
# Says that it began, works for a moment, and is done.
AGENT = (
    "import json,sys,time; sys.stdin.readline()\n"
    "def say(kind):\n"
    "    event = {'t_ns': time.time_ns(), 'host': 'x', 'source': 'agent', 'kind': kind}\n"
    "    print(json.dumps(event), flush=True)\n"
    "say('agent.started'); time.sleep(0.5); say('agent.finished')\n"
)


def _host(name: str, **more: object) -> Host:
    access = Access(launcher="local", python=sys.executable)
    return replace(Host(name=name, access=access, permission="listed"), **more)  # type: ignore[arg-type]


def _conduct(fleet: Fleet, folder: Path, *, agent: str = AGENT, hosts_max: int = 8) -> Run:
    launcher, writer = LocalLauncher(), create_run(folder, kind="fleet", spec={}, seed=1)
    job = HostJob(
        fleet_run=writer.path,
        program=Program(arguments=("-c", agent, ARCHIVE), archive=b"x"),
        seed=1,
        spec={"fleet": "f"},
        start_within_s=20,
        stop=threading.Event(),
    )
    conductor = Conductor(
        fleet=fleet,
        order=ORDER,
        job=job,
        writer=writer,
        launcher_of=lambda host: launcher,
        hosts_max=hosts_max,
    )
    with writer, Judges(1) as judges:
        conductor.run(fleet.hosts, judges)
    launcher.close()
    return load_run(writer.path)


def _at_once_max(run: Run) -> int:
    """Return how many agents ran at the same time, by their own records."""
    marks = []
    for folder in run.path.glob("hosts/*"):
        own = load_run(folder)
        marks += [(own.events_of("agent.started")[0].t_ns, 1), (own.events_of("agent.finished")[0].t_ns, -1)]
    running, most = 0, 0
    for _, step in sorted(marks):
        running += step
        most = max(most, running)
    return most


def test_no_more_hosts_run_at_once_than_a_cap_on_their_rack_allows(tmp_path: Path) -> None:
    place, h100 = Place(rack="r1"), Expected(gpus=8, model="NVIDIA H100 80GB HBM3")
    hosts = tuple(_host(f"n{number}", place=place, expected=h100) for number in range(3))
    caps = (PowerCap(kind="rack", name="r1", watts=6000.0),)
    run = _conduct(Fleet(name="f", hosts=hosts, power_caps=caps), tmp_path)

    assert {row["state"] for row in read_series(run, "host")} == {"finished"}
    assert _at_once_max(run) == 1


def test_no_more_hosts_run_at_once_than_were_asked_for_and_their_steps_are_out_of_phase(
    tmp_path: Path,
) -> None:
    run = _conduct(Fleet(name="f", hosts=tuple(_host(f"n{n}") for n in range(4))), tmp_path, hosts_max=2)
    orders = [load_run(folder).header.spec["order"] for folder in run.path.glob("hosts/*")]

    assert len(read_series(run, "host")) == 4
    assert _at_once_max(run) <= 2
    offsets = [stage["options"][PHASE_OFFSET] for order in orders for stage in order["stages"]]
    assert sorted(offsets) == [0.0, 0.5, 1.0, 1.5]


def test_a_host_that_nobody_calls_free_is_not_touched_and_named(tmp_path: Path) -> None:
    run = _conduct(Fleet(name="f", hosts=(_host("free"), _host("busy", permission=None))), tmp_path)

    rows = {row["host"]: row for row in read_series(run, "host")}
    assert rows["free"]["state"] == "finished"
    assert (rows["busy"]["state"], rows["busy"]["run"]) == ("unpermitted", "")
    assert not (run.path / "hosts" / "busy").exists()
    assert [e.data["subject"] for e in run.events_of("host.started")] == ["free"]


def test_a_host_that_breaks_us_leaves_the_others_alone(tmp_path: Path) -> None:
    hosts = (_host("good"), _host("bad", access=Access(launcher="local", python="/bin/false")))
    rows = {row["host"]: row for row in read_series(_conduct(Fleet(name="f", hosts=hosts), tmp_path), "host")}

    assert rows["good"]["state"] == "finished"
    assert rows["bad"]["state"] == "failed to start"
    assert rows["bad"]["outcome"] == "inconclusive"


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_ctrl_c_ends_every_agent_and_leaves_a_record_that_says_so(
    number: signal.Signals, tmp_path: Path
) -> None:
    text = 'name: f\ngroups:\n  - {hosts: "n[1-2]", launcher: local, permission: listed}\n'
    (tmp_path / "fleet.yaml").write_text(text)
    (tmp_path / "plan.yaml").write_text("device: cpu\ncpu_devices: 1\nduration_s: 60\nonly: [matmul]\n")
    job = start_job(["burnin", "run", "fleet.yaml", "--plan", "plan.yaml"], tmp_path)
    latest = tmp_path / "runs" / "latest"
    begun = ("n1", "n2")
    wait_for(
        lambda: all((latest / "hosts" / name / "events.ndjson").exists() for name in begun),
        job,
        timeout_s=60,
        what="both agents",
    )
    job.signal(number)

    assert job.wait(timeout_s=30) == 130, job.text()
    assert wait_until(lambda: not job.descendants(), timeout_s=5), job.descendants()
    run = load_run(latest)
    assert run.state == "interrupted"
    assert {row["state"] for row in read_series(run, "host")} == {"interrupted"}
    assert run.outcome == "inconclusive"
