"""Rules on arithmetic: exact products against their reference, digests against repeats and siblings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from burnin.evidence import subject_of
from burnin.rules.vote import majority
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

# In the evidence of what is undecided because readings contradict each other, not for want of any: with whom.
CONTRADICTS = "contradicts"
_SUSPECT = "take this device out of service and repeat the run on it alone; if it fails again, replace it"


def judge_exact(
    device: str, *, formats: Sequence[str], results: Sequence[JsonObject], miscompares: Sequence[JsonObject]
) -> Finding:
    """Fail a device of which a single element of an exact product was wrong.

    The reference is int64 arithmetic on the host, so a fault that hits every product alike is seen as well.
    """
    done = [str(result["format"]) for result in results]
    lacking = [name for name in formats if name not in done]
    elements = sum(int(result["elements"]) for result in results)
    wrong = sum(int(r["miscompared_elements"]) for r in results) or sum(
        int(m["elements"]) for m in miscompares
    )
    if miscompares or wrong:
        outcome = Outcome.FAIL
        observed = _describe_miscompares(wrong, miscompares)
    elif lacking or not formats:
        outcome = Outcome.INCONCLUSIVE
        observed = f"no result for {', '.join(lacking)}" if lacking else "no number format was tested"
    else:
        outcome = Outcome.PASS
        observed = f"{elements:,} elements right in {', '.join(done)}"
    return Finding(
        rule="exact",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected="every element of every product equals int64 arithmetic on the host, bit for bit",
        evidence={"stage": "matmul", "results": list(results), "miscompares": list(miscompares)[:4]},
        next_step=_SUSPECT if outcome is Outcome.FAIL else _repeat(outcome),
    )


def _describe_miscompares(wrong: int, miscompares: Sequence[JsonObject]) -> str:
    if not miscompares:
        return f"{wrong:,} wrong elements"
    first = miscompares[0]
    row, column = divmod(int(first["addresses"][0]), int(first["row_length"]))
    place = f"first in {first['format']} product {first['product']}, row {row}, column {column}"
    elements = "element" if wrong == 1 else "elements"
    period = f", every {first['period']} elements" if first.get("period") else ""
    return f"{wrong:,} wrong {elements}, {place}, bits {first['patterns'][0]}{period}"


def _repeat(outcome: Outcome) -> str:
    return "" if outcome is Outcome.PASS else "see what ended the worker (rule worker), then run it again"


def judge_first_product(device: str, results: Sequence[JsonObject]) -> Finding:
    """Fail a device whose first product of random data lies further from fp64 than rounding can explain."""
    if not results:
        outcome, observed = Outcome.INCONCLUSIVE, "no product was compared"
    elif results[0]["outside"]:
        outcome = Outcome.FAIL
        observed = f"{results[0]['outside']:,} of {results[0]['elements']:,} elements beyond the bound"
    else:
        outcome = Outcome.PASS
        observed = f"all of {results[0]['elements']:,} elements within the bound"
    return Finding(
        rule="first-product",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected="each element within the rounding error that any order of summation can have",
        evidence={"stage": results[0].get("stage") if results else None, "results": list(results)},
        next_step=_SUSPECT if outcome is Outcome.FAIL else _repeat(outcome),
    )


def judge_digests(
    results: Mapping[str, JsonObject | None], dissents: Mapping[str, int], likenesses: Mapping[str, str]
) -> list[Finding]:
    """Compare each device's digests with its own repeats and with the devices that are like it.

    ``likenesses`` holds model and library versions: only devices that share them must agree bit for bit. A
    lone dissenter is the suspect; where no side has a majority, nobody can say who is right.
    """
    findings = []
    for device, result in results.items():
        if result is None or not result["digests"]:
            findings.append(_digest_finding(device, Outcome.INCONCLUSIVE, "no product was digested", {}))
            continue
        evidence = {"result": result, "dissents": dissents[device]}
        siblings = {
            other: str(found["digest"])
            for other, found in results.items()
            if other != device and found and found["digests"] and likenesses[other] == likenesses[device]
        }
        findings.append(_judge_digest(device, result, dissents, siblings, evidence))
    return findings


def _judge_digest(
    device: str,
    result: JsonObject,
    dissents: Mapping[str, int],
    siblings: Mapping[str, str],
    evidence: JsonObject,
) -> Finding:
    if dissents[device] or result["dissents"]:
        count = max(int(result["dissents"]), dissents[device])
        observed = f"{count} of {result['digests']} digests differ from the first"
        return _digest_finding(device, Outcome.FAIL, observed, evidence)
    every = f"{result['digests']} digests (one in {result['digest_every']} products) agree"
    if not siblings:
        return _digest_finding(device, Outcome.PASS, f"{every}; no sibling to compare with", evidence)
    own = str(result["digest"])
    votes = Counter([own, *siblings.values()])
    unlike = [name for name, text in siblings.items() if text != own]
    if len(votes) == 1:
        observed = f"{every}, also with {len(siblings)} siblings"
        return _digest_finding(device, Outcome.PASS, observed, evidence)
    best = majority(votes)
    if best is None:
        observed = f"no majority: its digest differs from that of {', '.join(unlike)}"
        return _digest_finding(device, Outcome.INCONCLUSIVE, observed, evidence | {CONTRADICTS: unlike})
    count = votes[best]
    if own == best:
        observed = f"{every}, also with {count - 1} of {len(siblings)} siblings; {', '.join(unlike)} differs"
        return _digest_finding(device, Outcome.PASS, observed, evidence)
    if votes[own] == 1:
        observed = f"{every} with each other, but {count} siblings agree on another"
        return _digest_finding(device, Outcome.FAIL, observed, evidence)
    allies = [name for name, text in siblings.items() if text == own]
    observed = f"{count} siblings agree on another digest, but {', '.join(allies)} on this one"
    return _digest_finding(device, Outcome.INCONCLUSIVE, observed, evidence | {CONTRADICTS: unlike})


def _digest_finding(device: str, outcome: Outcome, observed: str, evidence: JsonObject) -> Finding:
    steps = {
        Outcome.FAIL: _SUSPECT,
        Outcome.INCONCLUSIVE: "compare models, drivers and libraries; run it again, with more of the same",
    }
    return Finding(
        rule="digest",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected="the same product has the same bits every time and on every device of this model",
        evidence={"stage": "power"} | evidence,
        next_step=steps.get(outcome, ""),
    )


def judge_operands(device: str, results: Sequence[JsonObject]) -> Finding:
    """Fail a device whose operands are not what the host had drawn: all its products agree, and are wrong."""
    differing = [(str(r["when"]), str(name)) for r in results for name in r["differing"]]
    lacking = [when for when in ("before", "after") if when not in {str(r["when"]) for r in results}]
    if differing:
        outcome = Outcome.FAIL
        observed = ", ".join(f"operand {name} differs {when} the load" for when, name in differing)
    elif lacking:
        outcome, observed = Outcome.INCONCLUSIVE, f"not compared {' and '.join(lacking)} the load"
    else:
        outcome = Outcome.PASS
        observed = f"all {results[0]['elements']:,} elements as drawn, before and after the load"
    return Finding(
        rule="operands",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected="the digests of the operands on the device equal those that the host computed",
        evidence={"stage": "power", "results": list(results)},
        next_step=_SUSPECT if outcome is Outcome.FAIL else _repeat(outcome),
    )
