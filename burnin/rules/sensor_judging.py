"""Lays what the sensors said out for their rules: memories, links, settings, required evidence, the host."""

from __future__ import annotations

from collections.abc import Callable

from burnin.evidence import Evidence
from burnin.expectation import ExpectationSpec, expectation_for
from burnin.required_evidence import ARCHITECTURES, Site, judge_required
from burnin.rules.gpu_bus import judge_fabric, judge_nvlinks, judge_pcie_errors, judge_pcie_link
from burnin.rules.gpu_events import judge_gpu_events
from burnin.rules.gpu_memory_health import (
    judge_ecc_mode,
    judge_hbm_heat,
    judge_inforom,
    judge_row_remaps,
    judge_sram,
)
from burnin.rules.gpu_readings import GpuReadings
from burnin.rules.gpu_settings import (
    judge_memory_clock,
    judge_memory_in_use,
    judge_mig,
    judge_power_limit,
    judge_recovery_action,
)
from burnin.rules.host_parts import judge_acs, judge_bmc_log, judge_drives, judge_modules
from burnin.rules.host_setup_rules import (
    judge_device_errors,
    judge_nic_links,
    judge_ports,
    judge_setup,
    judge_tools,
)
from burnin.rules.log_health import judge_log_trouble, judge_log_watch
from burnin.rules.preconditions import judge_hidden
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.platform import BARE_METAL

# Judged once for each GPU, whatever stages ran.
GPU_RULES: tuple[Callable[[GpuReadings], Finding], ...] = (
    judge_row_remaps,
    judge_sram,
    judge_inforom,
    judge_ecc_mode,
    judge_hbm_heat,
    judge_pcie_link,
    judge_pcie_errors,
    judge_fabric,
    judge_recovery_action,
    judge_power_limit,
    judge_memory_clock,
    judge_memory_in_use,
    judge_mig,
)


def judge_sensor_readings(evidence: Evidence, models: list[ExpectationSpec]) -> list[Finding]:
    """Judge every GPU that NVML lists by what its sensors said; ``models`` are the user's own figures."""
    findings = _judge_log(evidence)
    findings += [_judge_unreachable(data) for data in evidence.inventory.get("unreachable") or []]
    findings += judge_hidden(evidence.choice or {})
    findings += _judge_setup(evidence)
    for identity in evidence.gpus:
        readings = gpu_readings(evidence, identity)
        findings += [judge(readings) for judge in GPU_RULES]
        name = str(identity.get("name", ""))
        findings.append(judge_nvlinks(readings, links_expected=_links_expected(name, models)))
        findings.append(_judge_required(evidence, readings))
        findings.append(_judge_events(evidence, readings.gpu))
    return findings


def _judge_events(evidence: Evidence, gpu: str) -> Finding:
    watching = next(iter(evidence.told("xid.watching")), {})
    lost = next(iter(evidence.told("xid.unavailable")), None)
    bits = (watching.get("bits") or {}).get(gpu)
    return judge_gpu_events(gpu, evidence.told("gpu.event", gpu=gpu), bits=bits, unavailable=lost)


def _judge_log(evidence: Evidence) -> list[Finding]:
    host, states = evidence.run.header.host, evidence.told("kernel.log")
    is_watched = bool(states) and states[-1]["state"] == "watched"
    told = evidence.told("kernel.trouble")
    return [
        judge_log_watch(host, states, has_gpus=bool(evidence.gpus)),
        *judge_log_trouble(host, told, is_watched=is_watched),
    ]


def gpu_readings(evidence: Evidence, identity: JsonObject) -> GpuReadings:
    """Return what the sensors said of one GPU."""
    gpu = str(identity["uuid"])
    before, after = (evidence.told("gpu.snapshot", gpu=gpu, when=when) for when in ("before", "after"))
    first, last = (found[-1] if found else {} for found in (before, after))
    identity_lacking = identity.get("lacking")
    return GpuReadings(
        gpu=gpu,
        run_s=_between_s(evidence),
        identity={name: value for name, value in identity.items() if name != "lacking"},
        driver=str(evidence.inventory.get("driver", "")),
        rows=evidence.series("gpu", gpu=gpu),
        before=first.get("values", {}),
        after=last.get("values", {}),
        links_before=first.get("links"),
        links_after=last.get("links"),
        corrupt=[
            *(identity.get("corrupt") or []),
            *(str(d["sensor"]) for d in evidence.told("sensor.failed", gpu=gpu) if d.get("is_corrupt")),
        ],
        lacking=(identity_lacking if isinstance(identity_lacking, dict) else {})
        | first.get("lacking", {})
        | last.get("lacking", {}),
    )


def _judge_setup(evidence: Evidence) -> list[Finding]:
    """Judge the host; a run of before these were read has nothing to say here."""
    host, said = evidence.run.header.host, evidence.told("host.setup")
    platform = _platform(evidence)
    findings = []
    for data in said[:1]:
        gpu_count, has_rdma = len(evidence.gpus), bool(data["ports"])
        findings += judge_setup(host, data["setup"], gpu_count=gpu_count, has_rdma=has_rdma)
        findings += judge_ports(host, data["ports"], data["selection"])
        findings += judge_nic_links(host, data["pci"])
        if "modules" in data:
            findings.append(judge_acs(host, data["acs"], data["iommu"], platform))
            findings.append(judge_modules(host, data["modules"], data["node_bytes"], platform))
    for data in evidence.told("host.tools"):
        findings += judge_tools(host, data["tools"])
    return findings + _judge_snapshots(evidence, host)


def _judge_snapshots(evidence: Evidence, host: str) -> list[Finding]:
    """Judge what was read before and after the load."""
    before, after = (evidence.told("host.snapshot", when=when) for when in ("before", "after"))
    first, last = (found[-1] if found else {} for found in (before, after))
    findings = judge_device_errors(host, first.get("devices"), last.get("devices"))
    if after:
        findings += judge_drives(host, first.get("drives"), last.get("drives"))
    logs = [[data["log"] for data in evidence.told("host.bmc", when=when)] for when in ("before", "after")]
    if logs[0]:
        findings.append(judge_bmc_log(host, logs[0][-1], logs[1][-1] if logs[1] else None))
    return findings


def _platform(evidence: Evidence) -> str:
    facts = next(iter(evidence.told("host.platform")), {})
    return str(facts.get("platform", BARE_METAL))


def _judge_required(evidence: Evidence, readings: GpuReadings) -> Finding:
    architecture = readings.identity.get("architecture")
    site = Site(
        board=str(readings.identity.get("name", "GPU")),
        architecture=ARCHITECTURES.get(architecture) if isinstance(architecture, int) else None,
        driver_major=readings.driver_major,
        platform=_platform(evidence),
        profile=str(evidence.run.header.spec.get("profile", "quick")),
        is_root=bool(next(iter(evidence.told("host.platform")), {}).get("is_root", True)),
    )
    reasons = dict(readings.lacking)
    for data in [*evidence.told("xid.unavailable"), *evidence.told("kernel.log")]:
        reasons |= (
            {"xid_events": str(data["error"])} if "error" in data else {"kernel_log": str(data["detail"])}
        )
    return judge_required(readings.gpu, site, _present(evidence, readings), reasons)


def _present(evidence: Evidence, readings: GpuReadings) -> set[str]:
    """Return the names of all readings that came: of the identity, of a row, of the last counters."""
    names = {name for name, value in readings.identity.items() if value is not None}
    names |= {name for row in readings.rows for name, value in row.items() if value is not None}
    names |= set(readings.before) & set(readings.after)
    names |= {"nvlinks"} if readings.links_before and readings.links_after else set()
    watches = {"xid_events": evidence.told("xid.watching") and not evidence.told("xid.unavailable")}
    states = evidence.told("kernel.log")
    watches["kernel_log"] = bool(states) and states[-1]["state"] == "watched"
    return names | {name for name, is_watched in watches.items() if is_watched}


def _between_s(evidence: Evidence) -> float:
    """Return the seconds between the first and the last snapshot."""
    events = evidence.run.events_of("gpu.snapshot")
    return (events[-1].t_ns - events[0].t_ns) / 1e9 if events else 0.0


def _links_expected(name: str, models: list[ExpectationSpec]) -> int | None:
    """Return how many NVLinks a board must have; None: not known, or bridges that a site may leave out."""
    expectation = expectation_for(name, models)
    links = expectation.figures.get("nvlinks") if expectation is not None else None
    return None if links is None or "PCIe" in name or "NVL" in name else round(links.value)


def _judge_unreachable(data: JsonObject) -> Finding:
    """Fail a GPU that NVML counts and cannot open."""
    return Finding(
        rule="gpu-lost",
        subject=f"gpu:number {data['index']} of NVML",
        outcome=Outcome.FAIL,
        observed=f"listed, and not to be opened: {data['error']}",
        expected="the driver reaches the GPU all the time",
        next_step="power-cycle the node; if it is lost again, reseat or replace the GPU",
    )
