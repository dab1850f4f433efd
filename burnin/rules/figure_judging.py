"""Lays the readings of a record out for the rules on absolute figures."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from burnin.evidence import Evidence, numbers, subject_of
from burnin.expectation import Expectation, expectation_for
from burnin.node.number_format import PRIMARY
from burnin.override import OverrideSpec, override_of
from burnin.rules.figures import (
    READINGS_MIN,
    Floor,
    floor_for_allreduce,
    judge_floor,
    judge_memory_size,
    judge_model,
    judge_per_clock,
    judge_power,
    share_of,
)
from burnin.rules.firmware import judge_firmware
from burnin.rules.link_figures import judge_pairs
from burnin.rules.transfer_figures import judge_copies, judge_peers
from burnin.thresholds import Thresholds, thresholds_for, thresholds_text
from probes.finding import Finding
from probes.json_types import JsonObject

AUTO = "auto"  # NCCL chose the algorithm
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
    found = {str(g["uuid"]): expectation_for(str(g.get("name", "")), override.models) for g in evidence.gpus}
    return findings + judge_pairs(evidence, found)


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
        findings += _judge_tflops(evidence, uuid, expectation, thresholds)
        findings.append(
            judge_per_clock(
                uuid,
                per_clock(evidence, uuid),
                {d: per_clock(evidence, d) for d in _siblings(evidence, gpu)},
                ratio_min=thresholds.sibling_ratio_min,
            )
        )
    if evidence.order.stage("power") or evidence.order.stage("matmul"):
        findings.append(_judge_power(evidence, gpu, thresholds))
    if evidence.order.stage("bandwidth"):
        findings += judge_copies(evidence, uuid, expectation, thresholds)
    if evidence.order.stage("links"):
        findings += judge_peers(evidence, uuid, expectation, thresholds)
    if evidence.order.stage("allreduce") and not evidence.impossible("allreduce"):
        findings += _judge_allreduce(evidence, uuid, expectation)
    return findings


def _judge_tflops(
    evidence: Evidence, uuid: str, expectation: Expectation | None, thresholds: Thresholds
) -> list[Finding]:
    """Judge each format for which a typical figure is known, and the one that draws most in any case."""
    typical = expectation.tflops_typical if expectation else {}
    tested = {str(name) for data in evidence.told("formats", device=uuid) for name in data["tested"]}
    formats = {PRIMARY["cuda"], *(name for name in typical if name in tested)}
    return [
        judge_floor(
            "tflops",
            subject_of(uuid) if name == PRIMARY["cuda"] else f"{subject_of(uuid)}/{name}",
            numbers(_rows_of(evidence, uuid, name), "tflops"),
            share_of(typical.get(name), thresholds.tflops_share_min, "TFLOPS"),
            what=f"{name} on random data",
            unit="TFLOPS",
            stage="matmul",
            readings_min=READINGS_MIN if name == PRIMARY["cuda"] else 1,
        )
        for name in sorted(formats)
    ]


def _rows_of(evidence: Evidence, uuid: str, number_format: str) -> list[JsonObject]:
    """Return the windows of one format with all devices at work."""
    if number_format == PRIMARY["cuda"]:
        return evidence.matmul_rows(uuid)
    return evidence.series("matmul", device=uuid, phase="together", format=number_format)


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


def _judge_power(evidence: Evidence, gpu: JsonObject, thresholds: Thresholds) -> Finding:
    """Judge the power of the seconds in which it was held or, without that stage, of the products."""
    uuid = str(gpu["uuid"])
    stage = "power" if evidence.order.stage("power") else "matmul"
    rows = (
        evidence.series("power", device=uuid, phase="hold")
        if stage == "power"
        else evidence.matmul_rows(uuid)
    )
    readings = [r for r in evidence.series("gpu", gpu=uuid) if _number(r.get("power_w")) is not None]
    times = [int(row["t_ns"]) for row in readings]
    near = [_nearest(times, int(row["t_ns"])) for row in rows]
    return judge_power(
        uuid,
        [float(readings[index]["power_w"]) for index in near if index is not None],
        limit_w=_number(gpu.get("power_limit_w")),
        share_min=thresholds.power_share_min if stage == "power" else thresholds.power_share_min_of_matmul,
        stage=stage,
    )


def _judge_allreduce(evidence: Evidence, uuid: str, expectation: Expectation | None) -> list[Finding]:
    """Judge, for each algorithm, the largest message that a floor is known for; a mean would say nothing."""
    floors = expectation.allreduce_floors if expectation else ()
    largest: dict[str, tuple[int, float, Floor]] = {}
    for result in evidence.told("allreduce.result", device=uuid):
        algorithm, size = str(result.get("algorithm") or AUTO), int(result["size_bytes"])
        floor = floor_for_allreduce(
            floors,
            gpus=int(result["ranks"]),
            size_bytes=size,
            algorithm=None if algorithm == AUTO else algorithm,
        )
        if floor is not None and size > largest.get(algorithm, (0,))[0]:
            largest[algorithm] = size, float(result["busbw_gbps"]), floor
    judged = [
        judge_floor(
            "allreduce-bandwidth",
            subject_of(uuid) if algorithm == AUTO else f"{subject_of(uuid)}/{algorithm}",
            [busbw],
            floor,
            what=f"all-reduce of {size:,} B, algorithm {algorithm}",
            unit="GB/s",
            stage="allreduce",
            readings_min=1,
        )
        for algorithm, (size, busbw, floor) in largest.items()
    ]
    return judged or [_no_floor(uuid)]


def _no_floor(uuid: str) -> Finding:
    subject = subject_of(uuid)
    return judge_floor(
        "allreduce-bandwidth", subject, [], None, what="all-reduce", unit="GB/s", stage="allreduce"
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
