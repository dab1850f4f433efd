"""The study of attribution counts strictly, and goes on where it was ended."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from burnin.fleet.network.trial import Trial
from burnin.fleet.simulation.cluster import simulated_fleet
from burnin.fleet.simulation.fabric import SimulatedNetwork
from burnin.fleet.simulation.fault import FLAPPING, PAIR_SLOW, SLOW_GPU, SLOW_NIC, Fault
from burnin.fleet.topology import topology_of
from tests.studies.attribution import FLAPPING_OFTEN, SICK, Score, _kept, kind_of, rows, score_of
from tests.studies.attribution_report import render
from tests.studies.rivals import Told, run_all_pairs


def _network(*faults: Fault, hosts: int = 16) -> SimulatedNetwork:
    fleet = simulated_fleet(hosts)
    topology = topology_of(fleet, (host.name for host in fleet.hosts), seed=1)
    return SimulatedNetwork(topology=topology, faults=faults, seed=1)


def test_a_fault_is_named_by_its_own_part_only_and_anything_else_is_false() -> None:
    faults = [
        Fault(kind=SLOW_NIC, hosts=("sim0001",), rail=3, speed=0.7),
        Fault(kind=SLOW_GPU, hosts=("sim0002",), speed=0.7),
    ]

    score = score_of(faults, Told(subjects={"nic:sim0001/3", "nic:sim0002/1", "host:sim0009"}), 10)

    assert dict(score.named) == {SLOW_NIC: 1, SLOW_GPU: 0}
    assert (score.false, score.healthy) == (2, 8)


def test_links_that_flap_rarely_are_a_kind_of_their_own() -> None:
    kinds = [kind_of(Fault(kind=FLAPPING, hosts=("sim0001",), every_s=every_s)) for every_s in (5.0, 15.1)]

    assert kinds == [FLAPPING_OFTEN, f"{FLAPPING}, rarer"]


def test_what_was_kept_is_read_back_without_other_code_and_without_a_line_that_was_cut_off(
    tmp_path: Path,
) -> None:
    score = Score(fleets=1, named=Counter({SLOW_GPU: 2}), rounds=[7])
    fields = {name: getattr(score, name) for name in Score.__slots__}
    line = {"code": "a", "row": "overproof soak", "fleets": SICK, "seed": 4, "score": fields}
    whole = [json.dumps(line), json.dumps(line | {"code": "b", "seed": 5})]
    (tmp_path / "kept").write_text("\n".join([*whole, json.dumps(line)[:40]]), encoding="utf-8")

    assert dict(_kept(tmp_path / "kept", "a")) == {("overproof soak", SICK, 4): score}
    assert dict(_kept(tmp_path / "none", "a")) == {}


def test_the_report_tells_hidden_from_missed() -> None:
    row = next(row for row in rows() if row.key == ("overproof soak", SICK))
    score = Score(
        fleets=1,
        seeded=Counter({SLOW_NIC: 100}),
        named=Counter({SLOW_NIC: 90}),
        hidden=Counter({SLOW_NIC: 8}),
        healthy=900,
        rounds=[1],
        minutes=[1.0],
        node_minutes=[1.0],
    )

    text = render([(row, score)], "command")

    assert "97.83% of the 92 faults" in text
    assert "8 hidden, 0 pairs that never met, 2 missed" in text


@pytest.mark.parametrize(
    ("fault", "subjects"),
    [
        (Fault(kind=SLOW_GPU, hosts=("sim0003",), speed=0.7), {"host:sim0003"}),
        (Fault(kind=PAIR_SLOW, hosts=("sim0003", "sim0005"), speed=0.7), {"link:sim0003-sim0005"}),
    ],
    ids=["slow gpu", "slow pair"],
)
def test_all_pairs_finds_what_each_pair_shows(fault: Fault, subjects: set[str]) -> None:
    told = run_all_pairs(_network(fault), floor_share=0.92)

    assert told.subjects == subjects
    assert told.rounds == 15
    assert told.minutes == pytest.approx(15 * 40 / 60)


def test_a_pair_that_is_counted_would_have_been_well_and_taken_as_long() -> None:
    network = _network(Fault(kind=SLOW_GPU, hosts=("sim0003",), speed=0.7))
    trial = Trial(id="t", round=1, design="", hosts=("sim0001", "sim0002"))

    assert not network.meets_fault(trial)
    assert network.run(trial).seconds == network.healthy_seconds(trial)
