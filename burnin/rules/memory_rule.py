"""The rule on memory: every word of every pattern, over nearly all that was free, while the device works."""

from __future__ import annotations

from collections.abc import Sequence

from burnin.evidence import subject_of
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

# Of a GPU's free memory. On a host, which others use too, a bounded part is tested and said to be.
COVERED_SHARE_MIN = 0.95
# Of the time, products ran beside the check. On a GPU they are queued ahead and should hardly ever pause;
# cores give each half of their time. HBM has been seen to correct thousands of errors a second under load and
# none when idle (NVSentinel 1748): where the load did not come about, nothing was shown.
LOAD_SHARE_MIN = {"cuda": 0.5, "cpu": 0.2}
_REPLACE = "reset the device and run it again; if words are wrong again, replace it"


def judge_memory(
    device: str,
    *,
    patterns: Sequence[str],
    results: Sequence[JsonObject],
    miscompares: Sequence[JsonObject],
    share: JsonObject | None,
    is_bounded: bool,
    load_share_min: float,
) -> Finding:
    """Fail a device of which a single word did not hold what was written to it."""
    wrong = sum(int(r["miscompared_words"]) for r in results) or sum(int(m["elements"]) for m in miscompares)
    done = {str(r["pattern"]) for r in results if r["passes"]}
    lacking = [name for name in patterns if name not in done]
    covered, free = (int(share[k]) if share else 0 for k in ("covered_bytes", "free_bytes"))
    part = covered / free if free else 0.0
    # A record from before 2026-11-21 says nothing of a load, and there was none.
    shares = {str(r["pattern"]): float(r.get("load_share") or 0.0) for r in results if r["passes"]}
    idle = [f"{share:.0%} in pattern {name}" for name, share in shares.items() if not share >= load_share_min]
    if wrong:
        outcome, observed = Outcome.FAIL, _describe(wrong, miscompares)
    elif lacking:
        outcome, observed = Outcome.INCONCLUSIVE, f"no result for the patterns {', '.join(lacking)}"
    elif not is_bounded and part < COVERED_SHARE_MIN:
        outcome, observed = Outcome.INCONCLUSIVE, f"only {part:.1%} of the free memory was tested"
    elif idle:
        outcome = Outcome.INCONCLUSIVE
        observed = f"the device was under load too rarely meanwhile: {', '.join(idle)}"
    else:
        outcome, observed = Outcome.PASS, _describe_sound(results, covered, part, min(shares.values()))
    return Finding(
        rule="memory",
        subject=subject_of(device),
        outcome=outcome,
        observed=observed,
        expected="every word of every pattern"
        + (
            ", over a bounded part"
            if is_bounded
            else f", over at least {COVERED_SHARE_MIN:.0%} of the free memory"
        )
        + f", under load for at least {load_share_min:.0%} of the time",
        evidence={"stage": "memory", "results": list(results), "miscompares": list(miscompares)[:4]},
        next_step=_REPLACE if outcome is Outcome.FAIL else _again(outcome),
    )


def _describe_sound(results: Sequence[JsonObject], covered: int, part: float, load_share: float) -> str:
    words, tflops = sum(int(r["words"]) for r in results), min(float(r["load_tflops"]) for r in results)
    return (
        f"{words:,} words right in {len(results)} patterns over {covered:,} B, {part:.1%} of what was free, "
        f"beside {results[0]['load']}: {load_share:.0%} of the time, {tflops:.3g} TFLOPS"
    )


def _describe(wrong: int, miscompares: Sequence[JsonObject]) -> str:
    words = "word" if wrong == 1 else "words"
    if not miscompares:
        return f"{wrong:,} wrong {words}"
    first = miscompares[0]
    period = f", every {first['period']:,} B" if first.get("period") else ""
    again = "wrong again" if first.get("repeated") else "right"
    place = f"first at byte {first['addresses'][0]:,} in pattern {first['format']}"
    return f"{wrong:,} wrong {words}, {place}, bits {first['patterns'][0]}{period}; {again} when read again"


def _again(outcome: Outcome) -> str:
    return "" if outcome is Outcome.PASS else "end what else holds memory there, then run it again"
