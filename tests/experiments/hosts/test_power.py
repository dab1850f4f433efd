"""Switching a machine off by the user's commands, with a stand-in for its management controller."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from experiments.host_agent.fault import Refused
from experiments.host_agent.faults import power
from experiments.host_agent.faults.power import Off
from tests.experiments.hosts.stand_ins import StandIn, stand_in

FAULT = Off(poll_s=0.01)


@pytest.fixture
def bmc(tmp_path: Path) -> StandIn:
    return stand_in(tmp_path, "bmc", {"power": "on", "is_dead": False})


def commands(bmc: StandIn, **changed: Any) -> dict[str, Any]:
    words = [str(bmc.path), "-H", "node-7-bmc", "-f", "/etc/bmc.password", "power"]
    switches = {"switch_off": [*words, "off"], "switch_on": [*words, "on"]}
    return {"machine": "node-7", "status": [*words, "status"]} | switches | changed


def test_it_goes_off_and_comes_on_again_as_its_controller_tells(bmc: StandIn) -> None:
    state = FAULT.capture(commands(bmc))
    assert FAULT.missing(commands(bmc)) == []

    FAULT.inject(state)

    assert bmc.state["power"] == "off"
    assert FAULT.verify(state) == (True, "node-7: its controller says: Chassis Power is off")
    assert FAULT.undo(state) == (True, "switched node-7 on", True)
    assert bmc.state["power"] == "on"
    assert FAULT.undo(state) == (True, "nothing to do: node-7 is on", False)
    assert [words[-1] for words in bmc.told_to_change("on", "off")] == ["off", "on"]


def test_armed_and_never_injected_switches_nothing(bmc: StandIn) -> None:
    state = FAULT.capture(commands(bmc))

    assert FAULT.undo(state)[::2] == (True, False)
    assert bmc.told_to_change("on", "off") == []


def test_the_host_that_holds_the_timer_is_never_switched_off(bmc: StandIn) -> None:
    for name in (socket.gethostname(), "localhost", "127.0.0.1", "::1"):
        with pytest.raises(Refused, match="another host"):
            FAULT.capture(commands(bmc, machine=name))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"machine": ""}, "none is named"),
        ({"switch_off": "ipmitool power off"}, "list of words"),
        ({"switch_on": []}, "list of words"),
        ({"switch_off": ["ipmitool", "-P", "secret", "power", "off"]}, "password"),
        ({"status": ["curl", "https://root:secret@node-7-bmc/redfish/v1"]}, "password"),
        ({"is_off": "Power"}, "was to be on"),  # on and off at once: it tells nothing
    ],
)
def test_what_is_not_named_or_would_keep_a_password_is_refused(
    bmc: StandIn, changed: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        FAULT.capture(commands(bmc, **changed))


def test_a_machine_that_is_off_already_or_whose_controller_is_silent_is_refused(bmc: StandIn) -> None:
    state = FAULT.capture(commands(bmc))
    for changed in ({"power": "off", "is_dead": False}, {"power": "on", "is_dead": True}):
        bmc.set(changed)

        with pytest.raises(Refused, match="was to be on"):
            FAULT.capture(commands(bmc))
        with pytest.raises(Refused, match="was to be on"):
            FAULT.inject(state)
    assert bmc.told_to_change("off") == []
    assert FAULT.missing(commands(bmc)) != []


def test_a_silent_controller_is_not_called_restored(bmc: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "ON_WITHIN_S", 0.1)
    state = FAULT.capture(commands(bmc))
    FAULT.inject(state)
    bmc.set({"power": "off", "is_dead": True})

    is_restored, said, _ = FAULT.undo(state)

    assert not is_restored
    assert "Unable to establish" in said
