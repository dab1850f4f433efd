"""The rule on XIDs: what NVML and the kernel log reported of one GPU, each event counted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from burnin.evidence import subject_of
from burnin.rules.sighting import Sighting, coalesce
from burnin.xid_table import XidSpec, xid_spec
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

REPEATS_MIN = 2  # from here on an XID that looks like a program's fault is the GPU's


def judge_xids(
    gpu: str,
    sightings: Sequence[Sighting],
    *,
    is_watched: bool,
    unavailable: JsonObject | None,
    overrides: Mapping[int, XidSpec] | None = None,
) -> Finding:
    """Judge a GPU by the worst XID that was reported of it, with the action that this one calls for.

    What was reported counts whether or not the watch lasted to the end; that none came only if it did.
    """
    counts: dict[int, int] = {}
    for event in coalesce(sightings):
        counts[event.xid] = counts.get(event.xid, 0) + 1
    judged = {xid: _judge_code(xid_spec(xid, overrides), count) for xid, count in counts.items()}
    outcome: Outcome | None
    step = ""
    if judged and max(judged.values()) > 0:
        worst = max(judged, key=lambda xid: judged[xid])
        outcome = _OUTCOMES[judged[worst]]
        observed, step = _describe(counts, worst, overrides), xid_spec(worst, overrides).next_step
    elif unavailable is not None and unavailable["is_lacking"]:
        outcome, observed = None, f"this driver delivers no events: {unavailable['error']}"
    elif unavailable is not None or not is_watched:
        reason = unavailable["error"] if unavailable else "the watch never began"
        outcome, observed = Outcome.INCONCLUSIVE, f"XIDs were not watched to the end: {reason}"
        step = "run it again"
    else:
        outcome, observed = Outcome.PASS, "none was reported"
    if judged and outcome in (None, Outcome.PASS):
        observed += f"; noted only: {_describe(counts, next(iter(counts)), overrides)}"
    return Finding(
        rule="xid",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected="no XID of the hardware during the run",
        evidence=_evidence(sightings, counts, overrides),
        next_step=step,
    )


_OUTCOMES = (Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL)


def _judge_code(spec: XidSpec, count: int) -> int:
    """Return the index of the outcome: 0 passes, 1 leaves undecided, 2 fails."""
    if spec.verdict == "note":
        return 0
    limit = {"fail": 1, "count": spec.limit, "rerun": REPEATS_MIN}[spec.verdict]
    return 2 if count >= limit else 1


def _describe(counts: Mapping[int, int], worst: int, overrides: Mapping[int, XidSpec] | None) -> str:
    """Name the code that decided, then the others."""
    order = [worst, *(xid for xid in counts if xid != worst)]
    return ", ".join(
        f"XID {xid} {xid_spec(xid, overrides).name}" + (f" ({counts[xid]} times)" if counts[xid] > 1 else "")
        for xid in order
    )


def _evidence(
    sightings: Sequence[Sighting], counts: Mapping[int, int], overrides: Mapping[int, XidSpec] | None
) -> JsonObject:
    return {
        "xids": {str(xid): count for xid, count in counts.items()},
        "table": {str(xid): xid_spec(xid, overrides).model_dump() for xid in counts},
        "sightings": [{"t_ns": s.t_ns, "xid": s.xid, "source": s.source} for s in sightings[:50]],
    }
