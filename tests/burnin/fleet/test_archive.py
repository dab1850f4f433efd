"""The archive that travels: always the same bytes, enough by itself, and runnable on the oldest Python."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from burnin.fleet.archive import build_archive
from burnin.fleet.host import Access, Host
from burnin.fleet.launchers.channel import ARCHIVE, Channel, Program
from burnin.fleet.launchers.local import LocalLauncher
from burnin.node.order import Order, StageOrder, order_to_line
from probes.errors import TargetError
from tests.burnin.pythons import oldest_python

# Wants GPUs, so that without any there is no worker and torch is not imported.
ORDER = Order(
    device="cuda", stages=(StageOrder(name="aftermath", length_s=0),), left_out=(), seed=1, stall_s=5
)


def _start(launcher: LocalLauncher, *arguments: str, python: str = sys.executable) -> Channel:
    host = Host(name="here", access=Access(launcher="local", python=python))
    program = Program(arguments=arguments, archive=build_archive(), environment=(("GREETING", "a b"),))
    return launcher.start(host, program, within_s=20)


def _said(channel: Channel) -> bytes:
    heard = b""
    while data := channel.read():
        heard += data
    return heard


def test_the_archive_has_the_same_bytes_in_every_process() -> None:
    code = "import sys; from burnin.fleet.archive import build_archive as b; sys.stdout.buffer.write(b())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30)

    assert other.stdout == build_archive()


def test_agent_and_children_run_from_a_memory_without_name_on_the_oldest_python() -> None:
    launcher = LocalLauncher()
    channel = _start(launcher, ARCHIVE, "burnin.node.agent", python=oldest_python())
    channel.write(order_to_line(ORDER).encode())
    told = {event["kind"]: event["data"] for event in map(json.loads, _said(channel).splitlines())}
    launcher.close()

    assert {"agent.started", "nvml.inventory", "host.snapshot", "agent.finished"} <= told.keys(), (
        channel.errors()
    )
    assert channel.end() == 0


def test_arguments_arrive_as_they_were_given_and_the_working_folder_is_nobodys() -> None:
    code = "import json,os,sys; print(json.dumps([sys.argv[1:], os.environ['GREETING'], os.getcwd()]))"
    launcher = LocalLauncher()
    odd = ["$(id)", "it's", 'a "b"\n', "-x", "{}"]
    said = _said(_start(launcher, "-c", code, ARCHIVE, *odd))
    launcher.close()
    (archive, *others), greeting, folder = json.loads(said)

    assert archive.startswith("/proc/")
    assert (others, greeting, folder) == (odd, "a b", "/")


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(TargetError, match="here: /no/such/python: No such file"):
        _start(LocalLauncher(), "-c", "", python="/no/such/python")


def test_an_interpreter_that_fails_is_quoted() -> None:
    with pytest.raises(TargetError, match=r"here: the program did not begin: .* \(exit status 1\)"):
        _start(LocalLauncher(), "-c", "", python="/bin/false")


def test_a_program_that_never_begins_is_ended_in_time(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    host = Host(name="here", access=Access(launcher="local", python=str(slow)))
    program = Program(arguments=("-c", ""), archive=b"")

    with pytest.raises(TargetError, match="no program began within 0 s"):
        LocalLauncher().start(host, program, within_s=0.3)
