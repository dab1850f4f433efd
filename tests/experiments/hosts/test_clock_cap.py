"""A clock cap, with a stand-in for nvidia-smi whose GPU keeps to its lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.host_agent.fault import Refused
from experiments.host_agent.faults.clock_cap import ClockCap
from tests.experiments.hosts.stand_ins import UUID, StandIn, h100, stand_in

ASKED = {"gpu": UUID, "mhz": 1000, "locked_before": "none"}


@pytest.fixture
def smi(tmp_path: Path) -> StandIn:
    return stand_in(tmp_path, "nvidia-smi", h100())


def cap(smi: StandIn) -> ClockCap:
    return ClockCap(smi=str(smi.path), between_s=0)


def test_a_working_gpu_is_held_at_a_clock_that_it_can_have_and_let_go_again(smi: StandIn) -> None:
    state = cap(smi).capture(ASKED)
    assert cap(smi).verify(state)[0] is False

    cap(smi).inject(state)

    assert smi.state[UUID]["lock"] == [345, 990]
    assert cap(smi).verify(state) == (True, f"{UUID} works at 990 MHz, held at 990")
    assert not cap(smi).is_seen_restored(state)
    assert cap(smi).undo(state)[::2] == (True, True)
    assert cap(smi).is_seen_restored(state)
    assert smi.state[UUID]["lock"] is None
    assert cap(smi).undo(state)[0] is True
    assert smi.told_to_change("-lgc", "-rgc")[1:] == [["-i", UUID, "-rgc"]] * 2


def test_a_lock_of_before_is_put_back_and_has_to_be_told(smi: StandIn) -> None:
    state = cap(smi).capture(ASKED | {"locked_before": [1500, 1800]})
    cap(smi).inject(state)
    cap(smi).undo(state)

    assert smi.state[UUID]["lock"] == [1500, 1800]
    for untold in (None, "", [1800, 1500], [0, 1], "1500"):
        with pytest.raises(Refused, match="locked_before"):
            cap(smi).capture(ASKED | {"locked_before": untold})


def test_an_idle_gpu_shows_nothing_and_a_driver_that_ignores_the_lock_is_found_out(smi: StandIn) -> None:
    state = cap(smi).capture(ASKED)
    smi.set(h100(**{"utilization.gpu": "0"}))
    cap(smi).inject(state)
    idle = cap(smi).verify(state)
    smi.set(h100(ignores_lock=True))
    cap(smi).inject(state)

    smi.set(h100(**{"utilization.gpu": "0"}))
    assert not cap(smi).is_seen_restored(state)  # free, and nothing shows it
    smi.set(h100(lock=[345, 990], ignores_lock=True))
    assert idle == (False, f"{UUID} is idle at 345 MHz: only under load is it seen to be held down")
    assert cap(smi).verify(state) == (False, f"{UUID} runs at 1980 MHz, and was to be held at 990")


@pytest.mark.parametrize("mhz", [0, 344, 1980, 3000])
def test_a_clock_that_is_none_or_no_cap_is_refused(smi: StandIn, mhz: int) -> None:
    with pytest.raises(Refused, match="mhz"):
        cap(smi).capture(ASKED | {"mhz": mhz})


def test_a_gpu_that_is_gone_is_refused_and_not_called_restored(smi: StandIn) -> None:
    state: dict[str, Any] = cap(smi).capture(ASKED)
    smi.set({})

    with pytest.raises(Refused):
        cap(smi).inject(state)
    assert cap(smi).undo(state)[0] is False
    assert ClockCap(smi="/nowhere/nvidia-smi").missing({}) == ["nvidia-smi is not installed"]
