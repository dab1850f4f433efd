"""Host sensors, read from a file tree of our own and from this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from probes.host import COUNTERS, read_counters, read_cpu_quota, read_room, read_usable_cores


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "sys/devices/system/edac/mc/mc0/ce_count": "3\n",
        "sys/devices/system/edac/mc/mc0/ue_count": "0\n",
        "sys/devices/system/edac/mc/mc1/ce_count": "4\n",
        "sys/devices/system/edac/mc/mc1/ue_count": "1\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_total_time_ms": "20\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_total_time_ms": "50\n",
        "proc/interrupts": "      CPU0  CPU1\nMCE:     1     2   Machine check exceptions\nMCP: 9 9 polls\n",
        "proc/vmstat": "nr_free_pages 9\noom_kill 5\n",
        "proc/meminfo": "MemTotal: 100 kB\nMemAvailable:   2048 kB\n",
        "proc/loadavg": "1.50 1.0 0.5 1/100 7\n",
        "proc/pressure/cpu": "some avg10=12.50 avg60=0 avg300=0 total=1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_counters_are_summed_over_memory_controllers_and_taken_from_the_worst_core(tree: Path) -> None:
    assert read_counters(tree) == {
        "edac_corrected": 7,
        "edac_uncorrected": 1,
        "machine_checks": 3,
        "core_throttled_ms": 50,
        "oom_kills": 5,
    }


def test_what_a_machine_does_not_have_is_none_and_not_zero(tmp_path: Path) -> None:
    assert read_counters(tmp_path) == dict.fromkeys(COUNTERS)
    room = read_room(tmp_path)
    assert (room["memory_available_bytes"], room["load_1min"]) == (None, None)


def test_room_says_what_there_is(tree: Path) -> None:
    room = read_room(tree)

    assert room["memory_available_bytes"] == 2048 * 1024
    assert (room["load_1min"], room["cpu_pressure_pct"]) == (1.5, 12.5)


def test_a_containers_quota_limits_the_cores_that_are_used(tree: Path) -> None:
    quota = tree / "sys/fs/cgroup/cpu.max"
    quota.parent.mkdir(parents=True)
    quota.write_text("100000 100000\n")

    assert read_cpu_quota(tree) == 1.0
    assert len(read_usable_cores(tree)) == 1
    quota.write_text("max 100000\n")
    assert read_cpu_quota(tree) is None
    assert read_usable_cores(tree) == sorted(os.sched_getaffinity(0))


def test_this_machine_has_memory_and_a_count_of_oom_kills() -> None:
    assert read_room()["memory_available_bytes"] > 10**8
    assert isinstance(read_counters()["oom_kills"], int)
