"""The names of the memory patterns, for rules that must not import torch."""

from __future__ import annotations

PATTERN_NAMES = (
    "address",
    "walking bit",
    "walking zero",
    "checkerboard",
    "inverse checkerboard",
    "random",
)
