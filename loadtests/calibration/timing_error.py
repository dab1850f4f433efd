"""How far a client's times are from the truth: its rows beside the golden endpoint's record.

The true time to first token runs from the kernel's stamp of the request to the write of the first event; a
true gap from write to write. Where a write took long, an event may have left late in it: an error that this
explains is not held against the client, but nothing is known then either, and such events are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loadtests.calibration.golden_record import GoldenRecord, GoldenStream
from probes.metric import percentile

UNSURE_MS = 0.5  # an error that is smaller needs no explaining


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
    unsure_share: float  # of all times, those off by more than 0.5 ms for which a slow write may be the cause


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
    unsure = 0
    pairs = [(s, heard[s.request_id]) for s in golden.streams if s.request_id in heard]
    whole = [(s, h) for s, h in pairs if s.sends_ns and len(h.gaps_us) == len(s.sends_ns) - 1]
    for stream, one in whole:
        slow = dict(stream.slow)
        true_ns = stream.sends_ns[0] - stream.t_received_ns
        heard_ns = one.t_first_ns - one.t_sent_ns
        error_ms, is_unsure = _explained((heard_ns - true_ns) / 1e6, 0.0, slow.get(0, 0) / 1e6)
        ttft_error.append(error_ms)
        errors, unsure_gaps = _gap_errors(stream, one, slow)
        gap_error += errors
        unsure += is_unsure + unsure_gaps
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
        unsure_share=unsure / max(1, len(ttft_error) + len(gap_error)),
    )


def _pairs(sends: Sequence[int]) -> Iterable[tuple[int, int]]:
    return pairwise(sends)


def _gap_errors(stream: GoldenStream, heard: Heard, slow: Mapping[int, int]) -> tuple[list[float], int]:
    """Return the error of each gap, in ms, and how many slow writes may explain."""
    errors = [
        gap / 1e3 - (b - a) / 1e6 for gap, (a, b) in zip(heard.gaps_us, _pairs(stream.sends_ns), strict=True)
    ]
    unsure = 0
    for number in {at + side for at in slow for side in (-1, 0)}:
        if 0 <= number < len(errors):  # the later its first event really was, the shorter a gap
            shorter, longer = slow.get(number, 0) / 1e6, slow.get(number + 1, 0) / 1e6
            errors[number], is_unsure = _explained(errors[number], -shorter, longer)
            unsure += is_unsure
    return [abs(error) for error in errors], unsure


def _explained(error: float, least: float, most: float) -> tuple[float, bool]:
    """Return what is left of an error if slow writes explain what they can, and whether that matters."""
    left = max(0.0, error - most, least - error)
    return (left, True) if abs(error) > UNSURE_MS and left < abs(error) else (abs(error), False)


def _late_ns(stream: GoldenStream) -> Iterable[int]:
    planned, gap = stream.t_planned_ns, stream.gap_ns
    return (at - planned - number * gap for number, at in enumerate(stream.sends_ns))
