"""The rule on hosts of a fleet: each has to finish its own burn-in, and to pass it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

_STEPS = {
    "lost": "see whether the host lives (console, kernel log), then go on with --resume",
    "unreachable": "see whether the host is up and its address right, then go on with --resume",
    "refused": "settle who the host is and who may log in, then go on with --resume",
    "unpermitted": "drain or reserve the host, or list it in the fleet file, then go on with --resume",
    "failed to start": "start the interpreter by hand with that login, then go on with --resume",
    "interrupted": "go on with --resume",
}
RULES_TOLD_MAX = 6


def judge_hosts(hosts: Iterable[JsonObject], findings: Sequence[JsonObject]) -> list[Finding]:
    """Return one finding for each host, from the fleet's tables ``host`` and ``host_finding``."""
    told: dict[str, list[JsonObject]] = {}
    for row in findings:
        told.setdefault(str(row["host"]), []).append(row)
    return [_judge_host(row, told.get(str(row["host"]), [])) for row in hosts]


def _judge_host(row: JsonObject, told: Sequence[JsonObject]) -> Finding:
    state, outcome = str(row["state"]), Outcome(row["outcome"])
    if state != "finished":
        observed, step = f"{state}: {row['detail']}", _STEPS.get(state, "go on with --resume")
        outcome = (
            max(outcome, Outcome.INCONCLUSIVE, key=[*Outcome].index) if outcome is Outcome.PASS else outcome
        )
    else:
        worst = [entry for entry in told if entry["outcome"] == outcome.value]
        rules = ", ".join(
            dict.fromkeys(f"{entry['rule']} ({entry['subject']})" for entry in worst[:RULES_TOLD_MAX])
        )
        more = f" and {len(worst) - RULES_TOLD_MAX} more" if len(worst) > RULES_TOLD_MAX else ""
        observed = f"its burn-in came to {outcome.value}" + (f": {rules}{more}" if rules else "")
        step = str(worst[0]["next_step"]) if worst else ""
    return Finding(
        rule="host",
        subject=f"host:{row['host']}",
        outcome=outcome,
        observed=observed,
        expected="finishes its own burn-in and passes it",
        evidence={"run": row["run"]} if row["run"] else {},
        next_step="" if outcome is Outcome.PASS else step or "see the host's own report",
    )
