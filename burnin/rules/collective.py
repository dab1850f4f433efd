"""The rule on all-reduce: every element of every result, at every message size."""

from __future__ import annotations

from collections.abc import Sequence

from burnin.evidence import subject_of
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome


def judge_allreduce(
    device: str,
    *,
    results: Sequence[JsonObject],
    miscompares: Sequence[JsonObject],
    is_done: bool,
    impossible: str | None,
    failures: Sequence[str],
    plans: Sequence[JsonObject] = (),
    unavailable: Sequence[str] = (),
) -> Finding:
    """Fail a device on which a reduced element was wrong; what was not reduced to the end is undecided."""
    lacking = _lacking(plans, results)
    wrong = sum(int(r["miscompared_elements"]) for r in results) or sum(
        int(m["elements"]) for m in miscompares
    )
    if wrong:
        outcome = Outcome.FAIL
        observed = (
            f"{wrong:,} wrong elements, first at {miscompares[0]['size_bytes']:,} B"
            if miscompares
            else f"{wrong:,}"
        )
    elif impossible:
        outcome, observed = Outcome.INCONCLUSIVE, f"not run: {impossible}"
    elif failures:
        outcome, observed = Outcome.INCONCLUSIVE, f"the collective broke off: {failures[0]:.200}"
    elif not is_done or not results:
        outcome, observed = Outcome.INCONCLUSIVE, "the stage did not come to its end on this device"
    elif lacking:
        outcome, observed = Outcome.INCONCLUSIVE, f"the sweep is incomplete: {lacking[0]} was not reduced"
    else:
        outcome = Outcome.PASS
        best = max(results, key=lambda r: float(r["busbw_gbps"]))
        elements = sum(int(r["elements"]) for r in results)
        sizes = {int(r["size_bytes"]) for r in results}
        where = f"{len(sizes)} sizes on {best['ranks']} ranks ({best['backend']})"
        peak = f"{best['busbw_gbps']:.3g} GB/s bus bandwidth at {best['size_bytes']:,} B"
        without = f"; {', '.join(unavailable)} not available here" if unavailable else ""
        observed = f"{elements:,} elements right at {where}, {peak}{without}"
    return Finding(
        rule="allreduce",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected="at each size every element equals the sum by integer arithmetic",
        evidence={"stage": "allreduce", "results": list(results), "miscompares": list(miscompares)[:4]},
        next_step=_next_step(outcome),
    )


def _lacking(plans: Sequence[JsonObject], results: Sequence[JsonObject]) -> list[str]:
    """Return what was to be reduced and was not."""
    done = {(str(r.get("algorithm")), int(r["size_bytes"])) for r in results if int(r.get("rounds", 1))}
    return [
        f"{size:,} B ({plan['algorithm']})"
        for plan in plans
        for size in plan["sizes_bytes"]
        if (str(plan["algorithm"]), int(size)) not in done
    ]


def _next_step(outcome: Outcome) -> str:
    if outcome is Outcome.FAIL:
        return "if only this device has wrong elements suspect it; if all have, suspect the links"
    return "" if outcome is Outcome.PASS else "see what ended the worker (rule worker), then run it again"
