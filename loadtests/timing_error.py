"""How far a client's times are from the truth: its rows beside the golden endpoint's record.

The true time to first token runs from the kernel's stamp of the request to the write of the first event; a
true gap from write to write. Where a write took long, the truth is an interval, and only what lies outside
of it is held against the client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loadtests.golden_record import GoldenRecord, GoldenStream
from probes.metric import percentile

UNSURE_NS = 500_000  # an event whose time is surer than this can certify an error of a millisecond


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One answer as a client heard it."""

    t_sent_ns: int
    t_first_ns: int
    gaps_us: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median, p99 and extreme of some figures; None: there is none."""

    count: int
    p50: float | None
    p99: float | None
    most: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingError:
    """A client beside the truth, in milliseconds. Errors are without sign."""

    matched: int
    unmatched: int  # answers that client and endpoint do not agree on in number of events, or at all
    ttft_error: Spread
    gap_error: Spread
    ttft_true: Spread
    ttft_heard: Spread
    gap_true: Spread
    gap_heard: Spread
    jitter: Spread  # how late the endpoint sent, against its own plan
    unsure: Spread  # how long its slow writes took: so long their times are uncertain
    unsure_share: float  # of all its events, those whose time is uncertain by more than 0.5 ms


def spread(values: Iterable[float]) -> Spread:
    """Return what is shown of many figures."""
    ordered = sorted(values)
    if not ordered:
        return Spread(count=0, p50=None, p99=None, most=None)
    p50, p99 = (round(percentile(ordered, share), 4) for share in (0.5, 0.99))
    return Spread(count=len(ordered), p50=p50, p99=p99, most=round(ordered[-1], 4))


def timing_error(golden: GoldenRecord, heard: Mapping[str, Heard]) -> TimingError:
    """Compare event by event what was sent with what was heard; ``heard`` is by request id."""
    ttft_error: list[float] = []
    gap_error: list[float] = []
    pairs = [(s, heard[s.request_id]) for s in golden.streams if s.request_id in heard]
    whole = [(s, h) for s, h in pairs if s.sends_ns and len(h.gaps_us) == len(s.sends_ns) - 1]
    for stream, one in whole:
        slow = dict(stream.slow)
        true_ns = stream.sends_ns[0] - stream.t_received_ns
        heard_ns = one.t_first_ns - one.t_sent_ns
        ttft_error.append(abs(_outside(heard_ns - true_ns, 0, slow.get(0, 0))) / 1e6)
        gap_error += _gap_errors(stream, one, slow)
    sends = [stream.sends_ns for stream in golden.streams]
    events = sum(map(len, sends))
    unsure = [length for stream in golden.streams for _, length in stream.slow]
    return TimingError(
        matched=len(whole),
        unmatched=len(set(heard) | {s.request_id for s in golden.streams}) - len(whole),
        ttft_error=spread(ttft_error),
        gap_error=spread(gap_error),
        ttft_true=spread((s.sends_ns[0] - s.t_received_ns) / 1e6 for s, _ in whole),
        ttft_heard=spread((h.t_first_ns - h.t_sent_ns) / 1e6 for _, h in whole),
        gap_true=spread((b - a) / 1e6 for s, _ in whole for a, b in _pairs(s.sends_ns)),
        gap_heard=spread(gap / 1e3 for _, h in whole for gap in h.gaps_us),
        jitter=spread(late / 1e6 for stream in golden.streams for late in _late_ns(stream)),
        unsure=spread(length / 1e6 for length in unsure),
        unsure_share=sum(length > UNSURE_NS for length in unsure) / max(1, events),
    )


def _pairs(sends: Sequence[int]) -> Iterable[tuple[int, int]]:
    return pairwise(sends)


def _gap_errors(stream: GoldenStream, heard: Heard, slow: Mapping[int, int]) -> list[float]:
    """Return the error of each gap, in ms."""
    errors = [
        gap / 1e3 - (b - a) / 1e6 for gap, (a, b) in zip(heard.gaps_us, _pairs(stream.sends_ns), strict=True)
    ]
    for at, length in slow.items():  # the later the event really was, the shorter the gap after it
        if at:
            errors[at - 1] = _outside(errors[at - 1], 0, length / 1e6)
        if at < len(errors):
            errors[at] = _outside(errors[at], -length / 1e6, 0)
    return [abs(error) for error in errors]


def _outside(error: float, least: float, most: float) -> float:
    """Return how far an error lies outside what the truth leaves open."""
    return max(0.0, error - most) - max(0.0, least - error)


def _late_ns(stream: GoldenStream) -> Iterable[int]:
    planned, gap = stream.t_planned_ns, stream.gap_ns
    return (at - planned - number * gap for number, at in enumerate(stream.sends_ns))
