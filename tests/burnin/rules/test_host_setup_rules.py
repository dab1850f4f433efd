"""Rules on a host's settings and on what is plugged into it."""

from __future__ import annotations

import pytest

from burnin.rules.host_setup_rules import (
    judge_device_errors,
    judge_nic_links,
    judge_ports,
    judge_setup,
    judge_tools,
)
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

PORT: JsonObject = {
    "adapter": "mlx5_0", "port": 1, "state": "ACTIVE", "physical": "LinkUp", "rate_gbps": 400.0,
    "layer": "InfiniBand", "gids": 1,
}  # fmt: skip
NIC: JsonObject = {
    "address": "0000:5e:00.0", "what": "nic", "speed_gts": 32.0, "speed_gts_max": 32.0, "width": 16,
    "width_max": 16, "slot_speed_gts_max": 32.0, "slot_width_max": 16,
}  # fmt: skip


def _outcomes(findings: list[Finding]) -> dict[str, Outcome | None]:
    return {finding.subject.partition("/")[2]: finding.outcome for finding in findings}


def test_a_small_shm_fails_only_where_several_gpus_share_it() -> None:
    setup: JsonObject = {"shm_bytes": 64 * 2**20, "memlock_bytes": None}

    assert _outcomes(judge_setup("h", setup, gpu_count=8, has_rdma=False))["dev-shm"] is Outcome.FAIL
    assert "dev-shm" not in _outcomes(judge_setup("h", setup, gpu_count=0, has_rdma=False))


@pytest.mark.parametrize(("limit", "outcome"), [(8 * 2**20, Outcome.FAIL), (None, Outcome.PASS)])
def test_locked_memory_matters_where_there_is_rdma(limit: int | None, outcome: Outcome) -> None:
    setup: JsonObject = {"shm_bytes": None, "memlock_bytes": limit}

    assert _outcomes(judge_setup("h", setup, gpu_count=0, has_rdma=True))["memlock"] is outcome
    assert "memlock" not in _outcomes(judge_setup("h", setup, gpu_count=0, has_rdma=False))


def test_a_drive_that_is_not_live_fails_by_its_name() -> None:
    drives = [
        {"name": "nvme0", "model": "X", "state": "live"},
        {"name": "nvme1", "model": "X", "state": "dead"},
    ]
    outcomes = _outcomes(judge_setup("h", {"nvmes": drives}, gpu_count=0, has_rdma=False))

    assert (outcomes["nvme0"], outcomes["nvme1"]) == (Outcome.PASS, Outcome.FAIL)


def test_a_tool_that_takes_over_five_seconds_fails_and_settings_alone_are_only_said() -> None:
    tools = [
        {"tool": "nvidia-smi", "took_s": 5.5, "error": ""},
        {"tool": "ipmitool", "took_s": 0.1, "error": "no device"},
    ]

    assert _outcomes(judge_tools("h", tools)) == {"nvidia-smi": Outcome.FAIL, "ipmitool": Outcome.PASS}
    assert _outcomes(judge_setup("h", {}, gpu_count=0, has_rdma=False)) == {"setup": None}


def test_only_training_ports_are_judged_and_the_slow_and_the_dead_one_are_named() -> None:
    slow, down = (
        PORT | {"adapter": "mlx5_1", "rate_gbps": 200.0},
        PORT | {"adapter": "mlx5_2", "state": "DOWN"},
    )
    storage = PORT | {"adapter": "bond0", "state": "DOWN"}
    outcomes = _outcomes(judge_ports("h", [PORT, slow, down, storage], "mlx5"))

    assert outcomes == {"mlx5_0:1": Outcome.PASS, "mlx5_1:1": Outcome.FAIL, "mlx5_2:1": Outcome.FAIL}
    assert set(_outcomes(judge_ports("h", [PORT, down], None)).values()) == {None}


def test_a_roce_port_without_an_address_fails() -> None:
    assert _outcomes(judge_ports("h", [PORT | {"gids": 0}], "mlx5_0"))["mlx5_0:1"] is Outcome.FAIL


def test_a_narrow_adapter_fails_and_one_in_a_slot_that_offers_no_more_passes() -> None:
    narrow, slot = NIC | {"width": 8}, NIC | {"speed_gts": 16.0, "slot_speed_gts_max": 16.0}

    assert [f.outcome for f in judge_nic_links("h", [NIC, narrow, slot])] == [
        Outcome.PASS,
        Outcome.FAIL,
        Outcome.PASS,
    ]


def test_a_virtual_adapter_without_a_link_is_not_judged() -> None:
    assert judge_nic_links("h", [NIC | {"speed_gts": None, "width": None}]) == []


@pytest.mark.parametrize(
    ("name", "added", "outcome"),
    [
        ("aer/0000:5e:00.0/fatal", 1, Outcome.FAIL),
        ("aer/0000:5e:00.0/correctable", 480, Outcome.PASS),
        ("aer/0000:5e:00.0/correctable", 481, Outcome.FAIL),
        ("port/mlx5_0:1/link_downed", 1, Outcome.FAIL),
        ("port/mlx5_0:1/symbol_error", 3, Outcome.PASS),
    ],
)
def test_only_what_was_added_counts(name: str, added: int, outcome: Outcome) -> None:
    (finding,) = judge_device_errors("h", {name: 10**6}, {name: 10**6 + added})

    assert finding.outcome is outcome


def test_a_device_that_vanished_from_sysfs_fails() -> None:
    (finding,) = judge_device_errors("h", {"aer/0000:5e:00.0/fatal": 0}, {})

    assert (finding.outcome, finding.subject) == (Outcome.FAIL, "host:h/pci 0000:5e:00.0")
