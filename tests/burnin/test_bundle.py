"""What is collected for the vendor after a FAIL: by real programs, each with a deadline and a limit."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from burnin.bundle import Item, bundle_items, collect_bundle, is_wanted
from burnin.judging import judge_run
from probes.child import wait_until
from probes.json_types import JsonObject
from reports.session import rejudge
from tests.burnin.node_record import Node
from tests.burnin.vendor_output import install, prints
from tests.processes import processes_with

REPORT = 'printf %s "report" > "$2.gz"'  # as the script does where there is gzip


def _items(**limits: float) -> list[Item]:
    """Return what is collected, with other limits."""
    return [
        replace(item, programs=tuple(replace(program, **limits) for program in item.programs))  # type: ignore[arg-type]
        for item in bundle_items()
    ]


def _index(folder: Path) -> dict[str, JsonObject]:
    entries = json.loads((folder / "bundle" / "index.json").read_text())
    return {entry["tool"]: entry for entry in entries}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that come first."""
    folder = install(tmp_path / "bin", {})
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_each_file_is_collected_whole_and_listed_with_its_digest(path: Path, tmp_path: Path) -> None:
    wants_list = f'[ "$2" = elist ] && {{ echo no such form >&2; exit 1; }}\n{prints("1 | fan")}'
    install(path, {"nvidia-bug-report.sh": REPORT, "ipmitool": wants_list, "dmesg": prints("kernel\n")})

    collect_bundle(tmp_path)

    index, bundle = _index(tmp_path), tmp_path / "bundle"
    assert (bundle / "nvidia-bug-report.log.gz").read_bytes() == b"report"
    assert (bundle / "bmc-events.txt").read_bytes() == b"1 | fan"
    assert (bundle / "kernel-log.txt").read_bytes() == b"kernel\n"
    assert len(list(bundle.iterdir())) == 4
    assert {tool for tool, entry in index.items() if not entry["is_complete"]} == {"ipmitool sel elist"}
    assert index["ipmitool sel elist"]["complaints"] == "no such form\n"
    kernel = index["dmesg"]
    assert (kernel["command"], kernel["exit_code"], kernel["bytes"]) == (["dmesg"], 0, 7)
    assert kernel["sha256"] == hashlib.sha256(b"kernel\n").hexdigest()
    assert kernel["seconds"] > 0


def test_what_is_missing_late_or_too_big_is_said_and_ends_nothing_else(path: Path, tmp_path: Path) -> None:
    mark = f"OVERPROOF_LATE={tmp_path}"
    late = f"[ $2 = elist ] && exit 1\n{mark}; export OVERPROOF_LATE\ntrap '' TERM\necho begun\n"
    late += "sleep 321 &\nsleep 321"
    install(path, {"ipmitool": late, "dmesg": "yes | head -c 200000", "journalctl": prints("short")})

    collect_bundle(tmp_path, _items(within_s=0.4, bytes_max=50_000))

    index = _index(tmp_path)
    assert index["nvidia-bug-report"]["failure"] == "cannot be started: No such file or directory"
    assert index["ipmitool sel list"]["failure"] == "not done within 0 s"
    assert (tmp_path / "bundle" / "bmc-events.txt").read_text() == "begun\n"
    assert (index["dmesg"]["bytes"], index["dmesg"]["is_truncated"]) == (50_000, True)
    assert (tmp_path / "bundle" / "kernel-log.txt").read_text() == "short"
    assert processes_with(mark) == []


@pytest.mark.needs("root", "mount")
def test_a_full_disk_is_said_and_leaves_an_index(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    install(path, {"nvidia-bug-report.sh": REPORT, "dmesg": "yes | head -c 3000000"})
    install(path, {"ipmitool": "exit 1", "journalctl": "exit 1"})
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "overproof-test", str(disk)], check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a tmpfs")
    try:
        collect_bundle(disk)
        index = _index(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)

    assert index["dmesg"]["failure"] == "not written: No space left on device"
    assert index["nvidia-bug-report"]["is_complete"]
    assert "not whole: bmc-events.txt, kernel-log.txt" in capsys.readouterr().err


@pytest.mark.needs("gcc")
def test_only_a_run_that_failed_has_anything_to_send_back(tmp_path: Path) -> None:
    healthy = Node().write(tmp_path)
    slow = Node(tflops=lambda gpu, second: 300.0 if gpu == 3 else 700.0).write(tmp_path)
    for run in (healthy, slow):
        rejudge(run, judge_run)

    assert not is_wanted(healthy)
    assert is_wanted(slow)


@pytest.fixture
def collecting(path: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A burn-in that fails, whose bundle is being collected: the report is there, dmesg hangs."""
    hangs = f"OVERPROOF_LOG={tmp_path}; export OVERPROOF_LOG\nsleep 321 & wait"
    install(path, {"nvidia-bug-report.sh": REPORT, "ipmitool": "exit 1", "dmesg": hangs})
    plan = "device: cpu\ncpu_devices: 1\nonly: [vendor]\ngpus_expected: 9\nbundle: true\n"
    (tmp_path / "plan.yaml").write_text(plan)
    command = ["-m", "overproof", "burnin", "run", "--plan", "plan.yaml"]
    with subprocess.Popen([sys.executable, "-P", *command], cwd=tmp_path, text=True) as process:
        assert wait_until(lambda: processes_with(f"OVERPROOF_LOG={tmp_path}") != [], timeout_s=60)
        yield process
    assert wait_until(lambda: processes_with(f"OVERPROOF_LOG={tmp_path}") == [], timeout_s=30)


def test_ctrl_c_while_it_is_collected_leaves_the_record_and_nothing_running(
    collecting: subprocess.Popen[str], tmp_path: Path
) -> None:
    collecting.send_signal(signal.SIGINT)

    assert collecting.wait(timeout=30) == 130
    assert processes_with(f"OVERPROOF_LOG={tmp_path}") == []
    run = next((tmp_path / "runs").glob("*-burnin-*"))
    findings = [json.loads(line) for line in (run / "findings.ndjson").read_text().splitlines()]
    outcomes = {finding["rule"]: finding["outcome"] for finding in findings}
    assert (outcomes["devices"], outcomes["completeness"]) == ("fail", "pass")
    index = _index(run)
    assert index["nvidia-bug-report"]["is_complete"]
    assert index["dmesg"]["failure"] == "interrupted"
    assert (run / "report.html").exists()


def test_kill_9_while_it_is_collected_leaves_nothing_running(path: Path, tmp_path: Path) -> None:
    mark = f"OVERPROOF_LOG={tmp_path}"
    install(
        path, {"nvidia-bug-report.sh": f"{mark}; export OVERPROOF_LOG\ntrap '' TERM\nsleep 321 & sleep 321"}
    )
    collect = "import sys, pathlib, burnin.bundle as b; b.collect_bundle(pathlib.Path(sys.argv[1]))"
    with subprocess.Popen([sys.executable, "-c", collect, str(tmp_path)]) as process:
        assert wait_until(lambda: processes_with(mark) != [], timeout_s=30)
        process.kill()

    assert process.returncode == -signal.SIGKILL
    assert wait_until(lambda: processes_with(mark) == [], timeout_s=30)
