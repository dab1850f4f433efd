"""What a person sees while a fleet runs: how many hosts are in which state, and the worst few by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from burnin.fleet.conductor import HostLine
from probes.outcome import Outcome
from reports.live import Progress
from reports.live_metrics import Figure

HEADERS = ("host", "state", "stage", "what")
TOLD_MAX = 20  # of bad hosts, by name; all are in the result
_WORST = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1, None: 2, Outcome.PASS: 3}


class FleetTable:
    """Looks at the lines that the conductor keeps, whenever something is to be shown."""

    def __init__(self, lines: Mapping[str, HostLine], progress: Progress) -> None:
        self._lines = lines
        self._progress = progress
        self._told: set[str] = set()

    def tell(self) -> None:
        """Bring the steps up to date."""
        lines = dict(self._lines)
        words = (f"{count} {word}" for word, count in self._counts().most_common())
        is_done = all(line.outcome is not None for line in lines.values())
        self._progress.step(f"{len(lines)} hosts", "done" if is_done else "running", ", ".join(words))
        for name, line in lines.items():
            is_bad = line.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)
            if is_bad and name not in self._told and len(self._told) < TOLD_MAX:
                self._told.add(name)
                self._progress.step(
                    name, str(line.outcome and line.outcome.value), f"{line.state} {line.detail}"
                )

    def _counts(self) -> Counter[str]:
        """Count the hosts by outcome, and by state where there is none yet."""
        return Counter(
            line.state if line.outcome is None else line.outcome.value for line in dict(self._lines).values()
        )

    def figures(self) -> Iterator[Figure]:
        """Yield the same for Prometheus."""
        for state, count in self._counts().items():
            yield Figure("overproof_fleet_hosts", count, {"state": state})

    def rows(self) -> list[tuple[str, ...]]:
        """Return the hosts that are not done and well, the worst first."""
        lines = [(name, line) for name, line in dict(self._lines).items() if line.outcome is not Outcome.PASS]
        lines.sort(key=lambda entry: (_WORST[entry[1].outcome], entry[1].state == "waiting"))
        return [(name, line.state, line.stage, line.detail) for name, line in lines]
