"""Rules on the kernel's log: whether it was read at all, and what it told beside the XIDs of known GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

STEPS = {
    "xid": "find this GPU by its address (lspci); if it is gone, power-cycle the node and reseat it",
    "sxid": "reset the NVSwitches with their GPUs; if it returns, replace the baseboard or switch tray",
    "aer": "reseat the device at this address and its riser; if it returns, replace it",
    "mce": "decode it (rasdaemon, mcelog) and open a case with the vendor of the host",
    "edac": "find the DIMM with `ras-mc-ctl --error-count` and replace it",
    "driver": "read the kernel log; reinstall the driver or replace the GPU",
}
# What a severity means where a message states one; XIDs without a known GPU and failed drivers always count.
_BAD = {"fatal", "uncorrected"}


def judge_log_watch(host: str, states: Sequence[JsonObject], *, has_gpus: bool = False) -> Finding:
    """Say whether the kernel's log was read; where it cannot be, XIDs of a lost GPU go unseen.

    Where there is none, as in a container, that does not apply. One that is kept from us could have told.
    """
    last = states[-1] if states else {"state": "silent", "detail": "the sampler did not say"}
    state, detail = str(last["state"]), str(last.get("detail", ""))
    outcome: Outcome | None
    if state == "watched":
        outcome, observed = Outcome.PASS, f"followed by {last['reader']}"
    elif state == "absent":
        outcome, observed = None, f"there is none here: {detail}; XIDs that NVML does not deliver go unseen"
    elif state == "forbidden":
        outcome = Outcome.INCONCLUSIVE if has_gpus else None
        observed = f"not for this user: {detail}; XIDs that NVML does not deliver go unseen"
    else:
        outcome, observed = Outcome.INCONCLUSIVE, f"not read to the end: {detail}"
    return Finding(
        rule="kernel-log",
        subject=f"host:{host}",
        outcome=outcome,
        observed=observed,
        expected="read from the start of the run to its end",
        evidence={"stage": "aftermath", "state": state},
        next_step=_step(state) if outcome is Outcome.INCONCLUSIVE else "",
    )


def _step(state: str) -> str:
    if state == "forbidden":
        return "run it as root, or as a user of the group adm or systemd-journal"
    return "run it again"


def judge_log_trouble(host: str, told: Sequence[JsonObject], *, is_watched: bool) -> list[Finding]:
    """Fail each place of which the log reports an error that was not corrected; corrected ones are noted."""
    places = sorted({(str(data["what"]), _place(host, data)) for data in told})
    findings = [_judge(subject, kind, host, told) for kind, subject in places]
    if findings or not is_watched:
        return findings
    return [_finding(f"host:{host}", Outcome.PASS, "no message of trouble", "", [])]


def _judge(subject: str, kind: str, host: str, told: Sequence[JsonObject]) -> Finding:
    mine = [data for data in told if data["what"] == kind and _place(host, data) == subject]
    bad = [data for data in mine if _is_bad(data)]
    outcome = Outcome.FAIL if bad else Outcome.PASS
    shown = (bad or mine)[0]
    observed = f"{kind}: {len(bad)} errors, {len(mine) - len(bad)} corrected; {shown['text']!s:.160}"
    return _finding(subject, outcome, observed, STEPS[kind], [str(data["text"]) for data in mine[:5]])


def _is_bad(data: JsonObject) -> bool:
    return data["what"] in ("xid", "driver") or data["severity"] in _BAD


def _place(host: str, data: JsonObject) -> str:
    if data.get("gpu"):
        return f"gpu:{data['gpu']}"
    return f"host:{host}/pci {data['pci']}" if data.get("pci") else f"host:{host}/{data['what']}"


def _finding(subject: str, outcome: Outcome, observed: str, next_step: str, messages: list[str]) -> Finding:
    return Finding(
        rule="kernel-trouble",
        subject=subject,
        outcome=outcome,
        observed=observed,
        expected="no error of PCIe, memory, processor, NVSwitch or driver during the run",
        evidence={"stage": "aftermath", "messages": messages},
        next_step=next_step if outcome is Outcome.FAIL else "",
    )
