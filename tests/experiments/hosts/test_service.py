"""Stopping a service, with a stand-in for systemctl that runs a real process for each unit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.host_agent.fault import Refused
from experiments.host_agent.faults.service import Stop
from probes.child import process_state
from tests.experiments.hosts.stand_ins import StandIn, end_units, stand_in, unit

KUBELET, PODS = "kubelet.service", "pods.service"


@pytest.fixture
def systemctl(tmp_path: Path) -> Iterator[StandIn]:
    units = {KUBELET: unit(RequiredBy=PODS), PODS: unit(), "slurmd.service": unit(), "sshd.service": unit()}
    tool = stand_in(tmp_path, "systemctl", units | {"alias.service": unit(Id="sshd.service")})
    for name in (KUBELET, PODS, "sshd.service", "alias.service"):
        os.spawnv(os.P_WAIT, str(tool.path), [str(tool.path), "start", name])
    yield tool
    end_units(tool)


def pid(systemctl: StandIn, name: str) -> int:
    return int(systemctl.state[name]["pid"])


def is_running(systemctl: StandIn, name: str) -> bool:
    return process_state(pid(systemctl, name)) not in (None, "", "Z")


def test_the_process_ends_with_those_that_need_it_and_all_run_again_afterwards(systemctl: StandIn) -> None:
    fault = Stop(systemctl=str(systemctl.path))
    assert fault.missing({}) == []
    state = fault.capture({"unit": "kubelet"})
    assert state["subject"] == f"service:{KUBELET} with {PODS}"

    fault.inject(state)

    assert fault.verify(state) == (True, f"{KUBELET} is inactive")
    assert not is_running(systemctl, KUBELET)
    assert not is_running(systemctl, PODS)
    assert fault.undo(state) == (True, f"started {KUBELET}, {PODS}", True)
    assert is_running(systemctl, KUBELET)
    assert is_running(systemctl, PODS)
    assert fault.undo(state) == (True, f"nothing to do: {KUBELET} runs", False)
    assert systemctl.told_to_change("stop", "start", "enable", "disable", "mask")[4:] == [
        ["stop", KUBELET],
        ["start", KUBELET],
        ["start", PODS],
    ]


def test_armed_and_never_injected_leaves_the_very_process_alone(systemctl: StandIn) -> None:
    fault = Stop(systemctl=str(systemctl.path))
    state, before = fault.capture({"unit": KUBELET}), pid(systemctl, KUBELET)

    assert fault.verify(state)[0] is False
    assert fault.undo(state)[::2] == (True, False)
    assert pid(systemctl, KUBELET) == before


def test_a_service_that_was_started_anew_since_is_not_stopped(systemctl: StandIn) -> None:
    fault = Stop(systemctl=str(systemctl.path))
    state = fault.capture({"unit": KUBELET})
    systemctl.set(systemctl.state | {KUBELET: systemctl.state[KUBELET] | {"invocation": "another"}})

    with pytest.raises(Refused, match="no longer the one"):
        fault.inject(state)
    assert is_running(systemctl, KUBELET)


def test_a_service_that_does_not_come_up_again_is_not_called_restored(systemctl: StandIn) -> None:
    fault = Stop(systemctl=str(systemctl.path))
    state = fault.capture({"unit": KUBELET})
    fault.inject(state)
    systemctl.set(systemctl.state | {KUBELET: systemctl.state[KUBELET] | {"broken": True}})

    is_restored, said, _ = fault.undo(state)

    assert not is_restored
    assert "still not active: kubelet.service" in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "one unit by its name"),
        ({"unit": "*.service"}, "one unit by its name"),
        ({"unit": "-H.service"}, "one unit by its name"),
        ({"unit": "multi-user.target"}, "one unit by its name"),
        ({"unit": "nothing"}, "no such unit"),
        ({"unit": "slurmd"}, "nothing to stop"),
        ({"unit": "sshd"}, "way in"),
        ({"unit": "alias"}, "way in"),
        ({"unit": "systemd-networkd"}, "part of the system"),
    ],
)
def test_an_empty_wide_or_dangerous_selection_is_refused(
    systemctl: StandIn, arguments: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        Stop(systemctl=str(systemctl.path)).capture(arguments)
    assert systemctl.told_to_change("stop") == []


def test_without_systemd_a_sentence_says_so_and_undoing_never_claims_success(systemctl: StandIn) -> None:
    state, bare = (
        Stop(systemctl=str(systemctl.path)).capture({"unit": KUBELET}),
        Stop(systemctl="/nowhere/ctl"),
    )

    assert bare.missing({}) == ["systemctl is not installed: this host does not run systemd"]
    with pytest.raises(Refused):
        bare.inject(state)
    assert bare.undo(state)[0] is False
