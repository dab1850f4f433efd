"""Lays the readings of a record out for the rules on absolute figures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from burnin.evidence import Evidence, numbers, subject_of
from burnin.expectation import Expectation, expectation_for
from burnin.figures import (
    floor_for_allreduce,
    judge_floor,
    judge_memory_size,
    judge_model,
    judge_per_clock,
    judge_power,
    share_of,
)
from burnin.firmware import judge_firmware
from burnin.override import OverrideSpec, override_of
from burnin.thresholds import Thresholds, thresholds_for, thresholds_text
from probes.finding import Finding
from probes.json_types import JsonObject

NEAR_NS = 1_500_000_000  # a clock read within this of a rate belongs to it


def judge_figures(evidence: Evidence, thresholds: Thresholds, override: OverrideSpec) -> list[Finding]:
    """Judge every GPU under test by the figures of its model, and the node by its firmware."""
    host = evidence.run.header.host
    findings = [_judge_override(evidence, thresholds)]
    findings += judge_firmware(host, evidence.gpus, is_failure=thresholds.mixed_firmware == "fail")
    for gpu in evidence.gpus:
        uuid, name = str(gpu["uuid"]), str(gpu.get("name", ""))
        expectation = expectation_for(name, override.models)
        findings.append(judge_model(uuid, name, expectation))
        if expectation is not None:
            findings.append(judge_memory_size(uuid, _number(gpu.get("memory_bytes")), expectation))
        if uuid in evidence.devices:
            findings += _judge_loaded(evidence, gpu, expectation, thresholds)
    return findings


def _judge_override(evidence: Evidence, thresholds: Thresholds) -> Finding:
    """Say by whose figures this run is judged; not judged itself."""
    override, file = override_of(evidence.run)
    changed = thresholds_text(thresholds, thresholds_for("cpu" if evidence.is_cpu else "cuda"))
    models = ", ".join(spec.model for spec in override.models)
    xids = ", ".join(f"XID {xid}" for xid in override.xids)
    said = "; ".join(text for text in (changed, models, xids) if text)
    return Finding(
        rule="override",
        subject=f"host:{evidence.run.header.host}",
        outcome=None,
        observed=f"{file}: {said}" if file else "judged by the thresholds and figures that are shipped",
        expected="shipped, or a file that the run keeps",
        evidence={"file": file},
    )


def _judge_loaded(
    evidence: Evidence, gpu: JsonObject, expectation: Expectation | None, thresholds: Thresholds
) -> list[Finding]:
    uuid = str(gpu["uuid"])
    findings = []
    if evidence.order.stage("matmul"):
        findings += [
            _judge_tflops(evidence, uuid, expectation, thresholds),
            judge_per_clock(
                uuid,
                per_clock(evidence, uuid),
                {d: per_clock(evidence, d) for d in _siblings(evidence, gpu)},
                ratio_min=thresholds.sibling_ratio_min,
            ),
        ]
        if not evidence.order.stage("power"):
            findings.append(_judge_matmul_power(evidence, gpu, thresholds))
    if evidence.order.stage("allreduce"):
        findings += _judge_allreduce(evidence, uuid, expectation)
    return findings


def _judge_tflops(
    evidence: Evidence, uuid: str, expectation: Expectation | None, thresholds: Thresholds
) -> Finding:
    told = evidence.told("throughput.result", device=uuid)
    number_format = str(told[0]["format"]) if told else "bf16"  # in which a GPU draws most
    typical = expectation.tflops_typical.get(number_format) if expectation else None
    return judge_floor(
        "tflops",
        subject_of(uuid),
        numbers(evidence.matmul_rows(uuid), "tflops"),
        share_of(typical, thresholds.tflops_share_min, "TFLOPS"),
        what=f"{number_format} on random data",
        unit="TFLOPS",
        stage="matmul",
    )


def _siblings(evidence: Evidence, gpu: JsonObject) -> list[str]:
    return [
        str(other["uuid"])
        for other in evidence.gpus
        if other["uuid"] != gpu["uuid"]
        and other.get("name") == gpu.get("name")
        and other["uuid"] in evidence.devices
    ]


def per_clock(evidence: Evidence, uuid: str) -> list[float]:
    """Return TFLOPS per GHz of each second in which both the rate and the SM clock were read."""
    clocks = [r for r in evidence.series("gpu", gpu=uuid) if _number(r.get("sm_clock_mhz"))]
    times = [int(row["t_ns"]) for row in clocks]
    found = []
    for row in evidence.matmul_rows(uuid):
        rate, near = _number(row.get("tflops")), _nearest(times, int(row["t_ns"]))
        if rate is not None and near is not None:
            found.append(rate / (float(clocks[near]["sm_clock_mhz"]) / 1000))
    return found


def _nearest(times: Sequence[int], t_ns: int) -> int | None:
    """Return the index of the reading nearest to a moment; None: none is near enough."""
    right = bisect_left(times, t_ns)
    able = [index for index in (right - 1, right) if 0 <= index < len(times)]
    best = min(able, key=lambda index: abs(times[index] - t_ns), default=None)
    return best if best is not None and abs(times[best] - t_ns) <= NEAR_NS else None


def _judge_matmul_power(evidence: Evidence, gpu: JsonObject, thresholds: Thresholds) -> Finding:
    """Judge the power of the seconds in which the throughput phase ran."""
    uuid = str(gpu["uuid"])
    readings = [r for r in evidence.series("gpu", gpu=uuid) if _number(r.get("power_w")) is not None]
    times = [int(row["t_ns"]) for row in readings]
    near = [_nearest(times, int(row["t_ns"])) for row in evidence.matmul_rows(uuid)]
    return judge_power(
        uuid,
        [float(readings[index]["power_w"]) for index in near if index is not None],
        limit_w=_number(gpu.get("power_limit_w")),
        share_min=thresholds.power_share_min_of_matmul,
        stage="matmul",
    )


def _judge_allreduce(evidence: Evidence, uuid: str, expectation: Expectation | None) -> list[Finding]:
    """Judge the largest message that a floor is known for; a mean over sizes would say nothing."""
    floors = expectation.allreduce_floors if expectation else ()
    judged = []
    for result in evidence.told("allreduce.result", device=uuid):
        floor = floor_for_allreduce(
            floors,
            gpus=int(result["ranks"]),
            size_bytes=int(result["size_bytes"]),
            algorithm=result.get("algorithm"),
        )
        if floor is not None:
            judged.append((int(result["size_bytes"]), float(result["busbw_gbps"]), floor))
    size, busbw, floor = max(judged, key=lambda found: found[0], default=(0, 0.0, None))
    return [
        judge_floor(
            "allreduce-bandwidth",
            subject_of(uuid),
            [busbw] if floor else [],
            floor,
            what=f"all-reduce of {size:,} B" if floor else "all-reduce",
            unit="GB/s",
            stage="allreduce",
            readings_min=1,
        )
    ]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
