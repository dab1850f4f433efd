"""Rules on a host's settings, its adapters and the errors of what is plugged into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.rdma import select_adapters

SHM_BYTES_MIN = 512 * 2**20  # a container's default of 64 MiB breaks NCCL and the loaders of data
MEMLOCK_BYTES_MIN = 2**30  # RDMA pins its buffers; the usual default is a few MiB
TOOL_ANSWERS_WITHIN_S = 5.0
# Errors more than before that a run may have, by the end of a counter's name. Correctable ones of AER: what
# DCGM accepts in its pcie test (read 2026-07); of symbols: a sound cable has none, a few are no fault.
ADDED_MAX = {
    "fatal": 0,
    "non_fatal": 0,
    "correctable": 480,
    "link_downed": 0,
    "link_error_recovery": 0,
    "symbol_error": 10,
    "port_rcv_errors": 10,
    "local_link_integrity_errors": 10,
    "excessive_buffer_overrun_errors": 10,
}


def judge_setup(host: str, setup: JsonObject, *, gpu_count: int, has_rdma: bool) -> list[Finding]:
    """Judge what wrecks jobs; what only explains them is said and not judged."""
    shm, memlock = setup.get("shm_bytes"), setup.get("memlock_bytes")
    findings = [_note(host, setup)]
    if gpu_count > 1:
        is_enough = shm is not None and shm >= SHM_BYTES_MIN
        outcome = None if shm is None else Outcome.PASS if is_enough else Outcome.FAIL
        observed = "there is none" if shm is None else f"{shm / 2**20:.0f} MiB"
        step = "give the container more (docker --shm-size, an emptyDir of medium Memory)"
        findings.append(_finding(host, "dev-shm", outcome, observed, "at least 512 MiB in /dev/shm", step))
    if has_rdma:
        is_enough = memlock is None or memlock >= MEMLOCK_BYTES_MIN
        observed = "no limit" if memlock is None else f"{memlock / 2**20:.0f} MiB"
        outcome = Outcome.PASS if is_enough else Outcome.FAIL
        step = "raise the limit (ulimit -l unlimited, LimitMEMLOCK=infinity, the container's ulimits)"
        findings.append(
            _finding(host, "memlock", outcome, observed, "a process may lock 1 GiB or more", step)
        )
    for nvme in setup.get("nvmes") or []:
        outcome = Outcome.PASS if nvme["state"] == "live" else Outcome.FAIL
        step = f"read the kernel log for {nvme['name']}; replace the drive"
        observed = f"{nvme['model']}: {nvme['state'] or 'unknown'}"
        findings.append(_finding(host, str(nvme["name"]), outcome, observed, "the drive is live", step))
    return findings


def _note(host: str, setup: JsonObject) -> Finding:
    governors = ", ".join(setup.get("governors") or []) or "not stated"
    observed = (
        f"{setup.get('cores_online')} cores, governor {governors}, {setup.get('numa_nodes')} NUMA nodes, "
        f"{setup.get('hugepages')} huge pages, {setup.get('iommu_groups')} IOMMU groups, "
        f"driver {setup.get('driver')}, "
        f"fabric manager {'runs' if setup.get('has_fabric_manager') else 'not seen'}, "
        f"persistence daemon {'runs' if setup.get('has_persistence_daemon') else 'not seen'}"
    )
    return _finding(host, "setup", None, observed, "said, not judged", "")


def judge_tools(host: str, tools: Sequence[JsonObject]) -> list[Finding]:
    """Fail a host whose management tool takes too long: the driver or the BMC behind it is in trouble."""
    findings = []
    for tool in tools:
        outcome = Outcome.FAIL if tool["took_s"] > TOOL_ANSWERS_WITHIN_S else Outcome.PASS
        observed = f"answered after {tool['took_s']:.1f} s" + (f": {tool['error']}" if tool["error"] else "")
        step = "look for a GPU that hangs (kernel log); switch persistence mode on; then reboot the node"
        expected = f"an answer within {TOOL_ANSWERS_WITHIN_S:.0f} s"
        findings.append(_finding(host, str(tool["tool"]), outcome, observed, expected, step))
    return findings


def judge_ports(host: str, ports: Sequence[JsonObject], selection: str | None) -> list[Finding]:
    """Fail a training port that is down or slower than its like; without a selection ports are only shown."""
    chosen = select_adapters(selection or "", [(str(p["adapter"]), int(p["port"])) for p in ports])
    mine = [p for p in ports if (p["adapter"], p["port"]) in chosen]
    best = max((float(p["rate_gbps"] or 0) for p in mine), default=0.0)
    findings = []
    for port in mine:
        name = f"{port['adapter']}:{port['port']}"
        observed = (
            f"{port['state'] or 'unknown'}, {port['rate_gbps']} Gb/s, {port['layer']}, {port['gids']} GIDs"
        )
        is_sound = port["state"] == "ACTIVE" and float(port["rate_gbps"] or 0) >= best and port["gids"] > 0
        outcome = None if not selection else Outcome.PASS if is_sound else Outcome.FAIL
        expected = f"active at {best:.0f} Gb/s with a GID" if selection else "shown; NCCL_IB_HCA selects none"
        step = "check cable, optic and switch port of this adapter, then run it again"
        findings.append(_finding(host, name, outcome, observed, expected, step, rule="network-port"))
    return findings


def judge_nic_links(host: str, devices: Sequence[JsonObject]) -> list[Finding]:
    """Fail a network adapter whose PCIe link is slower or narrower than card and slot allow."""
    findings = []
    for device in (d for d in devices if d["what"] == "nic" and d["speed_gts"] and d["width"]):
        speed, width = _least(device, "speed_gts"), _least(device, "width")
        is_full = device["speed_gts"] >= speed and device["width"] >= width
        observed = f"{device['speed_gts']:g} GT/s × {device['width']}"
        step = "reseat the adapter or its riser, then run it again"
        outcome = Outcome.PASS if is_full else Outcome.FAIL
        name = f"pci {device['address']}"
        findings.append(
            _finding(host, name, outcome, observed, f"{speed:g} GT/s × {width:g}", step, rule="nic-link")
        )
    return findings


def _least(device: JsonObject, name: str) -> float:
    """Return what card and slot can do together."""
    own, slot = device[f"{name}_max"], device[f"slot_{name}_max"]
    return float(min(value for value in (own, slot, own or slot or 0) if value is not None))


def judge_device_errors(
    host: str, before: Mapping[str, int] | None, after: Mapping[str, int] | None
) -> list[Finding]:
    """Fail each device or port whose error counters grew by more than a sound one's do."""
    if before is None or after is None:
        return []
    places = sorted({name.rpartition("/")[0] for name in before})
    return [_judge_place(host, place, before, after) for place in places]


def _judge_place(host: str, place: str, before: Mapping[str, int], after: Mapping[str, int]) -> Finding:
    names = [name for name in before if name.rpartition("/")[0] == place]
    gone = [name for name in names if name not in after]
    added = {name.rpartition("/")[2]: after[name] - before[name] for name in names if name in after}
    over = {name: count for name, count in added.items() if count > ADDED_MAX[name]}
    observed = ", ".join(f"{count} {name}" for name, count in (over or added).items() if count) or "none"
    outcome = Outcome.FAIL if over or gone else Outcome.PASS
    observed = "it is gone from sysfs" if gone else observed
    subject = place.replace("aer/", "pci ").replace("port/", "")
    step = "reseat the device or check its cable, then run it again; replace it if errors return"
    return _finding(
        host, subject, outcome, observed, "no errors beyond a sound device's", step, rule="device-errors"
    )


def _finding(
    host: str,
    name: str,
    outcome: Outcome | None,
    observed: str,
    expected: str,
    step: str,
    *,
    rule: str = "host-setup",
) -> Finding:
    return Finding(
        rule=rule,
        subject=f"host:{host}/{name}",
        outcome=outcome,
        observed=observed,
        expected=expected,
        evidence={"stage": "preflight"},
        next_step=step if outcome is Outcome.FAIL else "",
    )
