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
    "wrong": "the answer to a checked task, or the result of a sum in the prompt, is off by one digit",
    "short": "the answer stops in the middle, with a finish_reason, [DONE] and usage as if it were whole",
    "loop": "the same words for ever, far beyond the limit that was asked for",
    "html": "the answer is an HTML page with status 200",
}
SLOW_STRIDE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """One kind of fault and the share of requests that it hits."""

    kind: str
    share: float
    above_load: float = 0.0  # only where more than this share of the slots is taken


def parse_misbehaviour(text: str) -> Misbehaviour:
    """Read ``KIND:SHARE@LOAD``, as in ``cut:0.02`` or, only above 80 % of the slots, ``wrong:0.03@0.8``.

    Without a share every request is hit.

    Raises:
        ConfigError: the kind is unknown, or share or load is not between 0 and 1.
    """
    rest, _, load_text = text.partition("@")
    kind, _, share_text = rest.partition(":")
    if kind not in KINDS:
        raise ConfigError(f"--fault {text!r}: kind {kind!r} is unknown; one of {', '.join(KINDS)}")
    share = _share(text, "share", share_text or "1")
    return Misbehaviour(kind=kind, share=share, above_load=_share(text, "load", load_text or "0"))


def _share(text: str, what: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"--fault {text!r}: the {what} must lie between 0 and 1, got {value!r}")
    return share


def choose(faults: Sequence[Misbehaviour], *, seed: int, number: int, load: float = 1.0) -> str | None:
    """Return the kind that hits the request with this number; None: it is served well.

    The same seed and number give the same kind at the same load, whatever was asked before.
    """
    draw = random.Random(f"{seed}:{number}").random()
    for fault in faults:
        if draw < fault.share:
            return fault.kind if load > fault.above_load else None
        draw -= fault.share
    return None
