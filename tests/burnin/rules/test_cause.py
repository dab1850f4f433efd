"""Root causes: one fault is named once, what follows points to it, and no fault of its own is hidden."""

from __future__ import annotations

from pathlib import Path

from burnin.judging import judge_run
from burnin.rules.cause import name_causes
from probes.finding import Finding
from probes.outcome import Outcome
from reports.record import write_findings
from reports.run import load_run
from reports.verdict import sum_up
from tests.burnin.node_record import LOAD_S, Node
from tests.twins.nvml import uuid

FAIL, UNDECIDED, PASS = Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS


def _finding(rule: str, outcome: Outcome, subject: str = "gpu:A", **evidence: object) -> Finding:
    return Finding(
        rule=rule, subject=subject, outcome=outcome, observed="", expected="", evidence=dict(evidence)
    )


def _because(findings: list[Finding]) -> dict[str, str]:
    """Return rule@subject of each explained finding with what explains it."""
    named = name_causes(findings)
    assert [(f.rule, f.subject, f.outcome) for f in named] == [
        (f.rule, f.subject, f.outcome) for f in findings
    ]
    return {
        f"{f.rule}@{f.subject}": f"{f.evidence['because']['rule']}@{f.evidence['because']['subject']}"
        for f in named
        if "because" in f.evidence
    }


def test_a_lost_gpu_explains_its_silent_sensors_its_dead_worker_and_its_xid() -> None:
    found = [
        _finding("sensors", UNDECIDED),
        _finding("worker", FAIL),
        _finding("missing-evidence", UNDECIDED),
        _finding("gpu-lost", FAIL),
        _finding("xid", FAIL, xids={"79": 1}),
    ]

    assert set(_because(found).values()) == {"gpu-lost@gpu:A"}
    assert len(_because(found)) == 4


def test_a_lost_gpu_hides_no_fault_of_its_own() -> None:
    found = [
        _finding("gpu-lost", FAIL),
        _finding("exact", FAIL),
        _finding("digest", UNDECIDED),
        _finding("ecc", FAIL),
        _finding("xid", FAIL, xids={"79": 1, "119": 1}),
        _finding("sensors", UNDECIDED, "gpu:B"),
        _finding("worker", FAIL, "gpu:B"),
    ]

    assert _because(found) == {}


def test_heat_explains_low_clocks_but_not_a_gpu_that_is_slow_at_its_clock() -> None:
    hot = [_finding("heat", FAIL), _finding("throttle", FAIL), _finding("speed", FAIL)]
    defect = [*hot, _finding("speed-per-clock", FAIL)]

    assert _because(hot) == {"throttle@gpu:A": "heat@gpu:A", "speed@gpu:A": "heat@gpu:A"}
    assert _because(defect)["speed@gpu:A"] == "speed-per-clock@gpu:A"


def test_a_chain_of_causes_points_to_its_beginning() -> None:
    found = [
        _finding("missing-evidence", UNDECIDED),
        _finding("worker", FAIL),
        _finding("gpu-lost", FAIL),
    ]

    assert _because(found)["missing-evidence@gpu:A"] == "gpu-lost@gpu:A"


def test_a_memory_xid_explains_the_ecc_errors_that_it_reports_and_another_does_not() -> None:
    assert _because([_finding("xid", FAIL, xids={"48": 1}), _finding("ecc", FAIL)]) == {
        "ecc@gpu:A": "xid@gpu:A"
    }
    assert _because([_finding("xid", FAIL, xids={"119": 1}), _finding("ecc", FAIL)]) == {}


def test_what_nvml_tells_of_one_fault_as_xid_and_as_event_is_one_fault() -> None:
    double_bit, lost = {"0x2": 1}, {"0x4000": 1}
    memory_xid, gsp_xid = _finding("xid", FAIL, xids={"48": 1}), _finding("xid", FAIL, xids={"119": 1})

    assert _because([memory_xid, _finding("gpu-event", FAIL, events=double_bit)]) == {
        "gpu-event@gpu:A": "xid@gpu:A"
    }
    assert _because([memory_xid, _finding("gpu-event", FAIL, events=lost)]) == {}
    assert _because([gsp_xid, _finding("gpu-event", FAIL, events=double_bit)]) == {}
    assert _because([_finding("gpu-lost", FAIL), _finding("gpu-event", FAIL, events=lost)]) == {
        "gpu-event@gpu:A": "gpu-lost@gpu:A"
    }
    assert _because([_finding("gpu-lost", FAIL), _finding("gpu-event", FAIL, events=double_bit)]) == {}


def test_a_dead_worker_explains_why_the_others_had_nobody_to_reduce_with() -> None:
    found = [
        _finding("worker", FAIL),
        _finding("allreduce", UNDECIDED, "gpu:B"),
        _finding("allreduce", FAIL, "gpu:C"),
    ]

    assert _because(found) == {"allreduce@gpu:B": "worker@gpu:A"}


def test_what_passed_is_explained_by_nothing() -> None:
    assert _because([_finding("gpu-lost", FAIL), _finding("worker", PASS)]) == {}


def test_of_a_recorded_node_whose_gpu_fell_off_the_bus_one_finding_is_told_first(tmp_path: Path) -> None:
    lost = uuid(3)
    node = Node(
        without=lambda kind, data: (
            data.get("device") == lost and kind in ("worker.done", "allreduce.result", "throughput.result")
        ),
        tflops=lambda gpu, second: None if gpu == 3 and second > 12 else 700.0,
        gpu_row=lambda gpu, second: (
            {"power_w": None, "temperature_c": None} if (gpu, second > 12) == (3, 1) else {}
        ),
        events=[
            (12, "gpu.lost", {"gpu": lost, "sensor": "power_w", "error": "GPU is lost"}),
            (12, "sensor.failed", {"gpu": lost, "sensor": "power_w", "error": "GPU is lost"}),
            (12, "gpu.xid", {"gpu": lost, "xid": 79}),
            (13, "worker.failed", {"device": lost, "error": "CUDA error: unspecified launch failure"}),
        ],
    )
    run = node.write(tmp_path)
    write_findings(run.path, judge_run(run))

    verdict = sum_up(load_run(run.path))
    own = [f for f in verdict.failed if "because" not in f.evidence]

    assert [(f.rule, f.subject) for f in own] == [("gpu-lost", f"gpu:{lost}")]
    assert verdict.failed[0].rule == "gpu-lost"
    assert {"worker", "xid", "sensors"} <= set(own[0].evidence["explains"])
    assert not [f for f in verdict.failed if lost not in f.subject]
    assert LOAD_S > 12
