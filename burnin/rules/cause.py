"""Root causes: where one fault explains several findings, it is named once and the others point to it.

Nothing is taken back: each finding keeps its outcome, and only what the cause really explains points to it.
A wrong product on a GPU that later fell off the bus is a fault of its own and stays one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from probes.finding import Finding
from probes.outcome import Outcome

ANY_RULE = "*"
UNDECIDED = frozenset({Outcome.INCONCLUSIVE})
FAILED = frozenset({Outcome.FAIL})
NOT_PASSED = UNDECIDED | FAILED
# XIDs with which a driver reports that it lost a GPU, and those that report a memory error.
LOST_XIDS, MEMORY_XIDS = frozenset({79}), frozenset({48, 63, 64, 92, 94, 95, 140, 171, 172})
# The same told as NVML's other events: a GPU that is unavailable or wants recovery; errors of its memory.
LOST_EVENTS = frozenset({0x4000, 0x8000})
MEMORY_EVENTS = frozenset({0x1, 0x2, 0x200, 0x400, 0x800, 0x1000, 0x2000})

Condition = Callable[[Finding, Finding, Sequence[Finding]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What a finding of one rule explains."""

    rule: str
    outcomes: frozenset[Outcome] = FAILED  # with which the rule is a cause
    explains: Mapping[str, frozenset[Outcome]] = field(default_factory=dict)
    elsewhere: Mapping[str, frozenset[Outcome]] = field(default_factory=dict)  # on other subjects
    condition: Condition | None = None  # None: always


def _xids(finding: Finding) -> set[int]:
    return {int(xid) for xid in finding.evidence.get("xids", {})}


def _events(finding: Finding) -> set[int]:
    return {int(bit, 16) for bit in finding.evidence.get("events", {})}


def _only_of_a_loss(_: Finding, effect: Finding, __: Sequence[Finding]) -> bool:
    if effect.rule == "gpu-event":
        return _events(effect) <= LOST_EVENTS
    return effect.rule != "xid" or _xids(effect) <= LOST_XIDS


def _is_of_memory(cause: Finding, effect: Finding, _: Sequence[Finding]) -> bool:
    if effect.rule == "gpu-event" and not _events(effect) <= MEMORY_EVENTS:
        return False
    return effect.rule not in ("ecc", "gpu-event") or bool(_xids(cause) & MEMORY_XIDS)


def _is_fast_per_clock(_: Finding, effect: Finding, findings: Sequence[Finding]) -> bool:
    """Heat explains low clocks; it does not explain a GPU that does less per tick than its siblings."""
    return not any(
        f.rule == "speed-per-clock" and f.subject == effect.subject and f.outcome is Outcome.FAIL
        for f in findings
    )


_SLOWNESS = {"speed": FAILED, "tflops": FAILED, "power-reached": UNDECIDED, "hbm-bandwidth": FAILED}
_CUT_OFF = {"worker": NOT_PASSED, "missing-evidence": UNDECIDED, "error-bound": UNDECIDED}
_BY_NVML = (
    *("heat", "throttle", "ecc", "xid", "power-reached", "speed-per-clock", "load-reached", "memory-size"),
    *("row-remap", "pcie", "nvlink", "fabric", "foreign-process", "evidence"),
)
_NEEDS_A_WORKER = (
    *(
        "missing-evidence",
        "error-bound",
        "power-reached",
        "tflops",
        "speed-per-clock",
        "speed",
        "load-reached",
    ),
    *("allreduce", "allreduce-bandwidth", "hbm-bandwidth", "host-bandwidth", "peer-bandwidth"),
)
# Their INCONCLUSIVE may be a disagreement, which is evidence of its own, and never a mere lack of it.
_SPEAK_FOR_THEMSELVES = frozenset({"digest", "exact", "first-product", "control"})
# In this order: the first that explains a finding is named.
CAUSES = (
    Cause(
        rule="gpu-lost",
        explains={ANY_RULE: UNDECIDED, "worker": NOT_PASSED, "stuck-process": FAILED, "xid": FAILED}
        | {"gpu-event": FAILED},
        condition=_only_of_a_loss,
    ),
    Cause(
        rule="xid",
        explains=_CUT_OFF | {"ecc": FAILED, "gpu-event": FAILED, "sensors": UNDECIDED},
        condition=_is_of_memory,
    ),
    Cause(rule="stuck-process", explains=_CUT_OFF | {"sensors": UNDECIDED}),
    Cause(
        rule="worker",
        outcomes=NOT_PASSED,
        explains=dict.fromkeys(_NEEDS_A_WORKER, UNDECIDED),
        elsewhere={"allreduce": UNDECIDED, "link": UNDECIDED},
    ),
    Cause(
        rule="agent",
        outcomes=UNDECIDED,
        elsewhere={"missing-evidence": UNDECIDED, "worker": UNDECIDED, "sensors": UNDECIDED},
    ),
    Cause(rule="speed-per-clock", explains={"speed": FAILED, "tflops": FAILED}),
    Cause(rule="heat", explains={"throttle": FAILED} | _SLOWNESS, condition=_is_fast_per_clock),
    Cause(rule="throttle", explains=_SLOWNESS, condition=_is_fast_per_clock),
    Cause(rule="power-limit", explains=_SLOWNESS, condition=_is_fast_per_clock),
    Cause(rule="sensors", outcomes=UNDECIDED, explains=dict.fromkeys(_BY_NVML, UNDECIDED)),
)


def name_causes(findings: Sequence[Finding]) -> list[Finding]:
    """Let each finding that another one explains point to it, and let that one list what it explains."""
    causes = {index: _cause_of(index, findings) for index in range(len(findings))}
    roots = {index: _root(index, causes) for index, cause in causes.items() if cause is not None}
    explained: dict[int, list[str]] = {}
    for index, root in roots.items():
        explained.setdefault(root, []).append(_label(findings[index], findings[root]))
    named = []
    for index, finding in enumerate(findings):
        if index in roots and roots[index] != index:
            root_of = findings[roots[index]]
            because = {"rule": root_of.rule, "subject": root_of.subject}
            finding = replace(finding, evidence=finding.evidence | {"because": because})
        elif index in explained:
            finding = replace(finding, evidence=finding.evidence | {"explains": explained[index]})
        named.append(finding)
    return named


def _label(effect: Finding, root: Finding) -> str:
    return effect.rule if effect.subject == root.subject else f"{effect.rule} of {effect.subject}"


def _cause_of(index: int, findings: Sequence[Finding]) -> int | None:
    """Return which finding explains this one, on its own device before any other; None: nothing does."""
    effect = findings[index]
    if effect.outcome in (None, Outcome.PASS) or effect.rule in _SPEAK_FOR_THEMSELVES:
        return None
    for cause in CAUSES:
        found = [i for i, f in enumerate(findings) if i != index and _explains(cause, f, effect, findings)]
        if found:
            return min(found, key=lambda i: _part(findings[i].subject) != _part(effect.subject))
    return None


def _explains(cause: Cause, found: Finding, effect: Finding, findings: Sequence[Finding]) -> bool:
    if found.rule != cause.rule or found.outcome not in cause.outcomes:
        return False
    table = cause.explains if _part(found.subject) == _part(effect.subject) else cause.elsewhere
    # A rule that is named itself is meant; "any rule" stands for those that are not.
    wanted = table.get(effect.rule, table.get(ANY_RULE, frozenset()))
    is_possible = cause.condition is None or cause.condition(found, effect, findings)
    return effect.outcome in wanted and is_possible


def _part(subject: str) -> str:
    """Return the device that a subject is about: ``gpu:X/link 3`` is about ``gpu:X``."""
    return subject.split("/", 1)[0]


def _root(index: int, causes: Mapping[int, int | None]) -> int:
    """Follow causes to the first; a circle of causes ends where it was entered."""
    seen = {index}
    while (above := causes.get(index)) is not None and above not in seen:
        seen.add(above)
        index = above
    return index
