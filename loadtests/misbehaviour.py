"""What the simulated endpoint can be told to do wrong, and which requests it hits: decided by the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from probes.errors import ConfigError

KINDS = {
    "slow": "tokens come five times slower",
    "cut": "the stream ends politely in the middle, without [DONE]",
    "close": "the connection is closed in the middle of the stream",
    "reset": "the connection is reset in the middle of the stream",
    "error": "the answer is HTTP 500",
    "hang": "some tokens, then silence with the connection open",
    "wrong": "the result of the sum in the prompt is off by one",
    "html": "the answer is an HTML page with status 200",
}
SLOW_STRIDE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """One kind of fault and the share of requests that it hits."""

    kind: str
    share: float


def parse_misbehaviour(text: str) -> Misbehaviour:
    """Read ``KIND:SHARE``, as in ``cut:0.02``; without a share every request is hit.

    Raises:
        ConfigError: the kind is unknown or the share is not between 0 and 1.
    """
    kind, _, share_text = text.partition(":")
    if kind not in KINDS:
        raise ConfigError(f"--fault {text!r}: kind {kind!r} is unknown; one of {', '.join(KINDS)}")
    try:
        share = float(share_text or "1")
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"--fault {text!r}: the share must lie between 0 and 1, got {share_text!r}")
    return Misbehaviour(kind=kind, share=share)


def choose(faults: Sequence[Misbehaviour], *, seed: int, number: int) -> str | None:
    """Return the kind that hits the request with this number; None: it is served well.

    The same seed and number give the same kind, whatever was asked before.
    """
    draw = random.Random(f"{seed}:{number}").random()
    for fault in faults:
        if draw < fault.share:
            return fault.kind
        draw -= fault.share
    return None
