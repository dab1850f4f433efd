"""Whole runs on three devices with faults in several stages: each named where it is, and nobody else."""

from __future__ import annotations

import time
from pathlib import Path

from probes.outcome import Outcome
from tests.burnin.test_burn import burn

THREE = (
    "device: cpu\ncpu_devices: 3\nstall_s: 4\nduration_s: 4\n"
    "matmul: {formats: [fp32]}\nallreduce: {sizes_bytes: [8, 4096]}\n"
)


def test_faults_in_four_stages_on_three_devices_are_each_named_where_they_are(tmp_path: Path) -> None:
    faults = (
        "memory:stuck_bit@cpu:0",
        "bandwidth:bit_flip@cpu:1",
        "links:bit_flip@cpu:2",
        "power:every_product@cpu:1",
    )
    plan = f"{THREE}leave_out: [matmul, allreduce]\n"

    found = burn(tmp_path, plan, *(part for fault in faults for part in ("--seed-fault", fault)))

    # Whether rounding could explain the flipped bit depends on the bit; the two others outvote it either way.
    assert found.having(Outcome.FAIL) - {("first-product", "device:cpu:1")} == {
        ("memory", "device:cpu:0"),
        ("bandwidth", "device:cpu:1"),
        ("link", "link:cpu:0-cpu:2"),
        ("link", "link:cpu:1-cpu:2"),
        ("link-end", "device:cpu:2"),
    } | found.having(Outcome.FAIL) & {("digest", "device:cpu:1")}
    assert {("digest", "device:cpu:1"), ("first-product", "device:cpu:1")} & found.having(Outcome.FAIL)
    assert ("memory", "device:cpu:1") in found.having(Outcome.PASS)
    assert ("digest", "device:cpu:0") in found.having(Outcome.PASS)
    assert {("left-out", "stage:matmul"), ("left-out", "stage:allreduce")} <= found.having(None)
    memory = next(m for m in found.run.events_of("miscompare") if m.data["stage"] == "memory")
    assert memory.data["period"] == 4096 * 8


def test_a_device_that_never_joins_a_collective_is_named_among_those_that_wait_for_it(tmp_path: Path) -> None:
    started = time.monotonic()
    found = burn(tmp_path, f"{THREE}only: [allreduce, memory]\n", "--seed-fault", "allreduce:absent@cpu:1")

    assert found.having(Outcome.FAIL) == {("worker", "device:cpu:1")}
    assert time.monotonic() - started < 60
    for device in ("device:cpu:0", "device:cpu:2"):
        assert ("worker", device) in found.having(Outcome.PASS)
        assert ("memory", device) in found.having(Outcome.PASS)
