"""Absolute figures of a whole recorded node: floors with their source, thresholds that a file moves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnin.expectation import AllreduceFloor
from burnin.judging import judge_run
from burnin.rules.figures import floor_for_allreduce
from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run, load_run
from tests.burnin.node_record import Node
from tests.processes import start_job
from tests.twins.nvml import uuid


def _of(run: Run, rule: str, index: int | None = None) -> list[Finding]:
    found = [finding for finding in judge_run(run) if finding.rule == rule]
    return found if index is None else [f for f in found if f.subject == f"gpu:{uuid(index)}"]


def test_a_healthy_node_passes_every_rule(tmp_path: Path) -> None:
    findings = judge_run(Node().write(tmp_path))

    assert [f for f in findings if f.outcome not in (Outcome.PASS, None)] == []
    assert {f.subject for f in findings if f.rule == "tflops"} == {f"gpu:{uuid(i)}" for i in range(8)}


def test_a_node_that_is_slow_as_a_whole_fails_although_its_gpus_are_alike(tmp_path: Path) -> None:
    run = Node(tflops=lambda gpu, second: 500.0).write(tmp_path)

    assert {f.outcome for f in _of(run, "speed")} == {Outcome.PASS}
    assert {f.outcome for f in _of(run, "tflops")} == {Outcome.FAIL}
    assert "ml-engineering" in _of(run, "tflops")[0].expected


def test_a_model_that_nobody_described_is_judged_by_its_siblings_and_says_so(tmp_path: Path) -> None:
    slow = Node(faults=("name NVIDIA_L40S",), tflops=lambda gpu, second: 100.0 if gpu == 3 else 200.0)
    run = slow.write(tmp_path)

    assert {f.outcome for f in _of(run, "expectation")} == {None}
    assert "siblings only" in _of(run, "expectation")[0].observed
    assert {f.outcome for f in _of(run, "tflops")} == {None}
    assert [f.subject for f in _of(run, "speed") if f.outcome is Outcome.FAIL] == [f"gpu:{uuid(3)}"]


def test_a_gpu_that_is_slow_at_its_full_clock_is_told_from_one_whose_clock_is_low(tmp_path: Path) -> None:
    def rate(gpu: int, second: int) -> float:
        return 560.0 if gpu in (2, 5) else 700.0

    low = {"sm_clock_mhz": 1360}
    run = Node(tflops=rate, gpu_row=lambda gpu, second: low if gpu == 5 else {}).write(tmp_path)

    assert [f.outcome for f in _of(run, "speed", 2) + _of(run, "speed", 5)] == [Outcome.FAIL] * 2
    assert _of(run, "speed-per-clock", 2)[0].outcome is Outcome.FAIL
    assert _of(run, "speed-per-clock", 5)[0].outcome is Outcome.PASS


def test_a_gpu_that_never_drew_its_power_is_undecided_however_fast_it_was(tmp_path: Path) -> None:
    run = Node(gpu_row=lambda gpu, second: {"power_w": 400.0} if gpu == 1 else {}).write(tmp_path)

    assert _of(run, "power-reached", 1)[0].outcome is Outcome.INCONCLUSIVE
    assert _of(run, "power-reached", 0)[0].outcome is Outcome.PASS


def test_power_drawn_before_the_load_does_not_count(tmp_path: Path) -> None:
    def row(gpu: int, second: int) -> dict[str, float]:
        return {"power_w": 700.0 if second < 4 or second > 26 else 300.0}

    run = Node(gpu_row=row).write(tmp_path)

    assert {f.outcome for f in _of(run, "power-reached")} == {Outcome.INCONCLUSIVE}


def test_the_one_gpu_with_other_firmware_is_named_and_a_tie_blames_nobody(tmp_path: Path) -> None:
    old = {"vbios": "96.00.61.00.01"}
    one = _of(Node(identity={4: old}).write(tmp_path), "firmware")
    tie = _of(Node(identity=dict.fromkeys(range(4), old)).write(tmp_path), "firmware")

    failed = [f for f in one if f.outcome is Outcome.FAIL]
    assert [f.subject for f in failed] == [f"gpu:{uuid(4)}"]
    assert "96.00.61.00.01" in failed[0].observed
    assert [f.subject for f in tie if f.outcome is Outcome.FAIL] == [f"host:{tie[0].subject[5:]}"]


def test_a_gpu_with_less_memory_than_its_model_fails(tmp_path: Path) -> None:
    run = Node(identity={6: {"memory_bytes": 72 << 30}}).write(tmp_path)

    assert [f.subject for f in _of(run, "memory-size") if f.outcome is Outcome.FAIL] == [f"gpu:{uuid(6)}"]


FLOORS = (
    AllreduceFloor(gpus=8, message_bytes=1 << 30, algorithm="NVLS", busbw_gbps_min=440, source="s"),
    AllreduceFloor(gpus=8, message_bytes=1 << 34, algorithm="NVLS", busbw_gbps_min=457, source="s"),
    AllreduceFloor(gpus=8, message_bytes=1 << 34, algorithm="Ring", busbw_gbps_min=349, source="s"),
    AllreduceFloor(gpus=8, message_bytes=1 << 34, algorithm="any", busbw_gbps_min=431, source="s"),
)


@pytest.mark.parametrize(
    ("gpus", "size", "algorithm", "expected"),
    [
        (8, 1 << 34, "NVLS", 457),
        (8, 1 << 33, "NVLS", 440),
        (8, 1 << 34, "ring", 349),
        (8, 1 << 34, None, 431),
        (8, 1 << 34, "Tree", None),
        (8, 1 << 33, None, None),
        (4, 1 << 34, "NVLS", None),
        (8, 1 << 20, "NVLS", None),
    ],
)
def test_a_floor_of_an_all_reduce_holds_for_its_size_algorithm_and_number_of_gpus(
    gpus: int, size: int, algorithm: str | None, expected: float | None
) -> None:
    floor = floor_for_allreduce(FLOORS, gpus=gpus, size_bytes=size, algorithm=algorithm)

    assert (floor and floor.value) == expected


def test_a_slow_all_reduce_fails_by_its_own_size_not_by_a_mean(tmp_path: Path) -> None:
    run = Node(busbw_gbps=370.0).write(tmp_path)
    small = Node(busbw_gbps=3.0, size_bytes=1 << 20).write(tmp_path)

    assert {f.outcome for f in _of(run, "allreduce-bandwidth")} == {Outcome.FAIL}
    assert {f.outcome for f in _of(small, "allreduce-bandwidth")} == {None}


def test_a_file_moves_the_thresholds_of_a_recorded_run_and_stays_with_it(tmp_path: Path) -> None:
    run = Node(tflops=lambda gpu, second: 500.0).write(tmp_path)
    own = tmp_path / "own.yaml"
    own.write_text("thresholds:\n  tflops_share_min: 0.5\n")

    first = start_job(["judge", str(run.path), "--expectations", str(own)], tmp_path).wait(timeout_s=60)
    own.unlink()
    again = start_job(["judge", str(run.path), "--json"], tmp_path)
    second = again.wait(timeout_s=60)

    found = {f.rule: f for f in load_run(run.path).findings}
    assert found["tflops"].outcome is Outcome.PASS
    assert "tflops_share_min 0.5 instead of 0.8" in found["override"].observed
    assert (first, second) == (0, 0)
    assert json.loads(again.text())["outcome"] == "pass"


def test_what_a_run_was_given_is_judged_with_it_from_the_record_alone(tmp_path: Path) -> None:
    own = {"file": "hall.yaml", "override": {"thresholds": {"power_share_min_of_matmul": 0.5}}}
    cool = {"power_w": 400.0}
    run = Node(spec={"expectations": own}, gpu_row=lambda gpu, second: cool).write(tmp_path)

    assert {f.outcome for f in _of(run, "power-reached")} == {Outcome.PASS}


def test_figures_for_a_load_test_are_refused(tmp_path: Path) -> None:
    run = Node().write(tmp_path)
    header = json.loads((run.path / "run.json").read_text()) | {"kind": "load"}
    (run.path / "run.json").write_text(json.dumps(header))
    own = tmp_path / "own.yaml"
    own.write_text("thresholds:\n  tflops_share_min: 0.5\n")

    job = start_job(["judge", str(run.path), "--expectations", str(own)], tmp_path)

    assert job.wait(timeout_s=60) == 2
    assert "only a burn-in has figures" in job.text()


def _copy(index: int, path: str, gbps: float, phase: str = "alone", is_pinned: bool = True) -> tuple:
    data = {"stage": "bandwidth", "device": uuid(index), "path": path, "phase": phase, "gbps": gbps}
    more = {"is_pinned": is_pinned, "miscompared_words": 0, "words": 1 << 25, "means": "copy engine"}
    return (20, "bandwidth.result", data | more)


def test_slow_memory_and_a_slow_way_to_the_host_fail_by_the_models_own_floors(tmp_path: Path) -> None:
    events = [_copy(i, "device copy", 1500.0 if i == 1 else 2900.0) for i in range(8)]
    events += [_copy(i, "host to device", 24.0 if i == 2 else 54.0) for i in range(8)]
    events += [_copy(i, "device to host", 54.0) for i in range(8)]
    # All at once they share a switch: no floor is known for that.
    events += [_copy(i, "host to device", 20.0, phase="together") for i in range(8)]
    run = Node(stages={"bandwidth": 5.0}, events=events).write(tmp_path)

    failed = [
        f for f in _of(run, "hbm-bandwidth") + _of(run, "host-bandwidth") if f.outcome is not Outcome.PASS
    ]

    assert [(f.rule, f.subject, f.outcome) for f in failed] == [
        ("hbm-bandwidth", f"gpu:{uuid(1)}", Outcome.FAIL),
        ("host-bandwidth", f"gpu:{uuid(2)}/host to device", Outcome.FAIL),
    ]


def test_copies_from_memory_that_was_not_pinned_show_nothing_about_the_slot(tmp_path: Path) -> None:
    events = [_copy(0, "host to device", 54.0, is_pinned=False)]
    run = Node(gpus=1, stages={"bandwidth": 5.0}, events=events).write(tmp_path)

    found = [f for f in _of(run, "host-bandwidth") if "host to device" in f.subject]

    assert [f.outcome for f in found] == [Outcome.INCONCLUSIVE]


def test_a_peer_that_is_reached_over_pcie_instead_of_nvlink_fails(tmp_path: Path) -> None:
    def link(sender: int, gbps: float) -> tuple:
        ends = {"receiver": uuid(0), "sender": uuid(sender), "way": "first to second", "phase": "together"}
        return (20, "link.result", {"stage": "links", "link": "x", "gbps": gbps, "words": 1} | ends)

    run = Node(gpus=3, stages={"links": 5.0}, events=[link(1, 371.0), link(2, 45.0)]).write(tmp_path)

    assert {f.subject.split("/from ")[1]: f.outcome for f in _of(run, "peer-bandwidth")} == {
        uuid(1): Outcome.PASS,
        uuid(2): Outcome.FAIL,
    }


def test_power_is_judged_where_it_was_held_and_not_in_the_pauses_between(tmp_path: Path) -> None:
    rows = [(s, {"device": uuid(0), "phase": "hold", "tflops": 700.0}) for s in range(14, 18)]
    rows += [(s, {"device": uuid(0), "phase": "steps", "tflops": 700.0}) for s in range(18, 26)]

    def watts(gpu: int, second: int) -> dict[str, float]:
        return {"power_w": 690.0 if 14 <= second < 18 else 350.0}

    run = Node(gpus=1, gpu_row=watts, stages={"power": 12.0}, series={"power": rows}).write(tmp_path)

    assert [f.outcome for f in _of(run, "power-reached")] == [Outcome.PASS]
    assert "enforced power limit" in _of(run, "power-reached")[0].expected
