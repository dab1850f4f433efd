"""What NVML says of a GPU: bits, deltas, silence, and what the driver does not have."""

from __future__ import annotations

import pytest

from burnin.rules.gpu_health import (
    GPU_RULES,
    judge_ecc,
    judge_heat,
    judge_lost,
    judge_sensors,
    judge_throttle,
    not_applicable,
)
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

ROW: JsonObject = {"t_ns": 1, "gpu": "GPU-1", "temperature_c": 60, "event_reasons": 0x4, "power_w": 650.0}
HUNG = [{"sensor": "power_w", "waited_s": 5.0}]


@pytest.mark.parametrize("reasons", [0x24, 0x48, 0x8, 0x20, 0x40, 0x80, 0xE8])
def test_each_bit_that_holds_clocks_back_fails_also_beside_other_bits(reasons: int) -> None:
    rows = [ROW] * 50 + [ROW | {"event_reasons": reasons}] * 10

    assert judge_throttle("GPU-1", rows, {}, run_s=60).outcome is Outcome.FAIL


def test_a_power_cap_is_normal_at_full_load_and_one_touch_of_heat_is_no_failure() -> None:
    rows = [ROW] * 59 + [ROW | {"event_reasons": 0x24}]

    assert judge_throttle("GPU-1", rows, {}, run_s=60).outcome is Outcome.PASS


def test_nanoseconds_throttled_fail_although_no_sample_saw_it_and_tiny_ones_do_not() -> None:
    long, tiny = {"throttled_thermal_ns": (5, 5 + 10**9)}, {"throttled_thermal_ns": (5, 9)}

    assert judge_throttle("GPU-1", [ROW] * 60, long, run_s=60).outcome is Outcome.FAIL
    assert judge_throttle("GPU-1", [ROW] * 60, tiny, run_s=60).outcome is Outcome.PASS


def test_without_reasons_and_counters_throttling_is_undecided() -> None:
    assert judge_throttle("GPU-1", [{"gpu": "GPU-1"}], {}, run_s=60).outcome is Outcome.INCONCLUSIVE


def test_heat_is_judged_by_the_hottest_reading_against_the_boards_own_limit() -> None:
    rows = [ROW] * 9 + [ROW | {"temperature_c": 91}]

    assert judge_heat("GPU-1", rows, slowdown_c=90).outcome is Outcome.FAIL
    assert judge_heat("GPU-1", rows, slowdown_c=92).outcome is Outcome.PASS
    assert judge_heat("GPU-1", rows, slowdown_c=None).outcome is None
    assert judge_heat("GPU-1", [], slowdown_c=90).outcome is Outcome.INCONCLUSIVE


def test_ecc_errors_of_the_past_do_not_count_and_one_more_does() -> None:
    def judge(before: int, after: int) -> Outcome | None:
        return judge_ecc("GPU-1", {"ecc_uncorrected": (before, after)}, lacking={}).outcome

    assert judge(7, 7) is Outcome.PASS
    assert judge(7, 8) is Outcome.FAIL


def test_a_few_corrected_errors_pass_and_many_fail() -> None:
    def judge(corrected: int) -> Outcome | None:
        counters = {"ecc_uncorrected": (0, 0), "ecc_corrected": (0, corrected)}
        return judge_ecc("GPU-1", counters, lacking={}).outcome

    assert judge(10) is Outcome.PASS
    assert judge(11) is Outcome.FAIL


def test_ecc_counters_that_a_board_lacks_do_not_apply_and_unread_ones_are_undecided() -> None:
    assert judge_ecc("GPU-1", {}, lacking={"ecc_uncorrected": "Not Supported"}).outcome is None
    assert judge_ecc("GPU-1", {}, lacking={}).outcome is Outcome.INCONCLUSIVE


def _sensors(rows: list[JsonObject], **changes: object) -> Finding:
    given: dict[str, object] = {"lacking": {}, "failed": [], "hung": [], "rows_expected": 60}
    return judge_sensors("GPU-1", rows, **(given | changes))  # type: ignore[arg-type]


def test_a_sensor_that_exists_and_kept_silent_is_undecided() -> None:
    assert _sensors([ROW] * 60).outcome is Outcome.PASS
    assert _sensors([ROW] * 30 + [ROW | {"power_w": None}] * 30).outcome is Outcome.INCONCLUSIVE
    assert _sensors([ROW] * 60, hung=HUNG).outcome is Outcome.INCONCLUSIVE
    assert _sensors([ROW] * 20).outcome is Outcome.INCONCLUSIVE
    assert _sensors([]).outcome is Outcome.INCONCLUSIVE


def test_a_sensor_that_the_board_lacks_is_named_and_does_not_count() -> None:
    rows = [{name: value for name, value in ROW.items() if name != "power_w"}] * 60
    found = _sensors(rows, lacking={"power_w": "Not Supported"})

    assert found.outcome is Outcome.PASS
    assert "lacks power_w" in found.observed


def test_a_lost_gpu_fails() -> None:
    assert judge_lost("GPU-1", [{"error": "GPU is lost", "sensor": "power_w"}]).outcome is Outcome.FAIL
    assert judge_lost("GPU-1", []).outcome is Outcome.PASS


def test_where_there_is_no_gpu_each_gpu_rule_is_not_applicable_and_none_passes() -> None:
    found = not_applicable("h", "no NVIDIA GPU")

    assert [f.rule for f in found] == list(GPU_RULES)
    assert {f.outcome for f in found} == {None}
