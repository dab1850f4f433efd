"""Lays the readings of memory, bandwidth, links and power out for their rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from burnin.evidence import Evidence, numbers, subject_of
from burnin.node.pattern_names import PATTERN_NAMES
from burnin.node.rounds import ALONE, TOGETHER, link_name
from burnin.rules.arithmetic import judge_digests, judge_first_product, judge_operands
from burnin.rules.memory_rule import LOAD_SHARE_MIN, judge_memory
from burnin.rules.speed import judge_speed
from burnin.rules.transfer import RATIO_MIN, judge_bandwidth, judge_common_end, judge_copy_speed, judge_link
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome


def likeness(evidence: Evidence, device: str) -> str:
    """Return what two devices must share before they may be compared."""
    ready = evidence.told("worker.ready", device=device)
    if not ready:
        return ""
    values = [f"{name} {ready[0].get(name)}" for name in ("model", "torch", "cuda", "threads")]
    return ", ".join([*values, f"driver {evidence.inventory.get('driver')}"])


def siblings_of(evidence: Evidence, device: str, rates: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Return the rates of the devices that this one may be compared with."""
    own = likeness(evidence, device)
    return {name: v for name, v in rates.items() if name != device and likeness(evidence, name) == own}


def judge_power_speed(evidence: Evidence, *, ratio_min: float) -> list[Finding]:
    """Compare the rates that the devices held at full power."""
    column = "busy_tflops" if evidence.is_cpu else "tflops"
    rates = {d: numbers(evidence.series("power", device=d, phase="hold"), column) for d in evidence.devices}
    found = [
        judge_speed(device, rates[device], siblings_of(evidence, device, rates), ratio_min=ratio_min)
        for device in evidence.devices
    ]
    return [replace(each, rule="speed-held", evidence=each.evidence | {"stage": "power"}) for each in found]


def judge_memories(evidence: Evidence) -> list[Finding]:
    """Judge the memory of every device."""
    stage = evidence.order.stage("memory")
    is_limited = bool(stage and stage.options.get("bytes_max"))
    return [
        judge_memory(
            device,
            patterns=PATTERN_NAMES,
            results=evidence.told("memory.result", device=device),
            miscompares=evidence.told("miscompare", device=device, stage="memory"),
            share=next(iter(evidence.told("memory.share", device=device)), None),
            is_bounded=evidence.is_cpu or is_limited,
            load_share_min=LOAD_SHARE_MIN["cpu" if evidence.is_cpu else "cuda"],
        )
        for device in evidence.devices
    ]


def judge_bandwidths(evidence: Evidence) -> list[Finding]:
    """Judge what every device copied, and how fast."""
    findings = []
    rates = {device: _copy_rates(evidence, device) for device in evidence.devices}
    for device in evidence.devices:
        findings.append(
            judge_bandwidth(
                device,
                results=evidence.told("bandwidth.result", device=device),
                miscompares=evidence.told("miscompare", device=device, stage="bandwidth"),
                is_cpu=evidence.is_cpu,
            )
        )
        alike = {
            other: rates[other]
            for other in evidence.devices
            if other != device and likeness(evidence, other) == likeness(evidence, device)
        }
        ratio_min = RATIO_MIN["cpu" if evidence.is_cpu else "cuda"]
        findings.append(judge_copy_speed(device, rates[device], alike, ratio_min=ratio_min))
    return findings


def _copy_rates(evidence: Evidence, device: str) -> dict[str, float]:
    """Return the rate of each path while the other devices rested; on a CPU the best of all."""
    column = "gbps_max" if evidence.is_cpu else "gbps"
    told = evidence.told("bandwidth.result", device=device, phase=ALONE)
    return {str(result["path"]): float(result[column]) for result in told}


def judge_links(evidence: Evidence) -> list[Finding]:
    """Judge every pair of devices, and the device that failing pairs have in common."""
    if evidence.impossible("links"):
        return []
    links = [_judge_link(evidence, pair) for pair in combinations(evidence.devices, 2)]
    return [*links, *judge_common_end(links)]


def _judge_link(evidence: Evidence, pair: tuple[str, str]) -> Finding:
    stage, link = evidence.order.stage("links"), link_name(*pair)
    phases = [str(phase) for phase in (stage.options.get("phases") if stage else None) or (ALONE, TOGETHER)]
    if len(evidence.devices) == 2:
        phases = [TOGETHER]  # one pair alone is all pairs at once
    failed = [data for data in evidence.told("collective.failed", stage="links") if _is(data, pair)]
    return judge_link(
        link,
        devices=pair,
        results=evidence.told("link.result", link=link),
        miscompares=evidence.told("miscompare", stage="links", link=link),
        skipped=[data for data in evidence.told("group.skipped", stage="links") if _is(data, pair)],
        failures=[str(data["error"]) for data in failed],
        phases=phases,
    )


def _is(data: JsonObject, pair: Sequence[str]) -> bool:
    return list(data["devices"]) == list(pair)


def judge_products(evidence: Evidence) -> list[Finding]:
    """Judge the products of random data: their operands, the first of them, and all that were digested."""
    results = {d: _digested(evidence, d) for d in evidence.devices}
    if "power" not in evidence.stage_names() and not any(results.values()):
        return []
    findings = []
    for device in evidence.devices:
        findings.append(judge_first_product(device, evidence.told("reference.result", device=device)))
        if "power" in evidence.stage_names():
            findings.append(judge_operands(device, evidence.told("operands.result", device=device)))
    dissents = {device: len(evidence.told("digest.dissent", device=device)) for device in evidence.devices}
    # Who is known to be wrong has no vote.
    known = {f.subject for f in findings if f.outcome is Outcome.FAIL}
    likenesses = {
        device: f"only {device}" if subject_of(device) in known else likeness(evidence, device)
        for device in evidence.devices
    }
    return findings + judge_digests(results, dissents, likenesses)


def _digested(evidence: Evidence, device: str) -> JsonObject | None:
    """Return the digests of a device; before 2026-11-21 they belonged to the matmul stage."""
    told = evidence.told("power.result", device=device) + evidence.told("throughput.result", device=device)
    return next((data for data in told if "digest" in data), None)
