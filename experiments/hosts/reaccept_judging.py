"""The rule on going back into service: a host that was hit has to pass a burn-in before it is given back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.impact.recovery import FaultSeen
from experiments.injecting.ledger import UNDO_FAILED, Entry
from probes.finding import Finding
from probes.outcome import Outcome
from reports.reacceptance import OWN_DOING, BurnedIn

NOT_HEALED, NOT_UNDONE = "not healed", "not undone"
_UNTIL = "keep it out of service until it has passed a burn-in"


def hosts_hit(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return each host on which something was armed, with its entries: it may have been hit."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        if "host_fault" in entry.captured:
            for name in dict.fromkeys(str(victim["name"]) for victim in entry.captured.get("victims", ())):
                found.setdefault(name, []).append(entry)
    return found


def judge_reaccepted(
    faults: Sequence[FaultSeen],
    entries: Sequence[Entry],
    burned: Mapping[str, BurnedIn],
    *,
    is_asked: bool,
    recovery_s: float,
    folder: Path,
) -> list[Finding]:
    """Return one finding for each host that was hit; a burn-in that was not asked for judges nothing.

    ``folder`` is where the burn-ins of this day are.
    """
    found = []
    for host, own in hosts_hit(entries).items():
        outcome, observed, next_step = _judge(own, burned.get(host), is_asked=is_asked, folder=folder)
        after = burned.get(host)
        links = {} if after is None else {"run": after.run, "report": after.report}
        found.append(
            Finding(
                rule="reaccepted",
                subject=f"host:{host}",
                outcome=outcome,
                observed=observed,
                expected="passes a burn-in after the fault, before it is given back",
                evidence={"host": host, OWN_DOING: own_doing(own, faults, recovery_s=recovery_s)} | links,
                next_step=next_step,
            )
        )
    return found


def _judge(
    entries: Sequence[Entry], after: BurnedIn | None, *, is_asked: bool, folder: Path
) -> tuple[Outcome | None, str, str]:
    pending = [entry for entry in entries if entry.is_pending]
    again = f"overproof burnin run {folder}/fleet.yaml --no-network --out {folder}; then judge this day again"
    if after is not None and not pending:
        steps = {
            Outcome.FAIL: f"keep it out of service: overproof burnin act {after.run} --drain slurm",
            Outcome.INCONCLUSIVE: f"{_UNTIL}: {again}",
        }
        return after.outcome, after.observed, steps.get(after.outcome, "")
    if not is_asked:
        return None, "was not re-accepted: the experiment does not ask for it", ""
    if pending:
        left = f"{pending[0].fault} is {pending[0].state}, and a burn-in would meet it"
        by_hand = "overproof gameday undo, then a burn-in of it"
        return Outcome.INCONCLUSIVE, f"was not re-accepted: {left}", f"{_UNTIL}: {by_hand}"
    why = "was not re-accepted: no burn-in of it is on record"
    return Outcome.INCONCLUSIVE, why, f"{_UNTIL}: see {folder}.log, then {again}"


def own_doing(entries: Sequence[Entry], faults: Sequence[FaultSeen], *, recovery_s: float) -> list[str]:
    """Return what speaks against the host itself; that we broke it does not, nor that we cannot get in.

    What the platform was given its time to heal and undoing had to, and what the host itself says is not as
    it was although it was undone.
    """
    seen = {str(fault.data["id"]): fault for fault in faults}
    found = []
    for entry in entries:
        fault = seen.get(entry.id)
        if fault is not None and _is_not_healed(entry, fault, recovery_s):
            found.append(f"{NOT_HEALED}: {entry.subject}")
        if entry.state == UNDO_FAILED and entry.detail.get("is_seen"):
            found.append(f"{NOT_UNDONE}: {entry.subject}: {entry.detail.get('did')}")
    return found


def _is_not_healed(entry: Entry, fault: FaultSeen, recovery_s: float) -> bool:
    if not fault.is_healed_by_platform or fault.t_healed_ns is not None or fault.t_undone_ns is None:
        return False
    took_s = (fault.t_undone_ns - fault.t_inject_ns) / 1e9
    return bool(entry.detail.get("has_acted")) and took_s >= recovery_s
