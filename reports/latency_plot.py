"""How the latencies of a run lie on a logarithmic scale: one drawing for all metrics, without any script.

Each row is a metric; the height of a bar is the share of its values in that class, of twenty to a decade, as
its square root, so that a tail of one in ten thousand is still seen. Percentiles are marked and written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from probes.digits import three_digits
from reports.request_figures import CLASSES_PER_DECADE, Latency, class_begin

_WIDTH, _LEFT, _RIGHT, _ROW, _BAR = 760, 8, 8, 66, 40
_DECADE_MIN = -1  # 0.1 ms: what is less, such as the gap of two tokens in one packet, stands at the edge
_LETTER, _NAME_LETTER, _APART = 6.2, 7.0, 8  # widths: of a label's letter, of a name's, between two
_MARKS = ("max", "p99", "p95", "p50")


def latency_plot(latencies: Sequence[Latency]) -> Markup:
    """Return the drawing; empty where nothing was answered."""
    if not latencies:
        return Markup("")
    first = min(latency.classes[0][0] for latency in latencies)
    last = max(latency.classes[-1][0] for latency in latencies) + 1
    begin = max(_DECADE_MIN, math.floor(first / CLASSES_PER_DECADE))
    end = math.ceil(last / CLASSES_PER_DECADE)
    scale = _Scale(begin, max(end, begin + 1))
    height = _ROW * len(latencies) + 30
    rows = Markup("").join(_row(latency, scale, place) for place, latency in enumerate(latencies))
    words = "; ".join(
        f"{one.metric}: " + ", ".join(f"{name} {value:.4g} {one.unit}" for name, value in one.values.items())
        for one in latencies
    )
    return Markup('<svg class="latency" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        _WIDTH, height, f"Distributions on a logarithmic scale. {words}", _axis(scale, height), rows
    )


class _Scale:
    """Where a latency in milliseconds stands."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin, self.end = begin, end

    def at(self, value: float) -> float:
        share = (math.log10(max(value, 10**self.begin)) - self.begin) / (self.end - self.begin)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(1.0, share)


def _axis(scale: _Scale, height: int) -> Markup:
    parts = []
    for decade in range(scale.begin, scale.end + 1):
        x = scale.at(10**decade)
        anchor = "start" if decade == scale.begin else "end" if decade == scale.end else "middle"
        parts.append(
            Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(f"{x:.1f}", height - 22)
        )
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                f"{x:.1f}",
                height - 6,
                anchor,
                ("≤ " if decade == _DECADE_MIN else "") + _time(10.0**decade),
            )
        )
    return Markup("").join(parts)


def _time(value_ms: float) -> str:
    return (
        f"{value_ms / 1000:g} s"
        if value_ms >= 1000
        else f"{value_ms:g} ms"
        if value_ms >= 1
        else f"{value_ms * 1000:g} µs"
    )


def _row(latency: Latency, scale: _Scale, place: int) -> Markup:
    base = place * _ROW + _ROW - 4
    most = max(count for _, count in latency.classes)
    bars = Markup("").join(
        Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"/>').format(
            f"{(x := scale.at(class_begin(number))):.1f}",
            f"{base - (tall := max(1.0, _BAR * math.sqrt(count / most))):.1f}",
            f"{max(1.5, scale.at(class_begin(number + 1)) - x - 0.6):.1f}",
            f"{tall:.1f}",
        )
        for number, count in latency.classes
    )
    name = Markup('<text class="name" x="{}" y="{}">{}</text>').format(_LEFT, base - _BAR - 8, latency.metric)
    line = Markup('<line class="base" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        _LEFT, _WIDTH - _RIGHT, base, base
    )
    return line + bars + name + Markup("").join(_marks(latency, scale, base))


def _marks(latency: Latency, scale: _Scale, base: int) -> Iterator[Markup]:
    """Yield a line and a label for each percentile; labels keep apart, and off the row's name."""
    places = [scale.at(latency.values[name]) for name in _MARKS]
    texts = [f"{name} {three_digits(latency.values[name])}" for name in _MARKS]
    widths = [_LETTER * len(text) for text in texts]
    lefts, limit = [], float(_WIDTH - _RIGHT)
    for x, width in zip(places, widths, strict=True):  # from the right: what is too near moves left
        lefts.append(min(x - width / 2, limit - width))
        limit = lefts[-1] - _APART
    begin = _LEFT + _NAME_LETTER * len(latency.metric) + _APART
    for number in reversed(range(len(lefts))):  # and to the right again, off the name
        lefts[number] = max(begin, lefts[number])
        begin = lefts[number] + widths[number] + _APART
    for name, x, left, text in zip(_MARKS, places, lefts, texts, strict=True):
        yield Markup('<line class="mark-{}" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(
            name, base - _BAR - 4, base, x=f"{x:.1f}"
        )
        yield Markup('<text class="value" x="{}" y="{}">{}</text>').format(
            f"{left:.1f}", base - _BAR - 8, text
        )
