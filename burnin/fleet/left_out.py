"""What it means for the verdict that the hosts of a fleet did not exchange data."""

from __future__ import annotations

from burnin.fleet.host import Fleet
from probes.finding import Finding
from probes.outcome import Outcome
from reports.run import Run

LEFT_OUT = "stage.left-out"


def judge_no_network(run: Run, fleet: Fleet) -> list[Finding]:
    """Show it where nobody asked for it; else links that nothing was sent over are not known to be good."""
    told = [event.data for event in run.events_of(LEFT_OUT) if event.data.get("stage") == "network"]
    is_wanted = bool((run.header.spec.get("together") or {}).get("network", True)) and len(fleet.hosts) > 1
    reason = str(told[-1]["reason"]) if told else "the run ended before it"
    return [
        Finding(
            rule="network",
            subject=f"fleet:{fleet.name}",
            outcome=Outcome.INCONCLUSIVE if is_wanted else None,
            observed=f"left out: {reason}",
            expected="hosts exchange data, each beside at least two healthy partners",
            next_step="mend the hosts that are not able, then go on with --resume" if is_wanted else "",
        )
    ]
