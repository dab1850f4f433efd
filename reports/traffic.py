"""The panels of a load test: what was asked, what came back and how fast, per interval of time."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from probes.distribution import Counted
from probes.in_order import ascending
from probes.metric import METRICS, at_share
from probes.request import Request
from probes.request_columns import in_time, of
from reports.panel import Panel, Point, Series, thin, thin_stream

_INTERVALS_S = (1, 2, 5, 10, 30, 60, 300, 600, 3600)
_INTERVALS_MAX = 1200
_NS = 1_000_000_000
# Content that came more than this before its request was due is of a clock that jumped, and left out.
_SLACK_NS = 5 * _NS

Pair = tuple[float, float]


def traffic_panels(requests: Sequence[Request], t0_ns: int) -> list[Panel]:
    """Return the panels of these requests, none where there are none."""
    if not requests:
        return []
    requests = in_time(requests)
    width_s, shares = interval_s(requests), ((0.5, 0.95), (0.5, 0.99))
    per = "second" if width_s == 1 else f"{width_s} s"
    firsts, gaps = (
        find(requests, t0_ns, width_s, pair) for find, pair in zip((_ttfts, _gaps), shares, strict=True)
    )
    return [
        _rates(requests, t0_ns, width_s, per),
        _in_flight(requests, t0_ns),
        _percentiles(
            "ttft", f"Time to first token, of requests sent in each {per}", firsts, width_s, shares[0]
        ),
        _percentiles("gap", f"Gap between tokens, per {per}", gaps, width_s, shares[1]),
        _lag(requests, t0_ns, width_s, per),
    ]


def interval_s(requests: Sequence[Request]) -> int:
    """Return the interval over which requests are counted: a second, wider for long runs."""
    first_ns = min(due_ns for (due_ns,) in of(requests, "t_intended_ns"))
    span_s = (max(t_ns for t_ns, *_ in _ends(requests)) - first_ns) / 1e9
    return next((width for width in _INTERVALS_S if span_s / width <= _INTERVALS_MAX), _INTERVALS_S[-1])


def _ends(requests: Sequence[Request]) -> Iterator[tuple[int, str | None, float]]:
    """Yield when each request ended, why it failed, and how far the client was behind."""
    columns = of(requests, "t_end_ns", "t_sent_ns", "t_intended_ns", "error", "lag_ms_max")
    return ((end or sent or due, error, lag_ms) for end, sent, due, error, lag_ms in columns)


def _interval(t_ns: int, t0_ns: int, width_s: int) -> int:
    return (t_ns - t0_ns) // (width_s * _NS)


def _rates(requests: Sequence[Request], t0_ns: int, width_s: int, per: str) -> Panel:
    arrivals = Counter(_interval(due_ns, t0_ns, width_s) for (due_ns,) in of(requests, "t_intended_ns"))
    good: Counter[int] = Counter()
    bad: Counter[int] = Counter()
    for t_ns, error, _ in _ends(requests):
        (good if error is None else bad)[_interval(t_ns, t0_ns, width_s)] += 1
    numbers = arrivals.keys() | good.keys() | bad.keys()
    span = range(min(numbers), max(numbers) + 1)
    return Panel(
        name="requests",
        title=f"Requests, counted per {per}",
        unit="1/s",
        series=(
            _counts("arrivals", "faint", arrivals, span, width_s),
            _counts("good", "good", good, span, width_s),
            _counts("failed", "bad", bad, span, width_s),
        ),
        note="arrivals as scheduled, good and failed when they ended",
    )


def _counts(label: str, role: str, counts: Counter[int], span: range, width_s: int) -> Series:
    points: list[Point] = [(number * width_s, counts[number] / width_s) for number in span]
    points.append((span.stop * width_s, points[-1][1]))  # a step lasts to the end of its interval
    return Series(label=label, role=role, points=thin(points), stepped=True)


def _in_flight(requests: Sequence[Request], t0_ns: int) -> Panel:
    begins, ends = array("q"), array("q")
    for t_sent_ns, t_end_ns in of(requests, "t_sent_ns", "t_end_ns"):
        if t_sent_ns is not None and t_end_ns is not None:
            begins.append(t_sent_ns)
            ends.append(t_end_ns)
    begins, ends = ascending(begins), ascending(ends)
    count = sum(1 for _ in _levels(begins, ends, t0_ns))
    points = thin_stream(_levels(begins, ends, t0_ns), count)
    return Panel(
        name="in_flight",
        title="Requests in flight",
        unit="",
        series=(Series(label="in flight", role="main", points=points, stepped=True),),
    )


def _levels(begins: Sequence[int], ends: Sequence[int], t0_ns: int) -> Iterator[Point]:
    """Yield how many are under way after each moment at which one begins or ends."""
    begun = ended = 0
    while ended < len(ends):
        t_ns = min(begins[begun], ends[ended]) if begun < len(begins) else ends[ended]
        while begun < len(begins) and begins[begun] == t_ns:
            begun += 1
        while ended < len(ends) and ends[ended] == t_ns:
            ended += 1
        yield ((t_ns - t0_ns) / 1e9, float(begun - ended))
    while begun < len(begins):  # only where clocks jumped
        t_ns, begun = begins[begun], begun + 1
        yield ((t_ns - t0_ns) / 1e9, float(begun - ended))


def _ttfts(requests: Sequence[Request], t0_ns: int, width_s: int, shares: Pair) -> dict[int, Pair]:
    groups: dict[int, array[float]] = defaultdict(lambda: array("d"))
    read = METRICS["ttft_ms"].read
    for request in requests:
        if request.t_sent_ns is not None:
            for value in read(request):
                groups[_interval(request.t_sent_ns, t0_ns, width_s)].append(value)
    found = {}
    for number, values in groups.items():
        ordered = sorted(values)
        found[number] = (at_share(ordered, shares[0]), at_share(ordered, shares[1]))
    return found


def _gaps(requests: Sequence[Request], t0_ns: int, width_s: int, shares: Pair) -> dict[int, Pair]:
    """Return the percentiles of the gaps that ended in each interval.

    No request has content before it was due, so what lies before the next one's due time is complete.
    """
    under_way: dict[int, Counter[int]] = defaultdict(Counter)
    found: dict[int, Pair] = {}

    def finish(before: float) -> None:
        for number in [number for number in under_way if number < before]:
            counted = Counted(under_way.pop(number))
            low, high = (counted.at_share(share) / 1000 for share in shares)
            found.setdefault(number, (low, high))

    finished = -math.inf
    for due_ns, t_ns, gaps in of(requests, "t_intended_ns", "t_first_ns", "gaps_us"):
        number = _interval(due_ns - _SLACK_NS, t0_ns, width_s)
        if number > finished:
            finish(number)
            finished = number
        for gap_us in gaps if t_ns is not None else ():
            t_ns += gap_us * 1000
            under_way[_interval(t_ns, t0_ns, width_s)][gap_us] += 1
    finish(math.inf)
    return found


def _lag(requests: Sequence[Request], t0_ns: int, width_s: int, per: str) -> Panel:
    highest: dict[int, float] = {}
    for t_ns, _, lag_ms in _ends(requests):
        number = _interval(t_ns, t0_ns, width_s)
        highest[number] = max(highest.get(number, lag_ms), lag_ms)
    return Panel(
        name="client_lag",
        title=f"Longest wait of received data for this client, per {per}",
        unit="ms",
        series=(Series(label="client lag", role="main", points=thin(_middles(highest, width_s))),),
        note="how far latencies of this run can be trusted",
    )


def _percentiles(name: str, title: str, found: Mapping[int, Pair], width_s: int, shares: Pair) -> Panel:
    series = tuple(
        Series(
            label=f"p{share * 100:g}",
            role=role,
            points=thin(_middles({number: pair[place] for number, pair in found.items()}, width_s)),
        )
        for place, (share, role) in enumerate(zip(shares, ("second", "main"), strict=True))
    )
    return Panel(name=name, title=title, unit="ms", series=series)


def _middles(values: Mapping[int, float], width_s: int) -> list[Point]:
    """Return one point in the middle of each interval; an interval without values is a gap."""
    if not values:
        return []
    return [((number + 0.5) * width_s, values.get(number)) for number in range(min(values), max(values) + 1)]
