"""Who else is on a GPU, and which GPUs CUDA_VISIBLE_DEVICES leaves to us."""

from __future__ import annotations

import pytest

from burnin.node.company import foreign_pids
from burnin.node.device_choice import choose_devices
from burnin.node.visible import split_visible
from probes.json_types import JsonObject

GPUS: list[JsonObject] = [
    {"uuid": f"GPU-{n}{n}{n}", "name": "NVIDIA H100", "pci_bus_id": f"00000000:{0x90 - n:02X}:00.0"}
    for n in range(4)
]  # NVML's order is the reverse of the bus's here


@pytest.mark.parametrize(
    ("pids", "own", "own_count", "foreign"),
    [
        ([10], {10}, 1, []),
        ([10, 99], {10}, 1, [99]),
        ([99], set(), 0, [99]),
        ([70_001], {10}, 1, []),  # ours, under the number that the host gives it
        ([70_001, 70_002], {10}, 1, [70_001, 70_002]),
    ],
)
def test_only_processes_that_are_not_ours_are_foreign(
    pids: list[int], own: set[int], own_count: int, foreign: list[int]
) -> None:
    assert foreign_pids(pids, own=own, own_count=own_count) == foreign


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, ["GPU-000", "GPU-111", "GPU-222", "GPU-333"]),
        ("0,1", ["GPU-333", "GPU-222"]),
        ("GPU-111", ["GPU-111"]),
        ("GPU-2", ["GPU-222"]),
        ("3,-1,0", ["GPU-000"]),
        ("1,9,2", ["GPU-222"]),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(visible: str | None, seen: list[str]) -> None:
    shown, hidden, problem = split_visible(GPUS, visible, is_pci_order=False)

    assert [gpu["uuid"] for gpu in shown] == seen
    assert {gpu["uuid"] for gpu in hidden} == {gpu["uuid"] for gpu in GPUS} - set(seen)
    assert problem == ""


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles", "MIG-1/2/3"])
def test_a_variable_that_leaves_nothing_loads_nothing_and_says_why(visible: str) -> None:
    choice = choose_devices("auto", {"gpus": GPUS}, environment={"CUDA_VISIBLE_DEVICES": visible})

    assert (choice.kind, choice.seats) == ("cuda", ())
    assert "CUDA_VISIBLE_DEVICES" in choice.problem


def test_numbers_say_nothing_where_models_are_mixed_unless_cuda_follows_the_bus() -> None:
    mixed = [*GPUS, GPUS[0] | {"uuid": "GPU-444", "name": "NVIDIA A100", "pci_bus_id": "00000000:01:00.0"}]

    assert "name their UUIDs" in split_visible(mixed, "0", is_pci_order=False)[2]
    assert [gpu["uuid"] for gpu in split_visible(mixed, "0", is_pci_order=True)[0]] == ["GPU-444"]


def test_hidden_gpus_are_named_and_not_loaded() -> None:
    choice = choose_devices("auto", {"gpus": GPUS}, environment={"CUDA_VISIBLE_DEVICES": "GPU-111"})

    assert [seat.name for seat in choice.seats] == ["GPU-111"]
    assert choice.hidden == ("GPU-000", "GPU-222", "GPU-333")


def test_a_gpu_in_slices_keeps_everything_from_being_loaded() -> None:
    choice = choose_devices("auto", {"gpus": [GPUS[0], GPUS[1] | {"mig_mode": 1}]})

    assert choice.seats == ()
    assert choice.problem == "MIG is on: GPU-111"
