"""The figures that load runs are compared by: units, which way is better, and what counts as no change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PERCENTILE_METRICS = ("ttft_ms", "itl_ms", "e2e_ms")
# Percent, and the change that is none: the further out, the more like runs differ.
PERCENTS = {50: 0.05, 90: 0.10, 99: 0.20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A figure that runs are compared by."""

    name: str
    unit: str
    is_share: bool  # changes are differences; else they are ratios
    is_higher_better: bool
    margin: float  # a change within it is none: 0.05 is 5 %, or 5 points of a share


def _percentiles() -> Iterator[Kind]:
    for metric in PERCENTILE_METRICS:
        for percent, margin in PERCENTS.items():
            yield Kind(
                name=f"{metric}_p{percent}", unit="ms", is_share=False, is_higher_better=False, margin=margin
            )


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        *_percentiles(),
        Kind(name="goodput", unit="share", is_share=True, is_higher_better=True, margin=0.01),
        Kind(name="error_share", unit="share", is_share=True, is_higher_better=False, margin=0.01),
        Kind(name="tokens_per_s", unit="1/s", is_share=False, is_higher_better=True, margin=0.05),
        Kind(name="correctness", unit="share", is_share=True, is_higher_better=True, margin=0.01),
    )
}
