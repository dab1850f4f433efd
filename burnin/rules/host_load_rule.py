"""Rules on the load of the host itself: results of cores, patterns in memory, figures of disks."""

from __future__ import annotations

from collections.abc import Sequence

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome


def judge_host_load(
    host: str,
    *,
    begun: JsonObject | None,
    cores: Sequence[JsonObject],
    memories: Sequence[JsonObject],
    is_done: bool,
) -> list[Finding]:
    """Fail each core and NUMA node that was wrong; undecided is a host of which one did not answer."""
    findings = [_wrong_core(host, row) for row in cores if row.get("wrong")]
    findings += [_wrong_memory(host, row) for row in memories if row.get("wrong")]
    silent = [str(row["place"]) for row in (*cores, *memories) if row.get("died")]
    answered = {str(row["place"]) for row in cores}
    if begun is None or not is_done:
        silent.append("it did not come to its end" if begun else "it never began")
    else:
        silent += [str(core) for core in begun["cores"] if str(core) not in answered]
        silent += [n for n in begun["nodes"] if n not in {str(row["place"]) for row in memories}]
    rounds = sum(int(row.get("rounds", 0)) for row in cores)
    figures = ", ".join(
        f"{row['place']} writes {row['write_gbps']} and reads {row['read_gbps']} GB/s with one core"
        for row in memories
        if not row.get("died")
    )
    observed = f"{rounds} rounds on {len(cores)} cores; {figures or 'no memory checked'}"
    observed = f"no answer: {', '.join(silent)[:200]}; {observed}" if silent else observed
    outcome = Outcome.INCONCLUSIVE if silent else Outcome.PASS
    step = "read the kernel log for processes that were killed; then run it again" if silent else ""
    if findings and not silent:
        return findings
    return [*findings, _finding("host-load", f"host:{host}", outcome, observed, step)]


def _wrong_core(host: str, row: JsonObject) -> Finding:
    observed = f"wrong: {', '.join(row['wrong'])}, in round {row['rounds']}"
    step = "take this host out of service: its processor computes wrongly; replace it"
    return _finding("host-load", f"host:{host}/core {row['place']}", Outcome.FAIL, observed, step)


def _wrong_memory(host: str, row: JsonObject) -> Finding:
    first = row["wrong"][0]
    observed = (
        f"{len(row['wrong'])} blocks wrong; at offset {first['offset']} of {row['bytes']} B: "
        f"{first['got']} for {first['wanted']} in pattern {first['pattern']}"
    )
    step = "test the memory of this node (memtest), find the DIMM by EDAC or the controller's log, replace it"
    return _finding("host-load", f"host:{host}/{row['place']}", Outcome.FAIL, observed, step)


def judge_disks(host: str, wanted: JsonObject | None, told: Sequence[JsonObject]) -> list[Finding]:
    """Fail a file system that stays below a floor of the plan; without a floor its figures are shown."""
    return [_judge_disk(host, wanted, row) for row in told] if wanted is not None else []


def _judge_disk(host: str, wanted: JsonObject, row: JsonObject) -> Finding:
    floors = {n: float(wanted[f"{n}_mbps_min"]) for n in ("write", "read") if wanted.get(f"{n}_mbps_min")}
    problem = row.get("absent") or row.get("problem")
    outcome: Outcome | None
    if problem:
        outcome = Outcome.INCONCLUSIVE if floors else None
        observed = f"not measured: {problem}"
    else:
        over_cache = "" if row["is_direct"] else ", through the kernel's cache"
        observed = f"writes {row['write_mbps']}, reads {row['read_mbps']} MB/s{over_cache}"
        low = [n for n, floor in floors.items() if float(row[f"{n}_mbps"]) < floor]
        outcome = None if not floors else Outcome.FAIL if low else Outcome.PASS
    expected = (
        ", ".join(f"{n} at least {floor:g} MB/s" for n, floor in floors.items()) or "shown: no floor given"
    )
    steps = {
        Outcome.FAIL: "look for other users of this file system and for errors of its drive or mount",
        Outcome.INCONCLUSIVE: "install fio and name a folder with room to write; then run it again",
    }
    step = steps.get(outcome, "") if outcome is not None else ""
    return _finding("disk", f"host:{host}/{row['directory']}", outcome, observed, step, expected)


def _finding(
    rule: str,
    subject: str,
    outcome: Outcome | None,
    observed: str,
    step: str,
    expected: str = "each core computes and each NUMA node keeps what is right",
) -> Finding:
    return Finding(
        rule=rule,
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected=expected,
        evidence={"stage": "preflight"},
        next_step=step,
    )
