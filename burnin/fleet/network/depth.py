"""How far the network stage goes in each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How far the network stage goes without any suspicion."""

    passes: int  # of the screening
    has_all_across: bool  # every host meets other domains, or one of each domain only
    has_rails: bool  # rails of the whole fleet are compared
    has_cover: bool  # every two hosts meet in some group
    retest_rounds: int  # in pairs, for what did not recur
    confirmations: int  # of each suspect, at least, before it is let go
    rounds_max: int
    length_s: float  # of each size of each collective: what comes and goes needs time to show


DEPTHS = {
    "gate": Depth(
        passes=1,
        has_all_across=False,
        has_rails=False,
        has_cover=False,
        retest_rounds=2,
        confirmations=3,
        rounds_max=80,
        length_s=0.25,
    ),
    "quick": Depth(
        passes=1,
        has_all_across=False,
        has_rails=False,
        has_cover=False,
        retest_rounds=3,
        confirmations=5,
        rounds_max=120,
        length_s=0.5,
    ),
    "intake": Depth(
        passes=2,
        has_all_across=True,
        has_rails=True,
        has_cover=False,
        retest_rounds=5,
        confirmations=8,
        rounds_max=400,
        length_s=2.5,
    ),
    "soak": Depth(
        passes=12,
        has_all_across=True,
        has_rails=True,
        has_cover=True,
        retest_rounds=8,
        confirmations=12,
        rounds_max=4000,
        length_s=2.5,
    ),
}
