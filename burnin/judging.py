"""From the record of a burn-in to its findings: lays the readings out and hands them to the rules."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

from burnin.evidence import Evidence, numbers
from burnin.launcher import log_tail
from burnin.node.order import LOADED_STAGES
from burnin.override import OverrideSpec, override_of
from burnin.rules.arithmetic import judge_exact
from burnin.rules.bound import judge_bounds
from burnin.rules.cause import name_causes
from burnin.rules.collective import judge_allreduce
from burnin.rules.controls import (
    DETECTORS,
    judge_control,
    judge_planted,
    prove_aftermath_rules,
    prove_preflight_rules,
    prove_rules,
    prove_speed_rule,
    withhold,
)
from burnin.rules.cycles import merge_cycles
from burnin.rules.figure_controls import prove_figure_rules
from burnin.rules.figure_judging import judge_figures
from burnin.rules.gpu_health import (
    judge_ecc,
    judge_heat,
    judge_lost,
    judge_sensors,
    judge_throttle,
    not_applicable,
)
from burnin.rules.host_health import judge_counters
from burnin.rules.host_load_rule import judge_disks, judge_host_load
from burnin.rules.liveness import (
    fold_missing,
    judge_agent,
    judge_hung,
    judge_left_out,
    judge_stuck,
    judge_worker,
)
from burnin.rules.parts import parts_left_out
from burnin.rules.preconditions import judge_company, judge_devices, judge_host_root, judge_room
from burnin.rules.reach import judge_clock, tell_slow_login
from burnin.rules.sensor_judging import gpu_readings, judge_sensor_readings
from burnin.rules.speed import judge_load, judge_speed
from burnin.rules.stage_controls import stage_faults
from burnin.rules.stage_judging import (
    judge_bandwidths,
    judge_links,
    judge_memories,
    judge_power_speed,
    judge_products,
    likeness,
    siblings_of,
)
from burnin.rules.vendor_controls import prove_vendor_rules
from burnin.rules.vendor_judging import judge_vendor_tools
from burnin.rules.xid_rule import judge_xids
from burnin.self_test import SPEC_KEY, judge_controls_alone
from burnin.thresholds import Thresholds, thresholds_for
from probes.finding import Finding
from reports.run import CLOCK_OFFSET, Run

LOADED = LOADED_STAGES


def judge_run(run: Run) -> list[Finding]:
    """Judge a recorded burn-in from its record alone."""
    evidence = Evidence(run)
    if run.header.spec.get(SPEC_KEY):
        return [*judge_controls_alone(evidence), *_judge_alive(evidence)]
    limits, override, cycles = _thresholds(evidence), _override(evidence), evidence.in_cycles()
    findings = [
        *_judge_host(evidence),
        *merge_cycles([_judge_devices(cycle) for cycle in cycles]),
        *_judge_gpus(evidence),
        *merge_cycles([judge_figures(cycle, limits, override) for cycle in cycles]),
        *judge_sensor_readings(evidence, _override(evidence).models),
        *judge_vendor_tools(evidence, _override(evidence)),
    ]
    findings += judge_bounds(evidence, findings)
    controls = merge_cycles([_judge_controls(cycle) for cycle in cycles])
    judged = [*name_causes(withhold(findings, controls)), *controls]
    judged += judge_planted(run.header.host, evidence.order.seeded_faults, judged)
    return [*judged, *judge_left_out(evidence.order.left_out, parts_left_out(evidence))]


def _judge_alive(evidence: Evidence) -> list[Finding]:
    """Judge whether agent and workers did what they were told: what fell out was not proven."""
    found = [*_judge_host(evidence), *(_judge_worker(evidence, device) for device in evidence.devices)]
    return [finding for finding in found if finding.rule in ("agent", "devices", "worker", "stuck-process")]


def _override(evidence: Evidence) -> OverrideSpec:
    """Return what the user put on top of our figures."""
    return override_of(evidence.run)[0]


def _thresholds(evidence: Evidence) -> Thresholds:
    kind = "cpu" if evidence.is_cpu else "cuda"
    return thresholds_for(kind, _override(evidence).thresholds)


def _judge_host(evidence: Evidence) -> list[Finding]:
    host = evidence.run.header.host
    before, after = (evidence.told("host.snapshot", when=when) for when in ("before", "after"))
    findings = [
        judge_agent(
            host,
            lost=evidence.told("agent.lost"),
            is_finished=bool(evidence.told("agent.finished")),
            log_tail=log_tail(evidence.run.path),
        ),
        *judge_stuck(host, evidence.told("process.stuck")),
        *judge_hung(host, evidence.told("worker.stalled")),
        judge_devices(
            host,
            choice=evidence.choice,
            gpu_count=len(evidence.gpus),
            gpus_expected=evidence.order.gpus_expected,
            ready=len(evidence.told("worker.ready")),
            errors=[str(data["error"]) for data in evidence.told("worker.failed")],
        ),
        judge_room(host, evidence.told("room")),
        *judge_host_root(host, evidence.told("host.root")),
        *(judge_clock(host, evidence.told(CLOCK_OFFSET)) if "fleet" in evidence.run.header.spec else ()),
        *tell_slow_login(host, evidence.told("host.begun")),
        *_judge_load_of_host(evidence),
    ]
    if "aftermath" in evidence.stage_names():
        findings += judge_counters(
            host,
            before[0]["values"] if before else None,
            after[-1]["values"] if after else None,
            run_s=_run_s(evidence),
        )
    return findings


def _judge_load_of_host(evidence: Evidence) -> list[Finding]:
    options, host = evidence.order.preflight_options, evidence.run.header.host
    if not options or options.get("only_controls"):
        return []
    findings = judge_host_load(
        host,
        begun=next(iter(evidence.told("host.load")), None),
        cores=evidence.told("host.core"),
        memories=evidence.told("host.memory"),
        is_done=bool(evidence.told("host.load.done")),
    )
    return findings + judge_disks(host, options.get("disk"), evidence.told("host.disk"))


def _run_s(evidence: Evidence) -> float:
    events = evidence.run.events
    return (events[-1].t_ns - events[0].t_ns) / 1e9 if events else 0.0


def _judge_devices(evidence: Evidence) -> list[Finding]:
    workers = [_judge_worker(evidence, device) for device in evidence.devices]
    findings, names = [], evidence.stage_names()
    if "memory" in names:
        findings += judge_memories(evidence)
    if "matmul" in names:
        findings += _judge_matmul(evidence)
    if "bandwidth" in names:
        findings += judge_bandwidths(evidence)
    if "allreduce" in names:
        findings += [_judge_allreduce(evidence, device) for device in evidence.devices]
    findings += judge_products(evidence)
    if "power" in names:
        findings += judge_power_speed(evidence, ratio_min=_thresholds(evidence).sibling_ratio_min)
    links = judge_links(evidence) if "links" in names else []
    return [*workers, *fold_missing(findings, workers), *links]


def _judge_worker(evidence: Evidence, device: str) -> Finding:
    stages = [name for name in LOADED if name in evidence.stage_names() and not evidence.impossible(name)]
    return judge_worker(
        device,
        stalled=evidence.told("worker.stalled", device=device),
        late=evidence.told("worker.late", device=device),
        died=evidence.told("worker.died", device=device),
        failed=evidence.told("worker.failed", device=device),
        undone=[stage for stage in stages if not evidence.has_done(device, stage)],
        is_lone=_is_lone(evidence, device),
    )


def _is_lone(evidence: Evidence, device: str) -> bool:
    """Say whether no sibling's worker broke: the same program, the same data, other hardware."""
    own = likeness(evidence, device)
    siblings = [d for d in evidence.devices if d != device and likeness(evidence, d) == own]
    return bool(siblings) and not any(
        evidence.told(kind, device=sibling)
        for kind in ("worker.died", "worker.failed")
        for sibling in siblings
    )


def _judge_matmul(evidence: Evidence) -> list[Finding]:
    findings = []
    limits = _thresholds(evidence)
    rates = {device: _rates(evidence, device) for device in evidence.devices}
    for device in evidence.devices:
        formats = evidence.told("formats", device=device)
        findings.append(
            judge_exact(
                device,
                formats=[str(name) for name in formats[0]["tested"]] if formats else [],
                results=evidence.told("exact.result", device=device),
                miscompares=evidence.told("miscompare", device=device, stage="matmul"),
            )
        )
        siblings = siblings_of(evidence, device, rates)
        findings.append(judge_speed(device, rates[device], siblings, ratio_min=limits.sibling_ratio_min))
        findings += _judge_alone(evidence, device, ratio_min=limits.sibling_ratio_min)
        findings.append(judge_load(device, _busy(evidence, device), busy_pct_min=limits.busy_pct_min))
    return findings


def _judge_alone(evidence: Evidence, device: str, *, ratio_min: float) -> list[Finding]:
    """Compare the rates that devices had while the others rested; there is no such phase with one device."""
    column = "busy_tflops" if evidence.is_cpu else "tflops"
    rates = {d: numbers(evidence.matmul_rows(d, phase="alone"), column) for d in evidence.devices}
    siblings = siblings_of(evidence, device, rates)
    if not any(rates.values()):
        return []
    found = judge_speed(device, rates[device], siblings, ratio_min=ratio_min)
    return [replace(found, rule="speed-alone")]


def _rates(evidence: Evidence, device: str) -> list[float]:
    """Return the rates of a device; on a CPU those by the time that its cores really worked for us."""
    rows = evidence.matmul_rows(device)
    return numbers(rows, "busy_tflops" if evidence.is_cpu else "tflops")


def _busy(evidence: Evidence, device: str) -> list[float]:
    rows = evidence.matmul_rows(device)
    if evidence.is_cpu:
        return numbers(rows, "busy_pct")
    if len(rows) < 2:
        return []
    first, last = rows[0]["t_ns"], rows[-1]["t_ns"]
    sampled = evidence.series("gpu", gpu=device)
    return numbers([row for row in sampled if first <= row["t_ns"] <= last], "util_pct")


def _judge_allreduce(evidence: Evidence, device: str) -> Finding:
    return judge_allreduce(
        device,
        results=evidence.told("allreduce.result", device=device),
        miscompares=evidence.told("miscompare", device=device, stage="allreduce"),
        is_done=evidence.has_done(device, "allreduce"),
        impossible=evidence.impossible("allreduce"),
        failures=[
            str(data["error"])
            for data in evidence.told("collective.failed", device=device, stage="allreduce")
        ],
        plans=evidence.told("allreduce.plan", device=device),
        unavailable=[
            str(data["algorithm"]) for data in evidence.told("algorithm.unavailable", device=device)
        ],
    )


def _judge_gpus(evidence: Evidence) -> list[Finding]:
    if not evidence.gpus:
        detail = evidence.inventory.get("detail", "the sampler said nothing")
        return not_applicable(evidence.run.header.host, f"no NVIDIA GPU: {detail}")
    return [finding for gpu in evidence.gpus for finding in _judge_gpu(evidence, gpu)]


def _judge_gpu(evidence: Evidence, identity: dict[str, object]) -> list[Finding]:
    gpu = str(identity["uuid"])
    rows = evidence.series("gpu", gpu=gpu)
    before, after = (evidence.told("gpu.snapshot", gpu=gpu, when=when) for when in ("before", "after"))
    first, last = (found[-1]["values"] if found else {} for found in (before, after))
    counters = {name: (int(first[name]), int(last[name])) for name in first if name in last}
    lacking = (before[-1]["lacking"] if before else {}) | (after[-1]["lacking"] if after else {})
    slowdown_c = identity.get("slowdown_c")
    findings = [
        judge_lost(gpu, evidence.told("gpu.lost", gpu=gpu)),
        judge_heat(
            gpu,
            rows,
            slowdown_c=float(slowdown_c) if isinstance(slowdown_c, (int, float)) else None,
            median_c=_median_c(evidence),
        ),
        judge_throttle(
            gpu,
            rows,
            counters,
            run_s=_run_s(evidence),
            share_max=_thresholds(evidence).held_back_share_max,
            driver_major=gpu_readings(evidence, identity).driver_major,
        ),
        judge_ecc(gpu, counters, lacking=lacking, corrected_max=_thresholds(evidence).ecc_corrected_max),
        judge_xids(
            gpu,
            evidence.sightings(gpu),
            is_watched=bool(evidence.told("xid.watching")),
            unavailable=next(iter(evidence.told("xid.unavailable")), None),
            overrides=_override(evidence).xids,
        ),
        judge_sensors(
            gpu,
            rows,
            lacking=lacking,
            failed=evidence.told("sensor.failed", gpu=gpu),
            hung=evidence.told("sensor.hung", gpu=gpu),
            rows_expected=round(_sampled_s(evidence)),
        ),
    ]
    processes = identity.get("processes")
    findings.append(
        judge_company(
            gpu,
            before=list(processes) if isinstance(processes, list) else [],
            during=[list(event.data["pids"]) for event in evidence.while_ours("gpu.processes", gpu=gpu)],
            own=0 if evidence.is_cpu else 1,
            intruders=evidence.told("gpu.intruder", gpu=gpu),
        )
    )
    return findings


def _median_c(evidence: Evidence) -> float | None:
    """Return the median of the highest temperatures of the node's GPUs; None with fewer than three."""
    seen = [numbers(evidence.series("gpu", gpu=str(g["uuid"])), "temperature_c") for g in evidence.gpus]
    hottest = [max(temperatures) for temperatures in seen if temperatures]
    return median(hottest) if len(hottest) > 2 else None


def _sampled_s(evidence: Evidence) -> float:
    """Return for how long the sampler should have sampled: from the inventory to the agent's end."""
    events = evidence.run.events_of("nvml.inventory", "agent.finished")
    return (events[-1].t_ns - events[0].t_ns) / 1e9 if len(events) > 1 else 0.0


def _judge_controls(evidence: Evidence) -> list[Finding]:
    kind = "cpu" if evidence.is_cpu else "cuda"
    findings = [prove_preflight_rules()]
    for stage, detectors in DETECTORS.items():
        if stage not in evidence.stage_names() or evidence.impossible(stage):
            continue
        if stage == "preflight" and not evidence.order.preflight_options:
            continue  # an order of before the host had a load of its own
        if stage != "preflight" and not evidence.devices:
            continue  # nothing rests on them: that there is no device is undecided by `devices` itself
        done = [device for device in evidence.devices if evidence.has_done(device, stage)]
        for detector in detectors:
            told = evidence.told("control", stage=stage, detector=detector)
            if told or not _is_beside_the_point(evidence, detector):
                findings.append(judge_control(stage, detector, told, devices=done))
    for stage in evidence.stage_names():
        faults = stage_faults(stage)
        if faults and not evidence.impossible(stage):
            findings.append(prove_rules(stage, faults))
    if "matmul" in evidence.stage_names():
        rates = {
            d: r for d in evidence.devices if (r := _rates(evidence, d)) and evidence.has_done(d, "matmul")
        }
        proven = prove_speed_rule(rates, kind)
        findings += [proven] if proven is not None else []
    if evidence.gpus:
        findings.append(prove_figure_rules())
    if "vendor" in evidence.stage_names():
        findings.append(prove_vendor_rules())
    if "aftermath" in evidence.stage_names():
        findings.append(prove_aftermath_rules(has_gpus=bool(evidence.gpus)))
    return findings


def _is_beside_the_point(evidence: Evidence, detector: str) -> bool:
    """Integers have no NaN: where no floating-point format was asked for there is nothing to prove."""
    tested = {str(name) for data in evidence.told("formats") for name in data["tested"]}
    return detector == "NaN in a product" and tested <= {"int8"} and bool(tested)
