"""What the network stage concludes about one part: accused, cleared or only suspected, and how slow it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from burnin.fleet.network.meetings import Meetings
from burnin.fleet.network.trial import Trial, TrialResult

# Kinds of parts.
NODE, GPU, NIC, RAIL = "node", "gpu", "nic", "rail"
NVLINK_DOMAIN, SWITCH, BOUNDARY, PAIR = "nvlink-domain", "switch", "boundary", "pair"

# What is concluded.
ACCUSED = "accused"  # bad against two healthy partners or more
CLEARED = "cleared"  # was in a bad trial, and did well with a healthy partner
SUSPECTED_ALONE = "suspected: no second partner"
SUSPECTED_ONCE = "suspected: not seen again"  # bad once, good in every retest; ``trials`` says how many
SUSPECTED_BEHIND = "suspected: behind an accused part"  # every trial of it ran through a part that is accused
STATUSES = (ACCUSED, CLEARED, SUSPECTED_ALONE, SUSPECTED_ONCE, SUSPECTED_BEHIND)

# What is wrong.
SLOW, INTERMITTENT, HUNG, FAILED, WRONG, SOCKETS = (
    "slow",
    "intermittent",
    "hung",
    "failed",
    "wrong results",
    "fell back to sockets",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """One part and what the trials say about it."""

    kind: str
    # ``host:<name>``, ``nic:<host>/<rail>``, ``rail:<number>``, ``switch:<name>``, ``domain:<name>``,
    # ``boundary:<name>`` (what leads out of a domain) or ``link:<a>-<b>``.
    subject: str
    status: str  # one of STATUSES
    fault: str  # one of the words above; of a part that was cleared: what it was suspected of
    # Times as long as a healthy one takes, with a 95 % interval; None: it never finished, or was not slow.
    slowdown: float | None = None
    slowdown_low: float | None = None
    slowdown_high: float | None = None
    trials: int = 0  # in which this part was put to the test with partners that are known to be good
    trials_bad: int = 0  # of those; fewer than ``trials``: intermittent, with this rate
    evidence: tuple[str, ...] = ()  # ids of trials
    detail: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOutcome:
    """All that the network stage did and concluded."""

    trials: tuple[Trial, ...] = ()
    results: tuple[TrialResult, ...] = ()
    attributions: tuple[Attribution, ...] = ()  # accused and suspected, the worst first
    cleared: tuple[Attribution, ...] = ()
    untested_hosts: tuple[str, ...] = ()  # one of them makes the fleet INCONCLUSIVE
    # Hosts that work, of which nobody can say how fast: nothing was alike, and no floor is stated.
    uncompared_hosts: tuple[str, ...] = ()
    # Adapters behind an accused switch on their rail, as ``nic:<host>/<rail>``; the hosts are well without.
    untested_parts: tuple[str, ...] = ()
    # Pairs that never exchanged data through parts that are well.
    untested_pairs: tuple[tuple[str, str], ...] = field(default=())  # at most PAIRS_LISTED_MAX of them
    untested_pairs_count: int = 0
    untested: Meetings = field(default_factory=lambda: Meetings(()))  # all of them
    # Trials that nothing could be compared with: too few alike, and no floor stated.
    unjudged: tuple[str, ...] = ()
    # Bad trials that nothing accused explains; whoever was in them has been retested.
    unexplained: tuple[str, ...] = ()
    rounds: int = 0
    node_minutes: float = 0.0
    is_cut_short: bool = False  # a limit ended it before it was done
    detail: str = ""


PAIRS_LISTED_MAX = 1000


def hosts_of(subject: str) -> list[str]:
    """Return the hosts that a subject names."""
    kind, _, name = subject.partition(":")
    if kind == "host":
        return [name]
    return [name.rpartition("/")[0]] if kind == "nic" else []


def accused(attributions: Sequence[Attribution]) -> list[Attribution]:
    """Return those that are accused."""
    return [a for a in attributions if a.status == ACCUSED]
