"""The load of the host itself: seeded faults are found, each process is bound, files have no name."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from burnin.node.disk_load import measure_disks, open_nameless
from burnin.node.host_load import CHECKS, _run_each, check_core, check_memory, read_nodes, wrong_results
from probes.child import python_module, start_child, wait_until
from probes.json_types import JsonObject
from tests.probes.trees import plant

SIZE = 8 << 20


def test_a_sound_core_is_right_in_every_check_and_a_spoilt_result_is_named() -> None:
    assert wrong_results() == []
    assert [wrong_results(flipped=name) for name in CHECKS] == [[name] for name in CHECKS]
    assert check_core(0.0) == {"rounds": 1, "wrong": []}


def test_a_flipped_bit_in_memory_is_found_at_its_offset_and_sound_memory_passes() -> None:
    (wrong,) = check_memory(SIZE, flipped_at=5_000_001)["wrong"]

    assert wrong == {"offset": 5_000_001, "got": 0x10, "wanted": 0, "pattern": 0}
    assert check_memory(SIZE)["wrong"] == []


def test_each_process_works_on_its_own_core() -> None:
    cores = sorted(os.sched_getaffinity(0))

    rows = _run_each(
        {str(core): [core] for core in cores}, lambda: {"on": sorted(os.sched_getaffinity(0))}, 0.1
    )

    assert rows == [{"place": str(core), "on": [core]} for core in cores]


def _die() -> JsonObject:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def test_a_process_that_a_bad_core_killed_is_told() -> None:
    core = min(os.sched_getaffinity(0))

    rows = _run_each({"7": [core]}, _die, 0.1)

    assert rows == [{"place": "7", "died": "died"}]


def test_cores_of_nodes_are_those_that_we_may_use(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    plant(tmp_path, {"node0/cpulist": f"{core}\n", "node1/cpulist": "9000-9003\n"})

    assert read_nodes(tmp_path) == {"node0": [core]}
    assert set(read_nodes(tmp_path / "nothing")) == {"node0"}


def test_without_fio_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    (row,) = measure_disks({"directories": [str(tmp_path)], "size_bytes": SIZE})

    assert row == {"directory": str(tmp_path), "absent": "fio is not installed"}


@pytest.mark.needs("fio")
def test_fio_measures_a_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    (row,) = measure_disks({"directories": [str(tmp_path)], "size_bytes": SIZE})

    assert row["write_mbps"] > 0
    assert row["read_mbps"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("fio")
def test_a_folder_that_is_too_full_or_not_there_is_left_alone(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    too_much = room.f_bavail * room.f_frsize // 5

    (full,) = measure_disks({"directories": [str(tmp_path)], "size_bytes": too_much})
    (absent,) = measure_disks({"directories": [str(tmp_path / "no")], "size_bytes": SIZE})

    assert "too few" in full["problem"]
    assert absent["problem"] == "No such file or directory"


def test_a_file_without_a_name_has_none_even_where_the_file_system_lacks_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_EXCL)  # refused, as on NFS

    descriptor = open_nameless(str(tmp_path))

    assert os.write(descriptor, b"x") == 1
    assert list(tmp_path.iterdir()) == []
    os.close(descriptor)


@pytest.mark.needs("fio")
def test_when_whoever_wanted_the_load_is_gone_neither_fio_nor_a_file_stays(tmp_path: Path) -> None:
    load = start_child(python_module("burnin.node.host_load"))
    assert load.stdin is not None
    disk = {"directories": [str(tmp_path)], "size_bytes": SIZE}
    load.stdin.write(json.dumps({"length_s": 0.1, "disk": disk}) + "\n")

    assert wait_until(lambda: "fio" in _names_of_group(load.pid), timeout_s=30, interval_s=0.01)
    load.stdin.close()

    assert wait_until(lambda: not _names_of_group(load.pid), timeout_s=10, interval_s=0.01)
    assert list(tmp_path.iterdir()) == []
    assert load.wait(timeout=5) == -signal.SIGKILL
    assert load.stdout is not None
    load.stdout.close()


def _names_of_group(group: int) -> list[str]:
    """Return the names of the living processes of a group."""
    names = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, _, pgrp = rest.split()[:3]
        if int(pgrp) == group and state not in ("Z", "X"):
            names.append(name)
    return names
