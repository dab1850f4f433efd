"""Rules on transfers: contents of copies and of what came over a link, and how fast siblings copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from burnin.evidence import subject_of
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

PATHS = ("device copy", "host to device", "device to host", "both directions")
# Of the siblings' median. Copies within a GPU vary little, those across PCIe depend on the socket behind it;
# Azure's floors for healthy nodes lie 10 to 15 % below what they reach (azurehpc-health-checks, 2026-05).
# Cores share caches and memory with their neighbours.
RATIO_MIN = {"cuda": 0.75, "cpu": 0.33}


def judge_bandwidth(
    device: str, *, results: Sequence[JsonObject], miscompares: Sequence[JsonObject], is_cpu: bool
) -> Finding:
    """Fail a device that brought a wrong word; what was not copied, or not pinned, is undecided."""
    wrong = sum(int(r["miscompared_words"]) for r in results) or sum(int(m["elements"]) for m in miscompares)
    together = {str(r["path"]): r for r in results if r["phase"] == "together"}
    lacking = [path for path in PATHS if path not in together]
    if wrong:
        outcome, observed = Outcome.FAIL, _describe(wrong, miscompares)
    elif lacking:
        outcome, observed = Outcome.INCONCLUSIVE, f"no result for {', '.join(lacking)}"
    elif not is_cpu and not all(r["is_pinned"] for r in results):
        outcome, observed = Outcome.INCONCLUSIVE, "the host's memory could not be pinned"
    else:
        outcome = Outcome.PASS
        rates = ", ".join(f"{path} {float(r['gbps']):.3g}" for path, r in together.items())
        observed = f"{rates} GB/s ({next(iter(together.values()))['means']}); every word right"
    return Finding(
        rule="bandwidth",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected="every word that was copied arrives, within the device, from the host and back",
        unit="GB/s",
        evidence={"stage": "bandwidth", "results": list(results), "miscompares": list(miscompares)[:4]},
        next_step="reseat the device; if words are wrong again, replace it"
        if outcome is Outcome.FAIL
        else _again(outcome),
    )


def _describe(wrong: int, miscompares: Sequence[JsonObject]) -> str:
    words = "word" if wrong == 1 else "words"
    if not miscompares:
        return f"{wrong:,} wrong {words}"
    first = miscompares[0]
    period = f", every {first['period']:,} B" if first.get("period") else ""
    place = f"{first['format']}, first at byte {first['addresses'][0]:,}"
    return f"{wrong:,} wrong {words}: {place}, bits {first['patterns'][0]}{period}"


def _again(outcome: Outcome | None) -> str:
    return "see what ended the stage, then run it again" if outcome is Outcome.INCONCLUSIVE else ""


def judge_copy_speed(
    device: str, rates: Mapping[str, float], siblings: Mapping[str, Mapping[str, float]], *, ratio_min: float
) -> Finding:
    """Fail a device that copies far slower than its siblings along any path, both taken alone."""
    ratios = {
        path: rate / median(theirs)
        for path, rate in rates.items()
        if (theirs := [other[path] for other in siblings.values() if path in other])
    }
    outcome: Outcome | None
    if not siblings:
        outcome, observed = None, "no sibling of the same model to compare with"
    elif not ratios:
        outcome, observed = Outcome.INCONCLUSIVE, "no path was measured on this device and on a sibling"
    else:
        slowest = min(ratios, key=ratios.__getitem__)
        outcome = Outcome.FAIL if ratios[slowest] < ratio_min else Outcome.PASS
        observed = f"{slowest}: {rates[slowest]:.3g} GB/s, {ratios[slowest]:.0%} of its siblings' median"
    return Finding(
        rule="copy-speed",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected=f"at least {ratio_min:.0%} of the siblings' median along each path",
        unit="GB/s",
        evidence={"stage": "bandwidth", "gbps": dict(rates), "ratios": ratios},
        next_step="look at its PCIe link and slot, and at the socket that its host memory is on"
        if outcome is Outcome.FAIL
        else _again(outcome),
    )


def judge_link(
    link: str,
    *,
    devices: Sequence[str],
    results: Sequence[JsonObject],
    miscompares: Sequence[JsonObject],
    skipped: Sequence[JsonObject],
    failures: Sequence[str],
    phases: Sequence[str],
) -> Finding:
    """Fail a link over which a wrong word came; what was not exchanged both ways is undecided."""
    wrong = sum(int(r["miscompared_words"]) for r in results) or sum(int(m["elements"]) for m in miscompares)
    # Each device receives from the other one way, and both do both ways.
    wanted = {(device, phase, is_both) for device in devices for phase in phases for is_both in (False, True)}
    done = {(str(r["receiver"]), str(r["phase"]), r["way"] == "both ways") for r in results}
    if wrong:
        first = miscompares[0] if miscompares else {}
        sender = f" from {first['sender']}" if first else ""
        outcome, observed = Outcome.FAIL, f"{_describe(wrong, miscompares)}, sent{sender}"
    elif wanted <= done:
        outcome = Outcome.PASS
        one_way = [float(r["gbps"]) for r in results if r["way"] != "both ways"]
        means = sorted({str(t) for r in results for t in r["transports"]}) or [str(results[0]["backend"])]
        observed = f"{min(one_way):.3g} GB/s one way ({', '.join(means)}); every word right"
    elif skipped:
        outcome, observed = Outcome.INCONCLUSIVE, f"not exchanged: {skipped[0]['reason']}"
    elif failures:
        outcome, observed = Outcome.INCONCLUSIVE, f"the exchange broke off: {failures[0]:.200}"
    else:
        outcome, observed = Outcome.INCONCLUSIVE, "not exchanged to the end both ways"
    return Finding(
        rule="link",
        subject=f"link:{link}",
        outcome=outcome,
        observed=observed,
        expected="every word arrives, one way, the other way and both ways at once",
        unit="GB/s",
        evidence={
            "stage": "links",
            "devices": list(devices),
            "results": list(results),
            "miscompares": list(miscompares)[:4],
        },
        next_step=_link_step(outcome),
    )


def _link_step(outcome: Outcome) -> str:
    if outcome is Outcome.FAIL:
        return "if other links of one of the two fail as well, suspect that device; else isolate the link"
    return "" if outcome is Outcome.PASS else "see rule worker on both ends, then run it again"


def judge_common_end(links: Sequence[Finding], *, what: str = "fails") -> list[Finding]:
    """Accuse the one device that all failing links have in common, when all of its links fail."""
    ends: dict[str, list[Finding]] = {}
    for link in links:
        for device in link.evidence["devices"]:
            ends.setdefault(str(device), []).append(link)
    failing = [link for link in links if link.outcome is Outcome.FAIL]
    counts = Counter(str(device) for link in failing for device in link.evidence["devices"])
    common = [d for d, n in counts.items() if n == len(failing) and n == len(ends[d]) and n > 1]
    if len(common) != 1:
        return []
    return [
        Finding(
            rule="link-end",
            subject=subject_of(common[0]),
            outcome=Outcome.FAIL,
            observed=f"every one of its {len(failing)} links {what}, and no other link",
            expected="no device is the common end of failing links",
            evidence={"stage": "links", "links": [link.subject for link in failing]},
            next_step="take this device out of service; its links are the symptom, not the cause",
        )
    ]
