"""The vendor's bundle of a host that failed: made there by real programs, fetched into its record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from burnin.fleet.archive import build_archive
from burnin.fleet.bundles import collect_bundles
from burnin.fleet.host import Access, Host
from burnin.fleet.launchers.channel import Channel, Program
from probes.errors import TargetError
from reports.record import RunWriter
from reports.run import load_run
from tests.burnin.fleet.kills import PLAN
from tests.burnin.vendor_output import install, prints


class _Gone:
    """A launcher of hosts that cannot be reached any more."""

    def start(self, host: Host, program: Program, *, within_s: float) -> Channel:
        raise TargetError(f"{host.name}: connection refused")

    def close(self) -> None:
        """There is nothing to end."""


def test_a_host_that_failed_makes_its_bundle_and_one_that_is_gone_then_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = 'printf %s "report" > "$2.gz"'
    tools = install(tmp_path / "bin", {"nvidia-bug-report.sh": report, "dmesg": prints("kernel\n")})
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    fleet = {
        "name": "f",
        "defaults": {"permission": "listed", "launcher": "local"},
        "groups": [{"hosts": "a"}],
    }
    (tmp_path / "fleet.yaml").write_text(json.dumps(fleet))
    (tmp_path / "plan.yaml").write_text(PLAN.replace("duration_s: 6", "duration_s: 4"))
    options = ["--plan", "plan.yaml", "--bundle", "--seed-fault", "matmul:bit_flip@cpu:0"]

    done = subprocess.run(
        [sys.executable, "-P", "-m", "overproof", "burnin", "run", "fleet.yaml", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 1, done.stderr
    run = load_run(tmp_path / done.stdout.splitlines()[-1])
    bundle = run.path / "hosts" / "a" / "bundle"
    assert (bundle / "nvidia-bug-report.log.gz").read_bytes() == b"report"
    assert (bundle / "kernel-log.txt").read_bytes() == b"kernel\n"
    assert run.events_of("bundle")[0].data["lacking"] == ["bmc-events.txt", "bmc-events.txt"]

    (bundle / "index.json").unlink()
    host = Host(name="a", access=Access(launcher="local"))
    with RunWriter(run.path, run.header) as writer:
        collect_bundles(
            writer, [host], lambda host: _Gone(), build_archive(), stop=threading.Event(), start_within_s=5
        )
    entries = json.loads((bundle / "index.json").read_text())
    assert {entry["failure"] for entry in entries} == {"its runner did not answer in time"}
