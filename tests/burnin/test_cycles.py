"""A whole burn-in in short cycles: what only one of them shows is found, and what fell out stays out."""

from __future__ import annotations

from pathlib import Path

import pytest

from probes.outcome import Outcome
from tests.burnin.test_burn import Burn, burn

PLAN = (
    "device: cpu\nstall_s: 2\nduration_s: 4\ncycle_s: 1.3\nonly: [memory, bandwidth]\n"
    "memory: {bytes_max: 16777216}\n"
)


@pytest.fixture(scope="module")
def burnt(tmp_path_factory: pytest.TempPathFactory) -> Burn:
    faults = ("--seed-fault", "memory:bit_flip@cpu:0#2", "--seed-fault", "bandwidth:stall@cpu:1#2")
    folder: Path = tmp_path_factory.mktemp("cycles")
    return burn(folder, PLAN, *faults)


def _observed(burnt: Burn, rule: str, device: str) -> str:
    found = [f for f in burnt.document["findings"] if (f["rule"], f["subject"]) == (rule, f"device:{device}")]
    return str(found[0]["observed"])


def test_a_fault_in_the_second_of_three_cycles_is_found_and_its_cycle_named(burnt: Burn) -> None:
    assert burnt.having(Outcome.FAIL) == {("memory", "device:cpu:0"), ("worker", "device:cpu:1")}
    assert _observed(burnt, "memory", "cpu:0").startswith("cycle 2 of 3: 1 wrong word")
    started = [e.data for e in burnt.run.events_of("stage.started") if e.data["stage"] == "memory"]
    assert [data["cycle"] for data in started] == [1, 2, 3]


def test_a_device_that_drops_out_in_one_cycle_is_judged_by_it_and_the_other_goes_on(burnt: Burn) -> None:
    assert _observed(burnt, "worker", "cpu:1").startswith("cycle 2 of 3: stalled in bandwidth")
    assert ("missing-evidence", "device:cpu:1") in burnt.having(Outcome.INCONCLUSIVE)
    assert _observed(burnt, "bandwidth", "cpu:0").startswith("in each of 3 cycles")
    assert _observed(burnt, "memory", "cpu:1").startswith("in 2 of 3 cycles")
