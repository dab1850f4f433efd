"""Stages that are repeated: what each cycle was found to be, as one finding per rule and subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from probes.finding import Finding
from probes.outcome import Outcome

_WORST_FIRST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
NAMED_MAX = 8  # cycles that are named one by one


def merge_cycles(cycles: Sequence[Sequence[Finding]]) -> list[Finding]:
    """Return, for each rule and subject, the worst of what the cycles have shown, with the cycle named."""
    if len(cycles) == 1:
        return list(cycles[0])
    found: dict[tuple[str, str], list[tuple[int, Finding]]] = {}
    for number, findings in enumerate(cycles, start=1):
        for finding in findings:
            found.setdefault((finding.rule, finding.subject), []).append((number, finding))
    return [_merge(told, of=len(cycles)) for told in found.values()]


def _merge(told: Sequence[tuple[int, Finding]], *, of: int) -> Finding:
    numbers = {outcome: [n for n, f in told if f.outcome is outcome] for outcome in _WORST_FIRST}
    worst = next((outcome for outcome in _WORST_FIRST if numbers[outcome]), None)
    if worst is None:  # it applies in no cycle
        return told[-1][1]
    shown = numbers[worst]
    # Of failures the first tells most, since later ones may follow from it; of passes any would do.
    number = shown[-1] if worst is Outcome.PASS else shown[0]
    finding = next(f for n, f in told if n == number and f.outcome is worst)
    if worst is Outcome.PASS:
        where = f"in {'each' if len(shown) == of else len(shown)} of {of} cycles, in cycle {number}"
    else:
        where = f"cycle {number} of {of}" + _also(shown[1:])
    cycles = {outcome.value: found for outcome, found in numbers.items() if found}
    evidence = finding.evidence | {"cycle": number, "cycles": cycles}
    return replace(finding, observed=f"{where}: {finding.observed}", evidence=evidence)


def _also(others: Sequence[int]) -> str:
    if not others:
        return ""
    named = ", ".join(map(str, others[:NAMED_MAX]))
    return f" (also {named}{f' and {len(others) - NAMED_MAX} more' if len(others) > NAMED_MAX else ''})"
