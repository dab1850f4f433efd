"""Hosts that send what no agent sends: each is lost by itself, with a reason, and nothing here grows."""

from __future__ import annotations

import gzip
import json
import resource
import sys
import threading
import time
from pathlib import Path

import pytest

from burnin.fleet.carry import LINE_BYTES_MAX, RAW_FILE, Carrier
from burnin.fleet.host import Access, Host
from burnin.fleet.launchers.channel import ARCHIVE, Program
from burnin.fleet.launchers.local import LocalLauncher
from burnin.launcher import agent_program
from burnin.node.order import Order, StageOrder, order_to_line
from reports.record import create_run
from reports.run import Run, load_run
from reports.table import read_series, series_names
from tests.twins.nvml import Scenario, uuid

ORDER = Order(
    device="cuda", stages=(StageOrder(name="aftermath", length_s=0),), left_out=(), seed=1, stall_s=5
)
HOST = Host(name="peer", access=Access(launcher="local", python=sys.executable))
WRITE = "import os, sys, json, time\ndef say(data):\n    os.write(1, data)\n"
EVENT = (
    "def event(**more):\n"
    "    line = json.dumps({'t_ns': 1, 'host': 'x', 'source': 's', 'kind': 'k'} | more)\n"
    "    say(line.encode() + b'\\n')\n"
)


def _follow(
    folder: Path, code: str, *, silence_s: float = 5.0, deadline_s: float = 20.0
) -> tuple[str | None, Run]:
    """Follow a program that is no agent."""
    writer = create_run(folder, kind="burnin", spec={}, seed=1, host=HOST.name)
    launcher = LocalLauncher()
    program = Program(arguments=("-c", WRITE + EVENT + code, ARCHIVE), archive=b"")
    try:
        with writer:
            channel = launcher.start(HOST, program, within_s=20)
            carrier = Carrier(
                channel=channel,
                writer=writer,
                host=HOST.name,
                on_event=lambda event: None,
                silence_s=silence_s,
            )
            lost = carrier.carry(ORDER, deadline_s=deadline_s)
    finally:
        launcher.close()
    return lost, load_run(writer.path)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True: say(b'garbage\\n')", "lines that are no event"),
        ("while True: say(os.urandom(1 << 16))", "no event"),
        (f"say(b'x' * {LINE_BYTES_MAX + 2}); time.sleep(60)", "a line of more than 1 MiB"),
        ("say(b'[' * 100000 + b'\\n'); time.sleep(60)", "silent for"),
        ("while True: event(data={'x': 'y' * 60000})", "it sends without end"),
        ("time.sleep(60)", "silent for"),
        ("while True: event(kind='heartbeat'); time.sleep(0.1)", "its time was up"),
        ("for n in range(80): event(kind='sample', source=f's{n}', data={'v': 1})\ntime.sleep(60)", ""),
        ("sys.exit(3)", "it ended before it was done, exit code 3"),
    ],
)
def test_what_no_agent_sends_ends_that_host_with_a_reason(code: str, reason: str, tmp_path: Path) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lost, run = _follow(tmp_path, code, silence_s=2.0, deadline_s=4.0)

    assert lost is not None
    assert reason in lost
    assert [e.data["reason"] for e in run.events_of("agent.lost")] == [lost]
    assert len(series_names(run)) <= 64
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 << 10


def test_a_peer_can_neither_leave_its_folder_nor_speak_for_the_controller(tmp_path: Path) -> None:
    code = (
        "event(kind='sample', source='../../escaped', data={'v': 1})\n"
        "event(kind='run.finished', source='agent')\n"
        "event(kind='stage.started', source='controller', data={'stage': 'x'})\n"
        "event(kind='clock.offset', source='agent', data={'subject': 'other', 'offset_s': 99})\n"
        "event(kind='told', host='somebody else', data={'text': '\\x1b[2J'})\n"
        "event(kind='agent.finished')\n"
    )
    lost, run = _follow(tmp_path, code)

    assert lost is None
    assert list(tmp_path.rglob("*escaped*")) == []
    assert run.state == "running"
    assert len(run.events_of("line.torn")) == 4
    assert run.events_of("told")[0].host == "peer"
    assert run.clock_offset_s == {}


def test_the_clock_of_a_host_is_taken_from_the_quickest_exchange(tmp_path: Path) -> None:
    code = (
        "import select\n"
        "def answer(late, ahead):\n"
        "    asked = json.loads(sys.stdin.readline())['clock']\n"
        "    time.sleep(late)\n"
        "    now = time.time_ns() + int(ahead * 1e9)\n"
        "    event(kind='clock', t_ns=now, data={'asked_ns': asked, 'heard_ns': now})\n"
        "sys.stdin.readline()\n"
        "answer(0.5, 7.0)\n"
        "answer(0.0, 7.0)\n"
        "event(kind='sample', source='matmul', t_ns=time.time_ns() + 7 * 10**9, data={'v': 1})\n"
        "event(kind='agent.finished')\n"
    )
    lost, run = _follow(tmp_path, code)

    assert lost is None
    assert len(run.events_of("clock.offset")) == 2
    assert run.clock_offset_s["peer"] == pytest.approx(7.0, abs=0.2)
    (row,) = read_series(run, "matmul")
    assert row["t_ns"] == pytest.approx(time.time_ns(), abs=5e9)


def test_an_agent_that_hears_nothing_leaves_although_its_line_is_open() -> None:
    launcher = LocalLauncher()
    channel = launcher.start(HOST, agent_program(), within_s=20)
    order = Order(
        device="cpu",
        stages=(StageOrder(name="matmul", length_s=60),),  # it has much left to do when it leaves
        left_out=(),
        seed=1,
        stall_s=50,
        controller_silence_s=0.2,
    )
    channel.write(order_to_line(order).encode())
    began = time.monotonic()
    while channel.read():
        pass
    status = channel.end()
    launcher.close()

    assert status == 1
    assert time.monotonic() - began < 12


def test_somebody_can_stop_a_carrier_from_another_thread(tmp_path: Path) -> None:
    stop = threading.Event()
    writer = create_run(tmp_path, kind="burnin", spec={}, seed=1, host=HOST.name)
    launcher = LocalLauncher()
    program = Program(arguments=("-c", "import time; time.sleep(60)", ARCHIVE), archive=b"")
    with writer:
        channel = launcher.start(HOST, program, within_s=20)
        threading.Timer(0.3, stop.set).start()
        carrier = Carrier(channel=channel, writer=writer, host=HOST.name, on_event=lambda event: None)
        lost = carrier.carry(ORDER, deadline_s=60, stop=stop)
    launcher.close()

    assert lost == "we were told to stop"
    assert json.loads((writer.path / "events.ndjson").read_text().splitlines()[-1])["kind"] == "agent.lost"


@pytest.mark.needs("gcc")
def test_readings_as_they_were_taken_come_home_at_the_end(
    twin: Path, scenario: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario.set(gpus=2)
    for name, value in scenario.environment(twin).items():
        monkeypatch.setenv(name, value)
    order = Order(
        device="cpu",
        stages=(StageOrder(name="aftermath", length_s=0),),
        left_out=(),
        seed=1,
        stall_s=5,
        cpu_devices=1,
    )
    writer = create_run(tmp_path, kind="burnin", spec={}, seed=1, host=HOST.name)
    launcher = LocalLauncher()
    with writer:
        channel = launcher.start(HOST, agent_program(), within_s=20)
        carrier = Carrier(channel=channel, writer=writer, host=HOST.name, on_event=lambda event: None)
        lost = carrier.carry(order, deadline_s=60)
    launcher.close()

    assert lost is None
    (kept,) = load_run(writer.path).events_of("raw.kept")
    lines = gzip.decompress((writer.path / RAW_FILE).read_bytes()).splitlines()
    readings = [json.loads(line) for line in lines]
    assert kept.data["readings"] == len(readings) > 10
    assert kept.data["dropped"] == 0
    assert {reading["gpu"] for reading in readings} == {uuid(0), uuid(1)}
    assert all(reading["power_w"] > 0 for reading in readings)
