"""Positive controls of the rules on vendor's tools: invented output with a fault in it, one for each rule."""

from __future__ import annotations

import json
from collections.abc import Callable

from burnin.expectation import AllreduceFloor
from burnin.rules.controls import prove_rules
from burnin.rules.dcgm_output import read_dcgm_report
from burnin.rules.nccl_output import IN_PLACE, Sweep, read_sweep
from burnin.rules.vendor_dcgm import judge_diagnostic
from burnin.rules.vendor_nccl import judge_busbw, judge_results
from probes.finding import Finding
from probes.outcome import Outcome

_FLOOR = AllreduceFloor(gpus=2, message_bytes=8, algorithm="any", busbw_gbps_min=100.0, source="invented")


def prove_vendor_rules() -> Finding:
    """See whether each rule names the fault that was made for it."""
    failed = {"warning": "x", "error_id": 1, "error_category": 0, "error_severity": 6}
    seeded: dict[str, Callable[[], Finding]] = {
        "GPU that DCGM wants reset": lambda: _worst({"status": "Fail", "warnings": [failed]}),
        "test that was skipped": lambda: _worst({"status": "Skip"}),
        "memory test without memory": lambda: _worst(
            {"status": "Pass", "info": "Couldn't allocate at least 75.0% of GPU memory on GPU 0"}
        ),
        "wrong element": lambda: judge_results("h", "all_reduce_perf", _sweep("200.0  1"), lacking=""),
        "unchecked result": lambda: judge_results("h", "all_reduce_perf", _sweep("200.0  N/A"), lacking=""),
        "bandwidth of one size below its floor": lambda: judge_busbw(
            "h", _sweep("99.0  0"), way=IN_PLACE, gpus=2, floors=[_FLOOR], algorithm=None, lacking=""
        ),
    }
    return prove_rules("vendor", seeded)


def _worst(result: dict[str, object]) -> Finding:
    entity = {"entity_group": "GPU", "entity_group_id": 1, "entity_id": 0}
    tests = [{"name": "memory", "results": [entity | result]}]
    report = {"DCGM Diagnostic": {"test_categories": [{"category": "Hardware", "tests": tests}]}}
    found = judge_diagnostic(
        "h", read_dcgm_report(json.dumps(report)), uuids={0: "GPU-0"}, gpus=["GPU-0"], level=2
    )
    own = [f for f in found if f.subject == "gpu:GPU-0/memory"]
    return next((f for f in own if f.outcome is not Outcome.PASS), found[0])


def _sweep(in_place: str) -> Sweep:
    return read_sweep(f"# #wrong\n 8  2  float  sum  -1  5.0  200.0  200.0  0  5.0  200.0  {in_place}\n")
