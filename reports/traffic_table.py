"""The table of traffic in a live view, below its steps: the same rows in the same places all along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from probes.metric import ITL
from probes.slo import Slo
from reports.live_traffic import TTFT, Span, TrafficFigures

HEADERS = ("traffic", "last 10 s", "since the start")
_LABELS = {TTFT: "ttft ms", ITL: "gap ms"}


def traffic_rows(figures: TrafficFigures, slos: Sequence[Slo] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table, in the order of ``HEADERS``."""
    merged, now, whole = figures.merged or {}, figures.now, figures.whole
    yield ("offered", _rate(figures.offered_per_s), f"{merged.get('arrivals', 0):,}")
    told = f"{merged.get('ended', 0):,}, {merged.get('failed', 0):,} failed"
    yield ("answered", _rate(figures.answered_per_s), told)
    under_way = f"{merged.get('in_flight', 0):,}"
    yield ("under way", under_way, f"{merged['dropped']:,} dropped" if merged.get("dropped") else "")
    for name, label in _LABELS.items():
        yield (label, _percentiles(now, name), _percentiles(whole, name))
    yield ("errors", _errors(now), _errors(whole))
    for slo in slos:
        yield (slo.name, _share(now, slo), _share(whole, slo, f", wants {slo.objective * 100:.4g}%"))
    yield ("client", *_client(figures))


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} /s"


def _percentiles(span: Span, name: str) -> str:
    found = span.percentiles.get(name, {})
    return "  ".join(f"p{percent} {_figure(value)}" for percent, value in found.items())


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _errors(span: Span) -> str:
    if not span.errors:
        return "none"
    (kind, count), *others = span.errors.items()
    return f"{count:,} {kind}" + (f" +{sum(count for _, count in others):,} more" if others else "")


def _share(span: Span, slo: Slo, wanted: str = "") -> str:
    share = span.good_share.get(slo.name)
    if share is None:
        return ""
    return f"{'✓' if share >= slo.objective else '✗'} {share:.2%}{wanted}"


def _client(figures: TrafficFigures) -> tuple[str, str]:
    """Return how the client itself does, the worst of its processes: its delay is not the service's."""
    rows = list(figures.clients.values())
    if not rows:
        return "", ""
    worst = {
        key: max(float(row.get(key) or 0.0) for row in rows) for key in ("lag_ms_max", "lateness_ms_max")
    }
    cpu_pct = max(float(row.get("cpu_pct") or 0.0) for row in rows)
    lag = f"lag {worst['lag_ms_max']:.1f} ms, CPU {cpu_pct:.0f} %"
    part = "; percentiles of a part" if figures.is_sampled else ""
    return lag, f"late {worst['lateness_ms_max']:.1f} ms{part}"
