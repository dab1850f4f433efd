"""A power cap, with a stand-in for nvidia-smi that keeps state, and read back through NVML's twin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.host_agent.fault import Refused
from experiments.host_agent.faults.power_cap import PowerCap
from tests.experiments.hosts.stand_ins import UUID, StandIn, h100, stand_in
from tests.twins.nvml import Scenario, build_twin

_READ = """
import pynvml
pynvml.nvmlInit()
print(pynvml.nvmlDeviceGetEnforcedPowerLimit(pynvml.nvmlDeviceGetHandleByIndex(0)))
"""


@pytest.fixture
def smi(tmp_path: Path) -> StandIn:
    return stand_in(tmp_path, "nvidia-smi", h100())


def cap(smi: StandIn) -> PowerCap:
    return PowerCap(smi=str(smi.path))


def test_the_limit_falls_and_comes_back_to_the_one_of_before(smi: StandIn) -> None:
    smi.set(h100(**{"power.limit": "650.00", "enforced.power.limit": "650.00"}))
    state = cap(smi).capture({"gpu": UUID, "watts": 300})
    assert cap(smi).verify(state)[0] is False

    cap(smi).inject(state)

    assert cap(smi).verify(state) == (True, f"{UUID}: its limit is 300 W, and 300 W is enforced")
    assert cap(smi).undo(state) == (True, f"{UUID}: gave it back 650 W", True)
    assert smi.state[UUID]["power.limit"] == "650.00"
    assert cap(smi).undo(state)[::2] == (True, False)
    assert smi.told_to_change("-pl") == [["-i", UUID, "-pl", "300"], ["-i", UUID, "-pl", "650"]]


@pytest.mark.needs("gcc")
def test_a_reader_of_nvml_sees_it_come_and_go(tmp_path: Path) -> None:
    scenario = Scenario(tmp_path / "scenario")
    scenario.set(limit_mw=700000)
    smi = stand_in(tmp_path, "nvidia-smi", h100(scenario=str(scenario.path)))
    environment = os.environ | scenario.environment(build_twin(tmp_path))

    def enforced_mw() -> int:
        done = subprocess.run([sys.executable, "-c", _READ], env=environment, capture_output=True, check=True)
        return int(done.stdout)

    state = cap(smi).capture({"gpu": UUID, "watts": 300})
    before = enforced_mw()
    cap(smi).inject(state)
    during = enforced_mw()
    cap(smi).undo(state)

    assert (before, during, enforced_mw()) == (700000, 300000, 700000)


def test_armed_and_never_injected_changes_nothing(smi: StandIn) -> None:
    state = cap(smi).capture({"gpu": UUID, "watts": 300})

    assert cap(smi).undo(state)[::2] == (True, False)
    assert smi.told_to_change("-pl") == []


def test_a_limit_that_somebody_else_has_set_is_left_alone(smi: StandIn) -> None:
    state = cap(smi).capture({"gpu": UUID, "watts": 300})
    smi.set(h100(**{"power.limit": "500.00"}))

    with pytest.raises(Refused, match="is 500 W by now"):
        cap(smi).inject(state)
    assert cap(smi).undo(state)[::2] == (True, False)
    assert smi.told_to_change("-pl") == []


def test_a_gpu_that_fell_off_the_bus_is_not_called_restored(smi: StandIn) -> None:
    state = cap(smi).capture({"gpu": UUID, "watts": 300})
    cap(smi).inject(state)
    smi.set({})

    assert cap(smi).undo(state)[0] is False


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"watts": 300}, "UUID"),
        ({"gpu": "0", "watts": 300}, "UUID"),
        ({"gpu": UUID}, "watts"),
        ({"gpu": UUID, "watts": 199}, "watts"),
        ({"gpu": UUID, "watts": 700}, "watts"),
        ({"gpu": UUID[:-1] + "9", "watts": 300}, "does not tell"),
    ],
)
def test_a_gpu_without_uuid_or_a_limit_that_is_none_is_refused(
    smi: StandIn, arguments: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        cap(smi).capture(arguments)


def test_a_gpu_without_a_limit_and_a_host_without_nvidia_smi_are_said_in_sentences(smi: StandIn) -> None:
    smi.set(h100(**{"power.limit": "[N/A]"}))

    with pytest.raises(Refused, match=r"does not tell its power\.limit"):
        cap(smi).capture({"gpu": UUID, "watts": 300})
    assert PowerCap(smi="/nowhere/nvidia-smi").missing({}) == ["nvidia-smi is not installed"]
