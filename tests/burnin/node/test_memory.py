"""The memory stage on this machine's memory, healthy and with faults in its blocks."""

from __future__ import annotations

from typing import Any

import pytest

from burnin.node.memory import STUCK_EVERY, run_memory
from burnin.node.pattern_names import PATTERN_NAMES
from burnin.rules.memory_rule import LOAD_SHARE_MIN, judge_memory
from probes.finding import Finding
from probes.outcome import Outcome
from tests.burnin.bench_fake import FakeSpeaker, bench_with

BYTES = 1 << 24


def _run(*seeded: str, seed: int = 1) -> FakeSpeaker:
    bench, speaker = bench_with(*seeded, seed=seed)
    run_memory(bench, length_s=0, options={"bytes_max": BYTES})
    return speaker


def _judge(speaker: FakeSpeaker, **changes: Any) -> Finding:
    given: dict[str, Any] = {
        "patterns": PATTERN_NAMES,
        "results": speaker.told("memory.result"),
        "miscompares": speaker.told("miscompare"),
        "share": speaker.told("memory.share")[0],
        "is_bounded": True,
        "load_share_min": LOAD_SHARE_MIN["cpu"],
    }
    return judge_memory("cpu:0", **(given | changes))


def test_healthy_memory_passes_with_every_word_of_every_pattern_counted() -> None:
    speaker = _run()
    found = _judge(speaker)

    assert found.outcome is Outcome.PASS
    assert speaker.told("loaded")[0]["checked_elements"] == len(PATTERN_NAMES) * BYTES // 8
    assert [c["is_found"] for c in speaker.told("control")] == [True]


@pytest.mark.parametrize("seed", range(5))
def test_one_flipped_bit_is_found_with_its_address_and_still_there_when_read_again(seed: int) -> None:
    speaker = _run("bit_flip", seed=seed)
    found = _judge(speaker)
    (miscompare,) = speaker.told("miscompare")

    assert found.outcome is Outcome.FAIL
    assert (miscompare["elements"], miscompare["repeated"], miscompare["period"]) == (1, 1, None)
    assert 0 <= miscompare["addresses"][0] < BYTES
    assert miscompare["addresses"][0] % 8 == 0
    assert int(miscompare["patterns"][0], 16).bit_count() == 1


def test_a_bit_stuck_in_every_row_is_reported_with_its_period() -> None:
    speaker = _run("stuck_bit", seed=2)

    assert _judge(speaker).outcome is Outcome.FAIL
    assert speaker.told("miscompare")[0]["period"] == STUCK_EVERY * 8


def test_a_word_that_landed_at_a_second_place_is_found() -> None:
    assert _judge(_run("wrong_address")).outcome is Outcome.FAIL


def test_a_gpu_of_which_too_little_was_tested_is_undecided() -> None:
    speaker = _run()
    part = {"free_bytes": 80 * 10**9, "covered_bytes": 70 * 10**9}

    assert _judge(speaker, share=part, is_bounded=False).outcome is Outcome.INCONCLUSIVE
    whole = part | {"covered_bytes": 77 * 10**9}
    assert _judge(speaker, share=whole, is_bounded=False).outcome is Outcome.PASS
    assert _judge(speaker, share=None, is_bounded=False).outcome is Outcome.INCONCLUSIVE


def test_a_pattern_that_was_never_finished_leaves_the_device_undecided() -> None:
    speaker = _run()
    results = speaker.told("memory.result")

    assert _judge(speaker, results=results[:-1]).outcome is Outcome.INCONCLUSIVE
    assert _judge(speaker, results=[]).outcome is Outcome.INCONCLUSIVE


def test_a_miscompare_counts_even_where_the_worker_died_before_it_could_sum_up() -> None:
    speaker = _run("bit_flip")

    assert _judge(speaker, results=[]).outcome is Outcome.FAIL


def test_products_run_beside_the_check_of_every_pattern_and_are_on_the_record() -> None:
    speaker = _run()

    for result in speaker.told("memory.result"):
        assert LOAD_SHARE_MIN["cpu"] <= result["load_share"] < 1
        assert result["load_tflops"] > 0
        assert result["load"] == "products of fp32, 512 cubed, in turns with the check"
    assert "beside products of fp32, 512 cubed, in turns with the check: " in _judge(speaker).observed


def test_memory_whose_load_never_ran_is_undecided_and_a_wrong_word_in_it_fails_all_the_same() -> None:
    unloaded = _judge(_run("unloaded"))

    assert unloaded.outcome is Outcome.INCONCLUSIVE
    assert unloaded.observed.count("0% in pattern ") == len(PATTERN_NAMES)
    assert _judge(_run("unloaded", "bit_flip")).outcome is Outcome.FAIL


def test_a_load_that_paused_in_one_pattern_only_leaves_the_memory_undecided() -> None:
    results = _run().told("memory.result")
    paused = [results[0] | {"load_share": 0.01}, *results[1:]]

    assert _judge(_run(), results=paused).outcome is Outcome.INCONCLUSIVE
    assert (
        _judge(_run(), results=[r | {"load_share": float("nan")} for r in results]).outcome
        is not Outcome.PASS
    )
