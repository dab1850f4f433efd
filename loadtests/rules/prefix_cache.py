"""Whether prompts that no prefix cache was to know were answered out of one all the same.

A run with a seed that the server has seen before sends what it has seen before. Its first tokens then come
early, and nothing else shows it.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.spec.workload import Workload
from loadtests.traffic.prompt_scale import EVENT as PROMPT_SCALE
from probes.finding import Finding
from probes.outcome import Outcome
from probes.request import Request
from probes.request_columns import keep, values_of
from reports.run import Run

CACHED_SHARE_MAX = 0.05  # of all tokens sent: no more than the sizes of prompts are off by
_BLOCK_TOKENS = 16  # vLLM's: caches hit by whole blocks, and one may begin within what all prompts share


def judge_prefix_cache(run: Run, workload: Workload, requests: Sequence[Request]) -> list[Finding]:
    """Judge it where the workload wants no hits, and the endpoint says how many there were."""
    scales = [event.data for event in run.events_of(PROMPT_SCALE)]
    counted = keep(
        requests,
        "tokens_in",
        "tokens_cached",
        where=lambda sent, cached: sent is not None and cached is not None,
    )
    if not _wants_no_hits(workload) or not counted or not scales or any(data["reason"] for data in scales):
        return []
    shared_tokens = max(0, round(scales[0]["tokens_extra"])) + _BLOCK_TOKENS
    sent = sum(values_of(counted, "tokens_in"))
    cached = sum(max(0, tokens - shared_tokens) for tokens in values_of(counted, "tokens_cached"))
    return [_judge(cached, sent, shared_tokens=shared_tokens)]


def _wants_no_hits(workload: Workload) -> bool:
    """Whether no prompt is to have a beginning that another had: sessions, traces and tasks are to."""
    if workload.session is not None or workload.tasks is not None or workload.arrivals.trace is not None:
        return False
    return all(
        kind.defeats_prefix_cache and kind.prefix is None and kind.file is None for kind in workload.prompts
    )


def _judge(cached: int, sent: int, *, shared_tokens: int) -> Finding:
    share = cached / max(1, sent)
    is_fresh = share <= CACHED_SHARE_MAX
    return Finding(
        rule="prefix-cache",
        subject="client:load",
        outcome=Outcome.PASS if is_fresh else Outcome.INCONCLUSIVE,
        observed=f"{share:.1%} of {sent} tokens sent came out of the server's prefix cache",
        expected=f"at most {CACHED_SHARE_MAX:.0%}, beside the {shared_tokens} that all prompts may share",
        unit="tokens",
        evidence={"tokens_cached": cached, "tokens_sent": sent, "tokens_shared_each": shared_tokens},
        next_step=""
        if is_fresh
        else "it has met this seed's prompts before: give another --seed, or restart it; where hits are "
        "wanted, say so with prompt.defeat_prefix_cache: false",
    )
