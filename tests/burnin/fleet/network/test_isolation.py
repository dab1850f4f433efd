"""The isolation, end to end on simulated fleets: the short form of the study of attribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from burnin.fleet.network.attribution import (
    ACCUSED,
    BOUNDARY,
    INTERMITTENT,
    NIC,
    NODE,
    NVLINK_DOMAIN,
    PAIR,
    RAIL,
    SUSPECTED_BEHIND,
    SWITCH,
    Attribution,
    NetworkOutcome,
)
from burnin.fleet.network.isolation import isolate
from burnin.fleet.network.search import Limits
from burnin.fleet.network.trial import Trial, TrialResult
from burnin.fleet.simulation.cluster import simulated_fleet
from burnin.fleet.simulation.fabric import SimulatedNetwork
from burnin.fleet.simulation.fault import (
    BAD_LEAF,
    BAD_RAIL,
    BAD_UPLINK,
    CORRUPTS,
    CRASHES,
    DEAD,
    FLAPPING,
    HANGS,
    PAIR_DEAD,
    PAIR_SLOW,
    SLOW_GPU,
    SLOW_NIC,
    SOCKETS_ONLY,
    Fault,
    draw_faults,
)
from burnin.fleet.topology import topology_of
from tests.studies.attribution import FLAPPING_RARELY, MIXED, Score, score_ours

HOSTS = 192


@dataclass(slots=True)
class Watched:
    """A network that keeps what it was asked."""

    network: SimulatedNetwork
    asked: list[Trial] = field(default_factory=list)
    rounds_left: int = 10_000

    def __call__(self, trials: Sequence[Trial]) -> list[TrialResult]:
        if not self.rounds_left:
            raise KeyboardInterrupt
        self.rounds_left -= 1
        self.asked += trials
        return self.network(trials)


def _watched(
    *faults: Fault, hosts: int = HOSTS, seed: int = 3, with_nvlink: bool = False
) -> tuple[Watched, tuple[str, ...]]:
    fleet = simulated_fleet(hosts, with_nvlink_domains=with_nvlink)
    names = tuple(host.name for host in fleet.hosts)
    network = SimulatedNetwork(
        topology=topology_of(fleet, names, seed=seed),
        faults=faults,
        seed=seed,
        ranks_per_host=4 if with_nvlink else 8,
    )
    return Watched(network), names


def _isolate(
    *faults: Fault,
    hosts: int = HOSTS,
    seed: int = 3,
    profile: str = "intake",
    with_nvlink: bool = False,
    limits: Limits | None = None,
) -> NetworkOutcome:
    watched, names = _watched(*faults, hosts=hosts, seed=seed, with_nvlink=with_nvlink)
    fleet = simulated_fleet(hosts, with_nvlink_domains=with_nvlink)
    return isolate(fleet, watched, profile=profile, seed=seed, able_hosts=names, limits=limits)


def _accused(outcome: NetworkOutcome) -> dict[str, Attribution]:
    return {a.subject: a for a in outcome.attributions if a.status == ACCUSED}


def test_a_healthy_fleet_takes_two_rounds_in_the_quick_profile_and_accuses_nobody() -> None:
    outcome = _isolate(profile="quick", seed=5)

    assert outcome.attributions == ()
    assert outcome.untested_hosts == ()
    assert outcome.rounds == 2


@pytest.mark.parametrize(
    ("fault", "kind", "subject", "what"),
    [
        (Fault(kind=DEAD, hosts=("sim0040",)), NODE, "host:sim0040", "failed"),
        (Fault(kind=HANGS, hosts=("sim0040",)), NODE, "host:sim0040", "hung"),
        (Fault(kind=CRASHES, hosts=("sim0040",)), NODE, "host:sim0040", "failed"),
        (Fault(kind=CORRUPTS, hosts=("sim0040",)), NODE, "host:sim0040", "wrong results"),
        (Fault(kind=SOCKETS_ONLY, hosts=("sim0040",)), NODE, "host:sim0040", "fell back to sockets"),
        (Fault(kind=SLOW_GPU, hosts=("sim0040",), speed=0.8), NODE, "host:sim0040", "slow"),
        (Fault(kind=SLOW_NIC, hosts=("sim0040",), rail=5, speed=0.8), NIC, "nic:sim0040/5", "slow"),
        (Fault(kind=BAD_LEAF, switch="leaf2-6", rail=6, speed=0.7), SWITCH, "switch:leaf2-6", "slow"),
        (Fault(kind=BAD_RAIL, rail=2, speed=0.7), RAIL, "rail:2", "slow"),
        (
            Fault(kind=PAIR_SLOW, hosts=("sim0040", "sim0050"), speed=0.6),
            PAIR,
            "link:sim0040-sim0050",
            "slow",
        ),
        (Fault(kind=PAIR_DEAD, hosts=("sim0040", "sim0050")), PAIR, "link:sim0040-sim0050", "hung"),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_a_single_fault_is_named_and_nothing_else(fault: Fault, kind: str, subject: str, what: str) -> None:
    found = _accused(_isolate(fault))

    assert {name: (a.kind, a.fault) for name, a in found.items()} == {subject: (kind, what)}
    assert found[subject].evidence
    assert found[subject].next_step


def test_a_slow_pair_is_found_beside_a_dead_one() -> None:
    found = _accused(
        _isolate(
            Fault(kind=PAIR_DEAD, hosts=("sim0040", "sim0050")),
            Fault(kind=PAIR_SLOW, hosts=("sim0041", "sim0052"), speed=0.6),
        )
    )

    assert set(found) == {"link:sim0040-sim0050", "link:sim0041-sim0052"}


def test_a_bad_way_out_of_a_fabric_is_no_fault_of_its_hosts() -> None:
    fabric = "+".join(f"leaf3-{rail}" for rail in range(8))

    found = _accused(_isolate(Fault(kind=BAD_UPLINK, switch=fabric, speed=0.7)))

    assert {name: a.kind for name, a in found.items()} == {f"boundary:{fabric}": BOUNDARY}


def test_hosts_behind_a_bad_switch_are_listed_and_not_accused() -> None:
    outcome = _isolate(Fault(kind=BAD_LEAF, switch="leaf2", speed=0.7), hosts=180, with_nvlink=True)

    behind = sorted(a.subject for a in outcome.attributions if a.status == SUSPECTED_BEHIND)

    assert list(_accused(outcome)) == ["switch:leaf2"]
    assert behind == [f"host:sim{n:04d}" for n in range(19, 37)]  # all their rails go through it


def test_a_link_that_flaps_is_reported_with_its_rate_and_not_cleared() -> None:
    found = _accused(_isolate(Fault(kind=FLAPPING, hosts=("sim0040",), rail=1, speed=0.2, every_s=12.0)))

    assert [(name, a.fault) for name, a in found.items()] == [("host:sim0040", INTERMITTENT)]
    assert 2 <= found["host:sim0040"].trials_bad <= found["host:sim0040"].trials


@pytest.mark.parametrize("seed", [10, 13])
def test_links_that_flap_are_not_taken_for_bad_pairs(seed: int) -> None:
    fleet = simulated_fleet(320)
    topology = topology_of(fleet, (host.name for host in fleet.hosts), seed=seed)
    faults = draw_faults(topology, share=0.015, kinds=(FLAPPING,), seed=seed)

    found = _accused(_isolate(*faults, hosts=320, seed=seed))

    assert set(found) <= {subject for fault in faults for subject in fault.subjects}
    assert len(found) >= 2


def test_the_interval_holds_the_true_slowdown() -> None:
    found = _accused(_isolate(Fault(kind=SLOW_GPU, hosts=("sim0040",), speed=0.5)))["host:sim0040"]

    assert found.slowdown_low is not None
    assert found.slowdown_high is not None
    assert found.slowdown_low < 2.0 < found.slowdown_high
    assert found.slowdown_high - found.slowdown_low < 0.2


def test_a_side_of_nvlink_and_a_side_of_the_fabric_are_told_apart() -> None:
    found = _accused(
        _isolate(Fault(kind=SLOW_NIC, hosts=("sim0040",), rail=2, speed=0.7), hosts=180, with_nvlink=True)
    )

    assert {name: a.kind for name, a in found.items()} == {"nic:sim0040/2": NIC}
    assert NVLINK_DOMAIN not in {a.kind for a in found.values()}


def test_nobody_is_accused_before_a_second_partner_that_is_well() -> None:
    watched, names = _watched(Fault(kind=SLOW_GPU, hosts=("sim0040",), speed=0.8))
    outcome = isolate(simulated_fleet(HOSTS), watched, profile="intake", seed=3, able_hosts=names)
    by_id = {trial.id: trial for trial in outcome.trials}

    accused = _accused(outcome)["host:sim0040"]
    partners = {frozenset(by_id[t].hosts) - {"sim0040"} for t in accused.evidence if len(by_id[t].hosts) > 1}

    assert len(partners) >= 2


def test_those_that_were_in_a_bad_trial_and_are_well_are_listed_as_cleared() -> None:
    outcome = _isolate(Fault(kind=HANGS, hosts=("sim0040",)))

    cleared = {a.subject for a in outcome.cleared}

    assert {f"host:sim{n:04d}" for n in range(33, 65) if n != 40} <= cleared
    assert "host:sim0040" not in cleared


def test_a_hang_is_brought_down_to_a_host_in_a_few_rounds() -> None:
    outcome = _isolate(Fault(kind=HANGS, hosts=("sim0040",)), profile="quick")

    assert list(_accused(outcome)) == ["host:sim0040"]
    assert outcome.rounds <= 8  # log2 of 192 is 7.6


def test_hosts_that_cannot_take_part_are_untested() -> None:
    watched, names = _watched()
    outcome = isolate(simulated_fleet(HOSTS), watched, profile="quick", seed=3, able_hosts=names[:-2])

    assert outcome.untested_hosts == ("sim0191", "sim0192")


def test_no_host_is_in_two_trials_of_one_round_and_no_round_is_without_bound() -> None:
    outcome = _isolate(
        *(Fault(kind=FLAPPING, hosts=(f"sim{n:04d}",), speed=0.3, every_s=8.0) for n in range(1, 60, 4)),
        limits=Limits(rounds_max=12),
    )

    assert outcome.is_cut_short
    assert outcome.rounds <= 12 + 16  # contrasts of what is accused come on top


def test_a_run_that_was_cut_off_goes_on_and_ends_as_if_it_had_not_been() -> None:
    faults = (
        Fault(kind=SLOW_NIC, hosts=("sim0040",), rail=5, speed=0.8),
        Fault(kind=PAIR_SLOW, hosts=("sim0100", "sim0110"), speed=0.6),
    )
    fleet = simulated_fleet(HOSTS)
    whole = _isolate(*faults)
    first, names = _watched(*faults)
    first.rounds_left = 5
    results: list[TrialResult] = []

    def kept(trials: Sequence[Trial]) -> list[TrialResult]:
        results.extend(first(trials))
        return results[-len(trials) :]

    with pytest.raises(KeyboardInterrupt):
        isolate(fleet, kept, profile="intake", seed=3, able_hosts=names)
    second, _ = _watched(*faults)
    recorded = {result.trial.id: result for result in results}
    again = isolate(fleet, second, profile="intake", seed=3, able_hosts=names, recorded=recorded)

    assert again == whole
    assert {trial.id for trial in second.asked}.isdisjoint(recorded)


def test_results_that_never_come_leave_everybody_untested() -> None:
    fleet = simulated_fleet(64)
    outcome = isolate(
        fleet, lambda trials: [], profile="quick", seed=1, able_hosts=[h.name for h in fleet.hosts]
    )

    assert len(outcome.untested_hosts) == 64
    assert outcome.attributions == ()


def test_partial_sweeps_judge_nobody() -> None:
    watched, names = _watched(Fault(kind=SLOW_GPU, hosts=("sim0040",), speed=0.5), hosts=64)

    def partial(trials: Sequence[Trial]) -> list[TrialResult]:
        return [replace(result, is_complete=False) for result in watched(trials)]

    outcome = isolate(simulated_fleet(64), partial, profile="quick", seed=3, able_hosts=names)

    assert _accused(outcome) == {}
    assert len(outcome.untested_hosts) == 64


@pytest.mark.parametrize("hosts", [2, 3, 5, 9, 17])
def test_small_fleets_end_without_accusing_the_healthy(hosts: int) -> None:
    outcome = _isolate(hosts=hosts)

    assert _accused(outcome) == {}


def test_in_very_sick_fleets_the_faults_are_named_and_the_healthy_are_not() -> None:
    total = Score()
    for seed in range(3):
        total.add(score_ours(seed, profile="intake", kinds=MIXED, hosts=200))

    reachable = total.seeded - total.hidden - total.unmet
    missed = reachable - total.named
    del missed[FLAPPING_RARELY]  # they need more time than this

    assert sum(missed.values()) <= 1
    assert total.false <= 1


@pytest.mark.parametrize("hosts", [3, 5, 9])
def test_in_a_small_fleet_the_slow_host_is_named(hosts: int) -> None:
    outcome = _isolate(Fault(kind=SLOW_GPU, hosts=("sim0002",), speed=0.7), hosts=hosts)

    assert list(_accused(outcome)) == ["host:sim0002"]


def test_of_two_hosts_alone_nobody_can_say_how_fast_they_should_be() -> None:
    outcome = _isolate(hosts=2)

    assert (outcome.untested_hosts, outcome.uncompared_hosts) == ((), ("sim0001", "sim0002"))
    assert outcome.rounds <= 3  # the same pair again would be its own reference
