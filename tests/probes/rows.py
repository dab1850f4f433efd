"""Request rows for tests of the rules over them."""

from __future__ import annotations

from dataclasses import replace

from probes.request import Request

T0_NS = 1_800_000_000_000_000_000


def answered(
    index: int = 0, *, ttft_ms: float = 100.0, gaps_ms: tuple[float, ...] = (20.0, 20.0), **changes: object
) -> Request:
    """Return a request that was sent on time and answered whole."""
    sent_ns = T0_NS + index * 1_000_000_000
    first_ns = sent_ns + round(ttft_ms * 1e6)
    last_ns = first_ns + round(sum(gaps_ms) * 1e6)
    row = Request(
        index=index,
        worker=0,
        endpoint="http://127.0.0.1:1",
        t_intended_ns=sent_ns,
        t_sent_ns=sent_ns,
        t_first_ns=first_ns,
        t_last_ns=last_ns,
        t_end_ns=last_ns + 1_000_000,
        connect_ms=None,
        status=200,
        error=None,
        finish_reason="length",
        is_done=True,
        events=len(gaps_ms) + 1,
        tokens_out=len(gaps_ms) + 1,
        gaps_us=tuple(round(gap * 1000) for gap in gaps_ms),
        reads=len(gaps_ms) + 2,
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def failed(index: int = 0, kind: str = "http_5xx", **changes: object) -> Request:
    """Return a request that failed."""
    return answered(
        index,
        gaps_ms=(),
        **{"error": kind, "error_detail": f"{kind} came", "t_first_ns": None, "t_last_ns": None, "events": 0}
        | changes,
    )
