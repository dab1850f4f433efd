"""The panels of a load test: what was asked, what came back and how fast, per interval of time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from probes.request import Request
from probes.slo import METRICS, percentile
from reports.panel import Panel, Point, Series, thin

_INTERVALS_S = (1, 2, 5, 10, 30, 60, 300, 600, 3600)
_INTERVALS_MAX = 1200

Timed = tuple[int, float]  # (when in ns, value)


def traffic_panels(requests: Sequence[Request], t0_ns: int) -> list[Panel]:
    """Return the panels of these requests; none where there are none."""
    if not requests:
        return []
    width_s = interval_s(requests)
    per = "second" if width_s == 1 else f"{width_s} s"
    return [
        _rates(requests, t0_ns, width_s, per),
        _in_flight(requests, t0_ns),
        _percentiles(
            "ttft",
            f"Time to first token, of requests sent in each {per}",
            _ttfts(requests),
            t0_ns,
            width_s,
            (0.5, 0.95),
        ),
        _percentiles("gap", f"Gap between tokens, per {per}", _gaps(requests), t0_ns, width_s, (0.5, 0.99)),
        _lag(requests, t0_ns, width_s, per),
    ]


def interval_s(requests: Sequence[Request]) -> int:
    """Return the interval over which requests are counted: a second, wider for long runs."""
    span_s = (max(map(_last_ns, requests)) - min(r.t_intended_ns for r in requests)) / 1e9
    return next((width for width in _INTERVALS_S if span_s / width <= _INTERVALS_MAX), _INTERVALS_S[-1])


def _last_ns(request: Request) -> int:
    return request.t_end_ns or request.t_sent_ns or request.t_intended_ns


def _rates(requests: Sequence[Request], t0_ns: int, width_s: int, per: str) -> Panel:
    arrivals = [request.t_intended_ns for request in requests]
    good = [_last_ns(request) for request in requests if request.is_good]
    bad = [_last_ns(request) for request in requests if not request.is_good]
    span = _span(arrivals + good + bad, t0_ns, width_s)
    return Panel(
        name="requests",
        title=f"Requests, counted per {per}",
        unit="1/s",
        series=(
            _counts("arrivals", "faint", arrivals, span, t0_ns, width_s),
            _counts("good", "good", good, span, t0_ns, width_s),
            _counts("failed", "bad", bad, span, t0_ns, width_s),
        ),
        note="arrivals as scheduled, good and failed when they ended",
    )


def _span(times_ns: Iterable[int], t0_ns: int, width_s: int) -> range:
    """Return the numbers of the intervals that hold any of these times, from first to last."""
    numbers = [_interval(t_ns, t0_ns, width_s) for t_ns in times_ns]
    return range(min(numbers), max(numbers) + 1)


def _interval(t_ns: int, t0_ns: int, width_s: int) -> int:
    return (t_ns - t0_ns) // (width_s * 1_000_000_000)


def _counts(label: str, role: str, times_ns: list[int], span: range, t0_ns: int, width_s: int) -> Series:
    counts: dict[int, int] = defaultdict(int)
    for t_ns in times_ns:
        counts[_interval(t_ns, t0_ns, width_s)] += 1
    points: list[Point] = [(number * width_s, counts[number] / width_s) for number in span]
    points.append((span.stop * width_s, points[-1][1]))  # a step lasts to the end of its interval
    return Series(label=label, role=role, points=thin(points), stepped=True)


def _in_flight(requests: Sequence[Request], t0_ns: int) -> Panel:
    changes: dict[int, int] = defaultdict(int)
    for request in requests:
        if request.t_sent_ns is not None and request.t_end_ns is not None:
            changes[request.t_sent_ns] += 1
            changes[request.t_end_ns] -= 1
    return Panel(
        name="in_flight",
        title="Requests in flight",
        unit="",
        series=(
            Series(
                label="in flight", role="main", points=thin(list(_running_sum(changes, t0_ns))), stepped=True
            ),
        ),
    )


def _running_sum(changes: dict[int, int], t0_ns: int) -> Iterator[Point]:
    level = 0
    for t_ns in sorted(changes):
        level += changes[t_ns]
        yield ((t_ns - t0_ns) / 1e9, float(level))


def _ttfts(requests: Iterable[Request]) -> Iterator[Timed]:
    read = METRICS["ttft_ms"].read
    for request in requests:
        if request.t_sent_ns is not None:
            yield from ((request.t_sent_ns, value) for value in read(request))


def _gaps(requests: Iterable[Request]) -> Iterator[Timed]:
    """Yield each gap at the time when it ended."""
    for request in requests:
        t_ns = request.t_first_ns or 0
        for gap_us in request.gaps_us if request.t_first_ns is not None else ():
            t_ns += gap_us * 1000
            yield t_ns, gap_us / 1000


def _lag(requests: Sequence[Request], t0_ns: int, width_s: int, per: str) -> Panel:
    lags = [(_last_ns(request), request.lag_ms_max) for request in requests]
    points = _grouped(lags, t0_ns, width_s, max)
    return Panel(
        name="client_lag",
        title=f"Longest wait of received data for this client, per {per}",
        unit="ms",
        series=(Series(label="client lag", role="main", points=thin(points)),),
        note="how far latencies of this run can be trusted",
    )


def _percentiles(
    name: str, title: str, values: Iterable[Timed], t0_ns: int, width_s: int, shares: tuple[float, float]
) -> Panel:
    known = list(values)
    series = tuple(
        Series(
            label=f"p{share * 100:g}",
            role=role,
            points=thin(
                _grouped(known, t0_ns, width_s, lambda group, share=share: percentile(group, share))  # type: ignore[misc]
            ),
        )
        for share, role in zip(shares, ("second", "main"), strict=True)
    )
    return Panel(name=name, title=title, unit="ms", series=series)


def _grouped(
    values: Iterable[Timed], t0_ns: int, width_s: int, reduce: Callable[[list[float]], float]
) -> list[Point]:
    """Return one point in the middle of each interval; an interval without values is a gap."""
    groups: dict[int, list[float]] = defaultdict(list)
    for t_ns, value in values:
        groups[_interval(t_ns, t0_ns, width_s)].append(value)
    if not groups:
        return []
    return [
        ((number + 0.5) * width_s, reduce(groups[number]) if number in groups else None)
        for number in range(min(groups), max(groups) + 1)
    ]
