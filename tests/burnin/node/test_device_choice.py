"""Which devices are loaded."""

from __future__ import annotations

from burnin.node.device_choice import choose_devices
from probes.json_types import JsonObject
from tests.twins.nvml import uuid

ABSENT: JsonObject = {"nvml": "absent", "detail": "NVML Shared Library Not Found", "gpus": []}


def _inventory(*, processes: list[int] | None = None) -> JsonObject:
    gpus = [{"uuid": uuid(n), "name": "H100", "processes": []} for n in range(2)]
    gpus[1]["processes"] = processes or []
    return {"nvml": "answers", "gpus": gpus}


def test_where_there_is_no_nvml_the_cores_stand_in_as_two_devices_that_share_no_core() -> None:
    choice = choose_devices("auto", ABSENT)
    first, second = (seat.cores for seat in choice.seats)

    assert choice.kind == "cpu"
    assert [seat.name for seat in choice.seats] == ["cpu:0", "cpu:1"]
    assert len(first) == len(second) >= 1
    assert not set(first) & set(second) or first == second, "one core alone is shared"


def test_each_gpu_is_given_to_its_worker_by_uuid() -> None:
    choice = choose_devices("auto", _inventory())

    assert choice.kind == "cuda"
    assert [seat.environment for seat in choice.seats] == [
        {"CUDA_VISIBLE_DEVICES": uuid(n)} for n in range(2)
    ]


def test_a_driver_that_fails_or_says_nothing_is_never_replaced_by_the_cpu() -> None:
    for inventory in (
        None,
        {"nvml": "silent", "detail": "no answer", "gpus": []},
        {"nvml": "failed", "gpus": []},
    ):
        choice = choose_devices("auto", inventory)

        assert choice.seats == ()
        assert choice.problem


def test_cuda_asked_for_where_there_is_none_loads_nothing_and_says_why() -> None:
    choice = choose_devices("cuda", ABSENT)

    assert choice.seats == ()
    assert "NVML Shared Library Not Found" in choice.problem


def test_gpus_that_somebody_uses_are_not_touched() -> None:
    choice = choose_devices("auto", _inventory(processes=[4242]))

    assert choice.seats == ()
    assert f"{uuid(1)} by pid 4242" in choice.problem


def test_the_cpu_can_be_asked_for_where_there_are_gpus() -> None:
    assert choose_devices("cpu", _inventory(processes=[4242])).kind == "cpu"
