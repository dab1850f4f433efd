"""Switching one host of a target off from another one, over SSH, with both owners' word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.faults.fault import FaultRefused
from experiments.hosts.actions import host_power
from experiments.hosts.choice import aiming_at
from experiments.injecting.crash_points import RUN_VARIABLE
from experiments.injecting.injection import undo_pending
from experiments.injecting.ledger import read_ledger
from probes.json_types import JsonObject
from tests.experiments.hosts.real_hosts import allow, base_of, real_hosts, start_host, target_of
from tests.experiments.hosts.stand_ins import StandIn, stand_in
from tests.ssh_hosts import SshHost

pytestmark = pytest.mark.needs("root", "sshd", "ip")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SshHost, SshHost]]:
    with real_hosts(tmp_path_factory.mktemp("power") / "hosts") as hosts:
        yield start_host(hosts, "bastion"), start_host(hosts, "node-7")


def switch_off(pair: tuple[SshHost, SshHost], bmc: StandIn, **changed: str) -> list[JsonObject]:
    words = [str(bmc.path)]
    given = {"machine": "node-7", "host": "bastion"} | changed
    with aiming_at(target_of(*pair)):
        return host_power(
            switch_off=[*words, "off"], switch_on=[*words, "on"], status=[*words, "status"], **given
        )


@pytest.fixture
def bmc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv(RUN_VARIABLE, str(tmp_path / "run"))
    return stand_in(tmp_path, "bmc", {"power": "on", "is_dead": False})


def test_it_goes_off_by_the_other_host_and_the_ledger_names_who_was_hit(
    pair: tuple[SshHost, SshHost], bmc: StandIn, tmp_path: Path
) -> None:
    switch_off(pair, bmc)
    (entry,) = read_ledger(tmp_path / "run")
    power = bmc.state["power"]
    (undone,) = undo_pending(tmp_path / "run", by="test")

    assert [victim["name"] for victim in entry.captured["victims"]] == ["node-7"]
    assert [other["name"] for other in entry.captured["others"]] == ["bastion"]
    assert power == "off"
    assert undone.is_restored
    assert bmc.state["power"] == "on"


def test_without_the_word_of_the_owner_of_the_machine_itself_it_stays_on(
    pair: tuple[SshHost, SshHost], bmc: StandIn
) -> None:
    allow(pair[1], "process.*")

    with pytest.raises(FaultRefused, match=r"node-7: .*allows process"):
        switch_off(pair, bmc)
    (base_of(pair[1]) / "gameday-allowed").unlink()
    with pytest.raises(FaultRefused, match=r"node-7: no .*gameday-allowed"):
        switch_off(pair, bmc)
    allow(pair[1])
    assert bmc.told_to_change("off") == []


def test_a_machine_that_is_no_host_of_the_target_or_would_hold_its_own_timer_is_refused(
    pair: tuple[SshHost, SshHost], bmc: StandIn
) -> None:
    with pytest.raises(FaultRefused, match="no host of the target"):
        switch_off(pair, bmc, machine="node-8")
    with pytest.raises(FaultRefused, match="name another host"):
        switch_off(pair, bmc, host="node-7")
