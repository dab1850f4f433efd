"""The network stage: cheap for a healthy fleet, sharp for a sick one.

Hosts that share a domain exchange data first, all domains side by side; then groups with one host of each
domain. What is well is done after that. Only suspicion brings more rounds: pairs, confirmation with other
partners, bisection across boundaries, retests of what did not recur, and paths switched off one at a time.
What hangs on a bad switch is tested over the rails that are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from burnin.fleet.host import Fleet
from burnin.fleet.network.attribution import NetworkOutcome
from burnin.fleet.network.conclusion import conclude
from burnin.fleet.network.contrast import contrast, screen_rails
from burnin.fleet.network.depth import DEPTHS, Depth
from burnin.fleet.network.designs import cover
from burnin.fleet.network.detour import begin_detour, begin_joint_detour, detours_of
from burnin.fleet.network.inquiry import Inquiry
from burnin.fleet.network.make_up import ROUNDS_UNRESOLVED, make_up
from burnin.fleet.network.screening import resolve, run_groups, screen
from burnin.fleet.network.search import Limits, Search
from burnin.fleet.network.trial import RoundRunner, TrialResult
from burnin.fleet.topology import topology_of

CONTRAST_ROUNDS = 16


def isolate(
    fleet: Fleet,
    run_round: RoundRunner,
    *,
    profile: str,
    seed: int,
    able_hosts: Iterable[str],
    limits: Limits | None = None,
    recorded: Mapping[str, TrialResult] | None = None,
) -> NetworkOutcome:
    """Find out which part of the network is bad.

    ``able_hosts`` can take part; the others of the fleet are untested. ``recorded`` are results of a run
    that was cut off, by id of trial: with the same fleet, seed and profile they are taken instead of
    running a trial anew.
    """
    depth, limits = DEPTHS[profile], limits or Limits()
    search = Search(
        topology=topology_of(fleet, able_hosts, seed=seed),
        run_round=run_round,
        seed=seed,
        limits=limits,
        rounds_max=limits.rounds_max or depth.rounds_max,
        recorded=recorded or {},
    )
    inquiries = [Inquiry(search)]
    if len(search.topology.hosts) > 1:
        _look(inquiries[0], depth)
        _take_detours(fleet, inquiries, depth, rounds_max=limits.rounds_max or depth.rounds_max)
    return conclude(fleet, inquiries)


def _look(inquiry: Inquiry, depth: Depth) -> None:
    """Test the whole fleet over all its rails."""
    for number in range(depth.passes):
        screen(inquiry, depth, number=number)
    if depth.has_rails:
        screen_rails(inquiry.search, inquiry.contrasts)
    if depth.has_cover:
        for number, groups in enumerate(cover(inquiry.search.topology.groups)):
            run_groups(inquiry, "tournament", groups)
            if number % ROUNDS_UNRESOLVED == ROUNDS_UNRESOLVED - 1:
                resolve(inquiry, depth)
        resolve(inquiry, depth)
        make_up(inquiry, (), depth)
    _contrast(inquiry)


def _take_detours(fleet: Fleet, inquiries: list[Inquiry], depth: Depth, *, rounds_max: int) -> None:
    """Test what hangs on bad switches without their rails, until nothing is left behind one."""
    for inquiry in inquiries:  # grows: without one bad rail another may show
        for detour in detours_of(inquiry):
            if not inquiries[-1].search.is_cut_short:
                inquiries.append(begin_detour(fleet, detour, inquiries, rounds_max=rounds_max))
                for number in range(depth.passes):
                    screen(inquiries[-1], depth, number=number)
                _contrast(inquiries[-1])
    if depth.has_cover and not inquiries[-1].search.is_cut_short:
        joint = begin_joint_detour(fleet, inquiries, rounds_max=rounds_max)
        if joint is not None:
            inquiry, detoured = joint
            make_up(inquiry, inquiries, depth, of=detoured)
            _contrast(inquiry)
            inquiries.append(inquiry)


def _contrast(inquiry: Inquiry) -> None:
    rails = inquiry.contrasts.rails
    inquiry.search.allow(CONTRAST_ROUNDS)
    inquiry.contrasts = contrast(inquiry.search)
    inquiry.contrasts.rails = rails
