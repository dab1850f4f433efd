"""Hosts behind a bad switch are tested over other rails; pairs that a design left out are made up for."""

from __future__ import annotations

import itertools

import pytest

from burnin.fleet.network.attribution import ACCUSED, SUSPECTED_BEHIND, NetworkOutcome
from burnin.fleet.network.isolation import isolate
from burnin.fleet.simulation.cluster import simulated_fleet
from burnin.fleet.simulation.fabric import SimulatedNetwork
from burnin.fleet.simulation.fault import (
    BAD_LEAF,
    BAD_UPLINK,
    FLAPPING,
    PAIR_DEAD,
    PAIR_SLOW,
    SLOW_GPU,
    SLOW_NIC,
    Fault,
)
from burnin.fleet.topology import topology_of

HOSTS, SEED = 160, 3
LEAF = Fault(kind=BAD_LEAF, switch="leaf2-6", rail=6, speed=0.5)
FABRIC = "+".join(f"leaf2-{rail}" for rail in range(8))  # of sim0033 to sim0064


def _isolate(*faults: Fault, profile: str = "intake", hosts: int = HOSTS, seed: int = SEED) -> NetworkOutcome:
    fleet = simulated_fleet(hosts)
    names = tuple(host.name for host in fleet.hosts)
    network = SimulatedNetwork(topology=topology_of(fleet, names, seed=seed), faults=faults, seed=seed)
    return isolate(fleet, network, profile=profile, seed=seed, able_hosts=names)


def _accused(outcome: NetworkOutcome) -> set[str]:
    return {a.subject for a in outcome.attributions if a.status == ACCUSED}


@pytest.mark.parametrize(
    ("fault", "subjects"),
    [
        (Fault(kind=SLOW_GPU, hosts=("sim0040",), rail=6, speed=0.8), {"host:sim0040"}),
        (Fault(kind=SLOW_NIC, hosts=("sim0040",), rail=2, speed=0.8), {"nic:sim0040/2"}),
        (Fault(kind=FLAPPING, hosts=("sim0040",), rail=1, speed=0.2, every_s=8.0), {"host:sim0040"}),
        (Fault(kind=PAIR_SLOW, hosts=("sim0040", "sim0050"), speed=0.8), {"link:sim0040-sim0050"}),
        (Fault(kind=PAIR_DEAD, hosts=("sim0040", "sim0050")), {"link:sim0040-sim0050"}),
        (Fault(kind=BAD_UPLINK, switch=FABRIC, speed=0.8), {f"boundary:{FABRIC}"}),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_what_is_bad_behind_a_slower_switch_is_named(fault: Fault, subjects: set[str]) -> None:
    outcome = _isolate(LEAF, fault)

    assert _accused(outcome) == {"switch:leaf2-6"} | subjects


def test_a_second_bad_switch_of_the_same_hosts_is_named_as_well() -> None:
    outcome = _isolate(LEAF, Fault(kind=BAD_LEAF, switch="leaf2-1", rail=1, speed=0.7))

    assert _accused(outcome) == {"switch:leaf2-6", "switch:leaf2-1"}


def test_an_adapter_on_the_very_rail_of_a_slower_switch_is_listed_as_not_tested() -> None:
    outcome = _isolate(LEAF, Fault(kind=SLOW_NIC, hosts=("sim0040",), rail=6, speed=0.8))

    assert _accused(outcome) == {"switch:leaf2-6"}
    assert outcome.untested_parts == tuple(f"nic:sim{n:04d}/6" for n in range(33, 65))
    assert not [a for a in outcome.attributions if a.status == SUSPECTED_BEHIND]


def test_in_a_soak_every_two_hosts_meet_whatever_stands_between_them() -> None:
    other_leaf = Fault(kind=BAD_LEAF, switch="leaf4-1", rail=1, speed=0.7)
    pairs = (
        ("sim0034", "sim0100"),  # from behind one bad switch to behind the other
        ("sim0010", "sim0035"),
        ("sim0036", "sim0062"),
        ("sim0070", "sim0150"),
    )
    outcome = _isolate(
        LEAF,
        other_leaf,
        *(Fault(kind=PAIR_SLOW, hosts=pair, speed=0.8) for pair in pairs),
        Fault(kind=PAIR_DEAD, hosts=("sim0037", "sim0101")),
        profile="soak",
    )

    links = {f"link:{a}-{b}" for a, b in (*pairs, ("sim0037", "sim0101"))}
    assert _accused(outcome) == {"switch:leaf2-6", "switch:leaf4-1"} | links
    assert outcome.untested_pairs_count == 0


def test_in_a_soak_a_dead_pair_across_a_bad_way_out_is_named() -> None:
    outcome = _isolate(
        Fault(kind=BAD_UPLINK, switch=FABRIC, speed=0.6),
        Fault(kind=PAIR_DEAD, hosts=("sim0040", "sim0100")),
        profile="soak",
    )

    assert _accused(outcome) == {f"boundary:{FABRIC}", "link:sim0040-sim0100"}
    behind = {f"sim{n:04d}" for n in range(33, 65)}
    hidden = {frozenset(pair) for pair in outcome.untested_pairs}
    assert all(len(pair & behind) == 1 for pair in hidden)  # slower than the way out, and not: nobody can say


def test_the_pairs_of_a_host_that_is_accused_are_listed() -> None:
    outcome = _isolate(Fault(kind=SLOW_GPU, hosts=("sim0040",), speed=0.6), profile="soak")

    listed = {frozenset(pair) for pair in outcome.untested_pairs}
    assert outcome.untested_pairs_count == len(listed) > 0
    assert all("sim0040" in pair for pair in listed)
    assert len(set(itertools.chain(*listed))) == len(listed) + 1
