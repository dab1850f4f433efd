"""Rules on the parts of a host beside its GPUs: PCIe ports, drives, memory modules, the controller's log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from burnin.bmc_table import bmc_event_spec
from probes.acs import BITS
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.platform import BARE_METAL

_REDIRECTS = 0x04 | 0x08  # requests and completions of peers go up to the root complex
NODE_MEMORY_RATIO_MIN = 0.95  # one DIMM of 16 is 6 %; what the kernel keeps for itself differs by 1 to 2 %
NVME_WARNINGS = {
    0x01: "spare blocks below their threshold",
    0x02: "temperature beyond its limits",
    0x04: "reliability degraded by media or internal errors",
    0x08: "read-only",
    0x10: "backup of volatile memory failed",
    0x20: "persistent memory region unreliable",
}  # NVM Express base specification, log page 02h
NVME_USED_NOTED_PCT = 90


def judge_acs(host: str, ports: Sequence[JsonObject], iommu: Mapping[str, str], platform: str) -> Finding:
    """Fail a host of bare metal on which a PCIe switch sends what its cards tell each other to the root.

    Only a switch with a GPU and another GPU or adapter below it is judged: other traffic goes up anyway.
    Virtual machines need the redirection.
    """
    shared = [port for port in ports if not port["is_root"] and _is_turning_point(port, ports)]
    redirecting = [port for port in shared if (port["control"] or 0) & _REDIRECTS]
    problems = [str(port["problem"]) for port in shared if port["problem"]]
    groups = ", ".join(f"{n} × {kind}" for kind, n in Counter(iommu.values()).items()) or "none"
    outcome: Outcome | None
    if not shared:
        outcome, observed = None, "no PCIe switch that a GPU shares with another GPU or adapter"
    elif platform != BARE_METAL:
        outcome, observed = None, f"not judged in a {platform}"
    elif redirecting:
        outcome = Outcome.FAIL
        observed = ", ".join(f"{p['address']} {_bits(p['control'])}" for p in redirecting[:8])
    elif problems:
        outcome, observed = None, f"not readable: {problems[0]}"
    else:
        outcome, observed = Outcome.PASS, f"none of {len(shared)} ports redirects"
    step = "switch ACS off below the switches (BIOS, or setpci ECAP_ACS+0x6.w=0 at boot), then run it again"
    expected = "cards below one PCIe switch reach each other directly"
    observed += f"; IOMMU of the GPUs: {groups}"
    return _finding("pcie-acs", host, "", outcome, observed, expected, step, {"ports": list(ports)})


def _is_turning_point(port: JsonObject, ports: Sequence[JsonObject]) -> bool:
    """Say whether traffic between a GPU and another card turns round in the switch that this port is of."""
    beside = [p for p in ports if p["above"] == port["above"]]
    gpus = {gpu for p in beside for gpu in p["gpus"]}
    cards = gpus | {nic for p in beside for nic in p["nics"]}
    own = {*port["gpus"], *port["nics"]}
    return bool(own) and bool(gpus) and len(cards - own) > 0


def _bits(control: int) -> str:
    return "+".join(name for bit, name in BITS.items() if control & bit)


def judge_drives(
    host: str, before: Mapping[str, JsonObject] | None, after: Mapping[str, JsonObject] | None
) -> list[Finding]:
    """Fail a drive that warns of itself, or met errors of its media during the run."""
    return [_judge_drive(host, name, (before or {})[name], (after or {}).get(name)) for name in before or {}]


def _judge_drive(host: str, name: str, first: JsonObject, last: JsonObject | None) -> Finding:
    step = "save what is on this drive and replace it"
    outcome: Outcome | None
    if "problem" in first:
        outcome, observed = None, f"not readable: {first['problem']}"
    elif last is None or "problem" in last:
        outcome = Outcome.FAIL
        observed = "it answered before the load and no longer" + (f": {last['problem']}" if last else "")
    else:
        warnings = [text for bit, text in NVME_WARNINGS.items() if last["critical_warning"] & bit]
        added = int(last["media_errors"]) - int(first["media_errors"])
        outcome = Outcome.FAIL if last["critical_warning"] or added > 0 else Outcome.PASS
        observed = f"{added} media errors more, {last['media_errors']} in its life, {last['used_pct']} % used"
        observed += ": watch it" if last["used_pct"] >= NVME_USED_NOTED_PCT else ""
        observed += (
            f"; warns: {', '.join(warnings) or hex(last['critical_warning'])}"
            if last["critical_warning"]
            else ""
        )
    return _finding("nvme-health", host, name, outcome, observed, "no warning, no new media error", step)


def judge_modules(host: str, said: JsonObject, node_bytes: Mapping[str, int], platform: str) -> Finding:
    """Fail a host of bare metal with modules of different speeds, or with less memory at one processor."""
    filled = [m for m in said["modules"] if m["size_mib"]]
    # Slots are no keys: firmware gives the same name to several.
    by_slot = [(str(m["slot"]), int(m["speed_mts"])) for m in filled if m["speed_mts"]]
    speeds = sorted({speed for _, speed in by_slot})
    sizes = Counter(int(m["size_mib"]) // 1024 for m in filled)
    most = max(node_bytes.values(), default=0)
    short = {n: size for n, size in node_bytes.items() if size < NODE_MEMORY_RATIO_MIN * most}
    shown = ", ".join(f"{n} × {size} GiB" for size, n in sizes.items())
    observed = f"{shown or 'modules not readable: ' + str(said['problem'])}"
    observed += f" at {'/'.join(map(str, speeds))} MT/s" if speeds else ""
    outcome: Outcome | None = Outcome.PASS if filled or len(node_bytes) > 1 else None
    step = ""
    if platform != BARE_METAL:
        outcome, observed = None, f"{observed}; not judged in a {platform}"
    elif len(speeds) > 1:
        slow = sorted(slot for slot, speed in by_slot if speed < speeds[-1])
        outcome, step = Outcome.FAIL, f"replace what differs: {', '.join(slow)[:160]}"
    elif short:
        outcome = Outcome.FAIL
        parts = ", ".join(f"{n} has {size / 2**30:.0f} GiB" for n, size in short.items())
        observed += f"; {parts}, the largest {most / 2**30:.0f} GiB"
        step = "find the module that is missing or mapped out (dmidecode -t memory, the controller's log)"
    if len(sizes) > 1:
        observed += "; sizes are mixed: look whether that is wanted"
    expected = "modules of one speed, and as much memory at each processor"
    return _finding("host-memory", host, "", outcome, observed, expected, step, {"modules": said["modules"]})


def judge_bmc_log(host: str, before: JsonObject | None, after: JsonObject | None) -> Finding:
    """Fail a host whose controller noted a grave event during the run, or one before that still holds."""
    step = "read the log in full (ipmitool sel elist); once mended, clear it (ipmitool sel clear)"
    expected = "no grave event during the run, and none from before that still holds"
    outcome: Outcome | None
    if before is None:
        return _finding("bmc-log", host, "", None, "no ipmitool on this host", expected, "")
    if before["problem"] or after is None or after["problem"]:
        problem = before["problem"] or (after or {}).get("problem") or "not read after the load"
        outcome = None if before["problem"] else Outcome.INCONCLUSIVE
        return _finding("bmc-log", host, "", outcome, f"not readable: {problem}", expected, "run it again")
    old = {_key(entry) for entry in before["entries"]}
    added = [entry for entry in after["entries"] if _key(entry) not in old]
    grave = [(entry, found) for entry in added if (found := _step_of(entry, has_to_last=False))]
    grave += [
        (entry, found)
        for entry in _holding(after["entries"])
        if entry not in added and (found := _step_of(entry, has_to_last=True))
    ]
    outcome = Outcome.FAIL if grave else Outcome.PASS
    shown = [entry for entry, _ in grave] or added
    texts = "; ".join(f"{e['sensor']}: {e['event']} ({e['at']})" for e in shown[:4])
    observed = f"{len(added)} entries added, {len(old)} from before" + (f"; {texts}" if texts else "")
    step = f"{grave[0][1]}; once mended, clear the log (ipmitool sel clear)" if grave else step
    return _finding("bmc-log", host, "", outcome, observed, expected, step, {"added": added[:50]})


def _key(entry: JsonObject) -> tuple[str, ...]:
    return tuple(str(entry[name]) for name in ("id", "at", "sensor", "event", "is_asserted"))


def _step_of(entry: JsonObject, *, has_to_last: bool) -> str:
    """Return what a grave entry calls for; empty: it is none."""
    spec = bmc_event_spec(str(entry["sensor"]), str(entry["event"]))
    is_grave = spec is not None and spec.verdict == "fail" and entry["is_asserted"]
    return spec.next_step if spec is not None and is_grave and (spec.lasts or not has_to_last) else ""


def _holding(entries: Sequence[JsonObject]) -> list[JsonObject]:
    """Return the last entry of each sensor and event that was asserted and has not been taken back."""
    last: dict[tuple[str, str], JsonObject] = {}
    for entry in entries:
        last[str(entry["sensor"]), str(entry["event"])] = entry
    return [entry for entry in last.values() if entry["is_asserted"]]


def _finding(
    rule: str,
    host: str,
    name: str,
    outcome: Outcome | None,
    observed: str,
    expected: str,
    step: str,
    evidence: JsonObject | None = None,
) -> Finding:
    return Finding(
        rule=rule,
        subject=f"host:{host}" + (f"/{name}" if name else ""),
        outcome=outcome,
        observed=observed,
        expected=expected,
        evidence={"stage": "aftermath"} | (evidence or {}),
        next_step=step if outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE) else "",
    )
