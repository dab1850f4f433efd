"""Injection into DCGM, with a stand-in for dcgmi that forgets an injected value as the real daemon does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.host_agent.fault import Refused
from experiments.host_agent.faults import dcgm
from experiments.host_agent.faults.dcgm import Inject
from probes.child import wait_until
from tests.experiments.hosts.stand_ins import StandIn, stand_in

HOT = {"number": 0, "field": 150, "value": 99, "for_s": 60}
XID = {"number": 0, "field": 230, "value": 79, "for_s": 60}


@pytest.fixture
def dcgmi(tmp_path: Path) -> Iterator[StandIn]:
    tool = stand_in(tmp_path, "dcgmi", {"measured": {"150": "41", "230": "0"}, "injected": {}})
    yield tool
    assert wait_until(lambda: not users_of(tool), timeout_s=10), users_of(tool)


def users_of(tool: StandIn) -> list[str]:
    """Return the processes that call it again and again."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if str(tool.path).encode() in words[4:]:
                found.append(folder.name)
    return found


def fault(dcgmi: StandIn) -> Inject:
    return Inject(dcgmi=str(dcgmi.path), ages_out_within_s=8)


def test_a_value_stays_for_longer_than_dcgm_keeps_it_and_then_what_is_measured_is_back(
    dcgmi: StandIn,
) -> None:
    state = fault(dcgmi).capture(HOT)
    assert fault(dcgmi).verify(state)[0] is False
    fault(dcgmi).inject(state)
    seen: list[tuple[bool, str]] = []

    def is_seen() -> bool:
        seen.append(fault(dcgmi).verify(state))
        return seen[-1][0]

    try:
        time.sleep(4.0)  # longer than one injection lasts
        wait_until(is_seen, timeout_s=20)
    finally:
        undone = fault(dcgmi).undo(state)

    assert seen[-1] == (True, "DCGM tells 99 for dcgm:gpu 0, field 150; it is injected again and again")
    assert undone[::2] == (True, True)
    assert undone[1].endswith("DCGM tells 41")
    assert fault(dcgmi).undo(state) == (True, "nothing to do: DCGM tells 41", False)


def test_an_injection_that_is_under_way_does_not_outlive_the_undoing(dcgmi: StandIn) -> None:
    state = fault(dcgmi).capture(XID)
    fault(dcgmi).inject(state)
    slow = dcgmi.path.read_text().replace("LASTS_S = 3.0", "LASTS_S = 3.0\nif '79' in words: time.sleep(2)")
    dcgmi.path.write_text(slow)
    told = len(dcgmi.told_to_change("79"))
    assert wait_until(lambda: len(dcgmi.told_to_change("79")) > told, timeout_s=20)  # it has just begun
    is_restored = Inject(dcgmi=str(dcgmi.path), ages_out_within_s=0.2).undo(state)[0]
    time.sleep(2.5)

    assert is_restored
    assert dcgmi.state["injected"]["230"][0] == "0"


def test_a_value_that_nothing_measured_replaces_is_set_to_what_it_was(dcgmi: StandIn) -> None:
    state = fault(dcgmi).capture(XID)
    fault(dcgmi).inject(state)
    is_restored, did, _ = Inject(dcgmi=str(dcgmi.path), ages_out_within_s=0.2).undo(state)

    assert is_restored
    assert did.endswith("injected 0 again: DCGM tells 0")


def test_a_value_that_stays_is_not_called_restored(dcgmi: StandIn) -> None:
    dcgmi.set({"measured": {}, "injected": {}})
    state = fault(dcgmi).capture(XID)
    fault(dcgmi).inject(state)
    is_restored, did, _ = Inject(dcgmi=str(dcgmi.path), ages_out_within_s=0.2).undo(state)

    assert not is_restored
    assert did.endswith("DCGM tells 79; restart its daemon")


def test_armed_and_never_injected_injects_nothing(dcgmi: StandIn) -> None:
    state = fault(dcgmi).capture(HOT)

    assert fault(dcgmi).undo(state) == (True, "nothing to do: DCGM tells 41", False)
    assert dcgmi.told_to_change("--inject") == []


def test_the_process_leaves_by_itself_when_its_time_is_over(
    dcgmi: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcgm, "EVERY_S", 0.1)
    state = fault(dcgmi).capture(HOT | {"for_s": 1.5})
    fault(dcgmi).inject(state)

    assert users_of(dcgmi) != []
    assert wait_until(lambda: not users_of(dcgmi), timeout_s=10)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"number": None}, "number"),
        ({"field": -1}, "field"),
        ({"value": "79; rm"}, "value"),
        ({"value": True}, "value"),
        ({"for_s": -1}, "for_s"),
        ({"for_s": 99999}, "for_s"),
        ({"number": 7}, "does not tell"),
        ({"value": 41}, "already"),
    ],
)
def test_what_is_no_number_or_changes_nothing_is_refused(
    dcgmi: StandIn, changed: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        fault(dcgmi).capture(HOT | changed)


def test_without_dcgm_a_sentence_says_so_and_undoing_never_claims_success(dcgmi: StandIn) -> None:
    state, bare = fault(dcgmi).capture(HOT), Inject(dcgmi="/nowhere/dcgmi", ages_out_within_s=0)

    assert bare.missing({}) == ["dcgmi is not installed (package datacenter-gpu-manager)"]
    with pytest.raises(Refused):
        bare.inject(state)
    assert bare.undo(state)[0] is False
