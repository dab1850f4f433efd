"""What has to be there before any load."""

from __future__ import annotations

from burnin.rules.preconditions import judge_company, judge_devices, judge_room
from probes.json_types import JsonObject
from probes.outcome import Outcome

CHOICE: JsonObject = {
    "device_kind": "cuda",
    "devices": [{"name": f"GPU-{n}", "model": "H100"} for n in range(8)],
    "problem": "",
}


def _judge(
    choice: JsonObject | None = CHOICE, *, count: int = 8, expected: int | None = 8, ready: int = 8
) -> Outcome | None:
    return judge_devices("h", choice=choice, gpu_count=count, gpus_expected=expected, ready=ready).outcome


def test_a_node_of_eight_with_seven_gpus_fails_and_with_eight_passes() -> None:
    assert _judge() is Outcome.PASS
    assert _judge(count=7, ready=7) is Outcome.FAIL
    assert _judge(expected=None) is Outcome.PASS


def test_gpus_that_torch_does_not_see_fail_and_cores_that_it_cannot_use_are_undecided() -> None:
    cpu = CHOICE | {"device_kind": "cpu"}

    assert _judge(ready=7) is Outcome.FAIL
    assert _judge(cpu, count=0, expected=None, ready=0) is Outcome.INCONCLUSIVE


def test_a_driver_that_does_not_answer_and_a_run_that_ended_at_once_are_undecided() -> None:
    assert _judge(CHOICE | {"problem": "NVML lists no GPU"}, expected=None) is Outcome.INCONCLUSIVE
    assert _judge(None, count=0, expected=None, ready=0) is Outcome.INCONCLUSIVE
    assert _judge(CHOICE | {"devices": []}, count=0, expected=None, ready=0) is Outcome.INCONCLUSIVE


def test_too_little_memory_or_none_read_is_undecided() -> None:
    def judge(available: int | None) -> Outcome | None:
        room = {"memory_available_bytes": available, "cores": 2, "load_1min": 0.5}
        return judge_room("h", [room]).outcome

    assert judge(8 * 10**9) is Outcome.PASS
    assert judge(10**9) is Outcome.INCONCLUSIVE
    assert judge(None) is Outcome.INCONCLUSIVE
    assert judge_room("h", []).outcome is Outcome.INCONCLUSIVE


def test_a_foreign_process_before_or_during_the_run_leaves_a_gpu_undecided() -> None:
    assert judge_company("GPU-1", before=[], during=[[10]], own=1).outcome is Outcome.PASS
    assert judge_company("GPU-1", before=[7], during=[], own=1).outcome is Outcome.INCONCLUSIVE
    assert judge_company("GPU-1", before=[], during=[[10], [10, 11]], own=1).outcome is Outcome.INCONCLUSIVE
