"""The invented hosts of the positive controls: each fault is found, and the same host without it passes."""

from __future__ import annotations

import pytest

from burnin.rules.controls import prove_aftermath_rules
from burnin.rules.host_controls import healthy_host, host_faults
from probes.outcome import Outcome


@pytest.mark.parametrize("name", host_faults())
def test_the_seeded_fault_is_found(name: str) -> None:
    assert host_faults()[name]().outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE)


def test_the_same_host_without_the_fault_passes_every_rule() -> None:
    assert {f.outcome for f in healthy_host()} == {Outcome.PASS}


def test_they_are_proven_on_hosts_without_a_gpu_too() -> None:
    control = prove_aftermath_rules(has_gpus=False)

    assert control.outcome is Outcome.PASS
    proven = {row["detector"] for row in control.evidence["controls"]}
    wanted = {"host-setup", "network-port", "nic-link", "device-errors", "visible-devices", "pcie-acs"}
    assert {f"rule {name}" for name in wanted} < proven
