"""What a fault cost: requests, degraded seconds, error budget. A pure function over request rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from experiments.impact.recovery import Times, end_of
from probes.breaches import CLIENT_ERRORS
from probes.json_types import JsonObject
from probes.request import Request
from probes.slo import GOODPUT, Slo, count_bad

_DAY_S = 86_400


def find_harm(
    requests: Sequence[Request], slos: Mapping[str, Sequence[Slo]], times: Times, *, window_days: float
) -> JsonObject:
    """Count what came to harm from the injection on, to the end of the day.

    ``budget_share`` is the part of the error budget of ``window_days`` that the bad requests burned: their
    number over what the promise lets pass at this day's rate; absent where nothing promises goodput.
    """
    ended = [r for r in requests if end_of(r) >= times.t_inject_ns]
    since = [r for r in ended if r.error not in CLIENT_ERRORS and not r.is_hung_up]
    failed = Counter(r.error for r in since if r.error is not None)
    harm: JsonObject = {
        "requests": len(since),
        "by_client": len(ended) - len(since),  # they say nothing of the service
        "failed": failed.total(),
        "errors": dict(failed.most_common()),
        "degraded_s": sum(not window.is_good for window in times.windows),
    }
    promised = max((slo for slo in slos["after"] if slo.metric == GOODPUT), key=_objective, default=None)
    if promised is None or not requests:
        return harm
    bad, _ = count_bad(promised, since, slos["after"])
    dues = [r.t_intended_ns for r in requests]
    rate_per_s = len(requests) / max(1.0, (max(dues) - min(dues)) / 1e9)
    allowed = rate_per_s * window_days * _DAY_S * (1 - promised.objective)
    return harm | {
        "bad": bad,
        "rate_per_s": round(rate_per_s, 3),
        "objective": promised.objective,
        "budget_window_days": window_days,
        "budget_requests": round(allowed, 1),
        "budget_share": bad / allowed if allowed else None,
    }


def _objective(slo: Slo) -> float:
    return slo.objective
