"""The rule on NVML's events beside XIDs: what the driver pushed about one GPU's memory and state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from burnin.evidence import subject_of
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.nvml import EVENTS
from probes.outcome import Outcome

_RESET = "reset the GPU, then run it again; replace it if it returns"
_RMA = "take this GPU out of service and open an RMA case with the vendor"
# What fails a GPU, with the next step; our own reading of the names, after the XIDs of the same meaning
# (48, 63, 64, 92, 94, 95, 79, 154). A single corrected bit is counted by the rule ecc, and only said here.
STEPS = {
    0x2: _RESET,
    0x200: "watch the GPU; a rising rate comes before failure",
    0x400: "reset the GPU so that the row is replaced, then run it again",
    0x800: _RMA,
    0x1000: _RESET,
    0x2000: _RESET,
    0x4000: "power-cycle the node; if it is lost again, reseat or replace the GPU",
    0x8000: "do what the rule recovery-action says, or reset the GPU; then run it again",
}


def judge_gpu_events(
    gpu: str, told: Sequence[JsonObject], *, bits: int | None, unavailable: JsonObject | None
) -> Finding:
    """Fail a GPU of which the driver told an event of trouble; ``bits`` are those it was registered for."""
    counts = Counter(int(event["bit"]) for event in told)
    bad = [bit for bit in counts if bit in STEPS]
    watched = [bit for bit in EVENTS if (bits or 0) & bit]
    shown = ", ".join(
        f"{EVENTS.get(bit, f'event {bit:#x}')}" + (f" ({n} times)" if n > 1 else "")
        for bit, n in counts.items()
    )
    outcome: Outcome | None
    if bad:
        outcome, observed = Outcome.FAIL, shown
    elif unavailable is not None and not unavailable["is_lacking"]:
        outcome, observed = Outcome.INCONCLUSIVE, f"not watched to the end: {unavailable['error']}"
    elif not watched:
        outcome, observed = None, "this driver or board has no events beside XIDs"
    else:
        outcome, observed = Outcome.PASS, shown or f"none of {len(watched)} kinds came"
    step = STEPS[max(bad)] if bad else "run it again" if outcome is Outcome.INCONCLUSIVE else ""
    return Finding(
        rule="gpu-event",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected="no event of trouble during the run",
        evidence={
            "stage": "aftermath",
            "events": {hex(bit): n for bit, n in counts.items()},
            "watched": [EVENTS[bit] for bit in watched],
        },
        next_step=step,
    )
