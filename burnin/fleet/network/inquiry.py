"""One line of trials over the same rails, and what the steps of the isolation found in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from burnin.fleet.network.contrast import Contrasts
from burnin.fleet.network.intermittent import Retested
from burnin.fleet.network.pair_search import PairFindings
from burnin.fleet.network.part import LEAF, NIC_SIDE, SIDES, Part
from burnin.fleet.network.search import Search


@dataclass(slots=True)
class Inquiry:
    """What the steps of the isolation hand to each other."""

    search: Search
    pairs: PairFindings = field(default_factory=PairFindings)
    retested: Retested = field(default_factory=Retested)
    contrasts: Contrasts = field(default_factory=Contrasts)

    def is_accused(self, host: str) -> bool:
        """Say whether a host is accused of something that lasts, or that comes and goes."""
        accused = self.search.evidence().accused
        return host in self.retested.accused or any(Part(kind, host) in accused for kind in SIDES)

    def has_shown_well(self, host: str) -> bool:
        """Say whether a host did well in trials of this inquiry."""
        evidence = self.search.evidence()
        side = Part(NIC_SIDE, host)
        return evidence.is_good(side) and side in evidence.tried

    def testable(self) -> set[str]:
        """Return the hosts that can meet others: well, not accused, behind no switch that is."""
        evidence, fabric = self.search.evidence(), self.search.topology.fabric
        return {
            host
            for host in self.search.topology.hosts
            if evidence.is_good(Part(NIC_SIDE, host))
            and not self.is_accused(host)
            and Part(LEAF, fabric.get(host, "")) not in evidence.shared
        }

    def good_parts(self) -> dict[Part, float]:
        """Return how bad the parts are at most that have been shown to be well, and are not accused."""
        evidence = self.search.evidence()
        return {
            part: level
            for part, level in evidence.upper.items()
            if evidence.is_good(part)
            and part not in evidence.accused
            and part.name not in self.retested.accused
        }
