"""The bandwidth stage on this machine's memory, and the rules on what it says."""

from __future__ import annotations

from typing import Any

import pytest

from burnin.node.bandwidth import PATHS, ROUNDS_MIN, SIZE_BYTES, run_bandwidth
from burnin.node.rounds import ALONE
from burnin.node.seeding import SLOW_FACTOR
from burnin.rules.transfer import PATHS as JUDGED_PATHS
from burnin.rules.transfer import RATIO_MIN, judge_bandwidth, judge_copy_speed
from probes.finding import Finding
from probes.outcome import Outcome
from tests.burnin.bench_fake import FakeSpeaker, bench_with


def _run(*seeded: str, seed: int = 1) -> FakeSpeaker:
    bench, speaker = bench_with(*seeded, seed=seed)
    run_bandwidth(bench, length_s=0)
    return speaker


def _judge(speaker: FakeSpeaker, **changes: Any) -> Finding:
    given: dict[str, Any] = {
        "results": speaker.told("bandwidth.result"),
        "miscompares": speaker.told("miscompare"),
        "is_cpu": True,
    }
    return judge_bandwidth("cpu:0", **(given | changes))


def test_the_rule_waits_for_every_path_that_the_stage_has() -> None:
    assert JUDGED_PATHS == PATHS


def test_a_healthy_machine_passes_and_is_called_what_it_is() -> None:
    speaker = _run()
    found = _judge(speaker)

    assert found.outcome is Outcome.PASS
    assert "memcpy in host memory" in found.observed
    words = (len(PATHS) + 1) * ROUNDS_MIN * SIZE_BYTES["cpu"] // 8  # both directions are two copies
    assert speaker.told("loaded")[0]["checked_elements"] == words


@pytest.mark.parametrize("seed", range(3))
def test_one_flipped_bit_is_found_along_every_path(seed: int) -> None:
    speaker = _run("bit_flip", seed=seed)

    assert _judge(speaker).outcome is Outcome.FAIL
    assert {m["format"] for m in speaker.told("miscompare")} == set(PATHS)
    assert all(m["elements"] == 1 for m in speaker.told("miscompare"))


def test_a_path_without_a_result_or_memory_that_is_not_pinned_is_undecided() -> None:
    speaker = _run()
    results = speaker.told("bandwidth.result")

    assert _judge(speaker, results=results[:-1]).outcome is Outcome.INCONCLUSIVE
    assert _judge(speaker, results=[]).outcome is Outcome.INCONCLUSIVE
    assert _judge(speaker, is_cpu=False).outcome is Outcome.INCONCLUSIVE


def test_alone_it_measures_the_same_and_proves_nothing_twice() -> None:
    bench, speaker = bench_with()

    run_bandwidth(bench, length_s=0, phase=ALONE)

    assert {r["phase"] for r in speaker.told("bandwidth.result")} == {ALONE}
    assert speaker.told("control") == []


def test_a_device_that_copies_at_a_fifth_fails_and_its_siblings_pass() -> None:
    rates = {"a": 50.0, "b": 52.0, "c": 50.0 / SLOW_FACTOR}
    found = {
        name: judge_copy_speed(
            name,
            {"host to device": rate},
            {other: {"host to device": value} for other, value in rates.items() if other != name},
            ratio_min=RATIO_MIN["cuda"],
        ).outcome
        for name, rate in rates.items()
    }

    assert found == {"a": Outcome.PASS, "b": Outcome.PASS, "c": Outcome.FAIL}


def test_without_a_sibling_the_speed_of_copies_does_not_apply_and_without_a_rate_it_is_undecided() -> None:
    assert judge_copy_speed("a", {"p": 1.0}, {}, ratio_min=0.5).outcome is None
    assert judge_copy_speed("a", {}, {"b": {"p": 1.0}}, ratio_min=0.5).outcome is Outcome.INCONCLUSIVE
