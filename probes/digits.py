"""How figures are written for people."""

from __future__ import annotations


def three_digits(value: float) -> str:
    """Return three digits of a value, or all of those before the point: no power of ten of what is large."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"
