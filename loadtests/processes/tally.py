"""What load processes have written so far: counts and histograms that travel with their reports.

Every report holds all since the start, so that one that is lost or comes twice does no harm. The same sums
can be made from the rows afterwards, and must be equal.
"""

from __future__ import annotations

from probes.histogram import Histogram, histogram_from_json
from probes.json_types import JsonObject
from probes.metric import ITL, METRICS
from probes.request import Request

# What is counted of the rows; the same names stand in reports, events and the rule that compares them.
COUNTS = ("rows", "failed", "hung_up", "dropped", "events", "gaps", "tokens")


class Tally:
    """Sums over rows; of the metrics, those of good answers."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.histograms = {name: Histogram() for name in METRICS}

    def add(self, row: Request) -> None:
        """Count one row that has been written."""
        counts = self.counts
        counts["rows"] += 1
        counts["failed"] += row.error is not None and not row.is_hung_up
        counts["hung_up"] += row.is_hung_up
        counts["dropped"] += row.error == "dropped"
        counts["events"] += row.events
        counts["gaps"] += len(row.gaps_us)
        counts["tokens"] += row.events if row.tokens_out is None else row.tokens_out
        if row.is_good:
            for name, histogram in self.histograms.items():
                if name == ITL:
                    histogram.add_all_us(row.gaps_us)
                else:
                    histogram.add_all(METRICS[name].read(row))

    def merge(self, other: Tally) -> None:
        """Add another's sums to these."""
        for name, count in other.counts.items():
            self.counts[name] += count
        for name, histogram in other.histograms.items():
            self.histograms[name].merge(histogram)

    def to_json(self) -> JsonObject:
        """Return what JSON and msgpack can carry."""
        histograms = {name: histogram.to_json() for name, histogram in self.histograms.items()}
        return {"counts": dict(self.counts), "histograms": histograms}

    def figures(self) -> JsonObject:
        """Return the sums as the record shows them: counts, and per metric how many, p50 and p99."""
        return dict(self.counts) | {
            name: {
                "count": histogram.count,
                "p50": _rounded(histogram.quantile(0.5)),
                "p99": _rounded(histogram.quantile(0.99)),
            }
            for name, histogram in self.histograms.items()
        }


def tally_from_json(data: JsonObject) -> Tally:
    """Read a tally back; names of another version are passed over."""
    tally = Tally()
    for name in tally.counts:
        tally.counts[name] = int(data["counts"].get(name, 0))
    for name in tally.histograms:
        if name in data["histograms"]:
            tally.histograms[name] = histogram_from_json(data["histograms"][name])
    return tally


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
