"""Workers that stall, die or are late; agents that are lost; and one cause named once."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from burnin.rules.arithmetic import judge_digests
from burnin.rules.liveness import (
    fold_missing,
    judge_agent,
    judge_hung,
    judge_left_out,
    judge_stuck,
    judge_worker,
)
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome


def _worker(**changes: Any) -> Finding:
    given: dict[str, Any] = {"stalled": [], "late": [], "died": [], "failed": [], "undone": []}
    given["is_lone"] = True
    return judge_worker("cpu:1", **(given | changes))


def test_a_worker_that_did_everything_passes_and_one_that_was_cut_off_is_undecided() -> None:
    assert _worker().outcome is Outcome.PASS
    assert _worker(undone=["matmul"]).outcome is Outcome.INCONCLUSIVE


def test_a_stall_fails_the_device_and_names_the_stage() -> None:
    found = _worker(stalled=[{"stage": "matmul", "stall_s": 10, "is_waiting": False}])

    assert (found.outcome, found.subject) == (Outcome.FAIL, "device:cpu:1")
    assert found.observed == "stalled in matmul: no step for 10 s"


def test_a_collective_in_which_all_wait_fails_the_link_and_accuses_none_of_its_ends() -> None:
    stalled = [{"stage": "allreduce", "stall_s": 10, "is_waiting": True, "devices": ["cpu:0", "cpu:1"]}] * 2
    found = judge_hung("h", stalled)

    assert _worker(stalled=stalled[:1]).outcome is Outcome.INCONCLUSIVE
    assert [(f.outcome, f.subject) for f in found] == [(Outcome.FAIL, "link:cpu:0-cpu:1")]
    of_three = judge_hung("h", [stalled[0] | {"devices": ["a", "b", "c"]}])
    assert [f.subject for f in of_three] == ["host:h"]


def test_one_that_stood_still_hangs_no_collective() -> None:
    assert judge_hung("h", [{"stage": "matmul", "stall_s": 10, "is_waiting": False}]) == []


def test_a_death_by_a_signal_of_broken_execution_fails_and_by_sigkill_is_undecided() -> None:
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE):
        assert _worker(died=[{"exit_code": -number}]).outcome is Outcome.FAIL
    for code in (-signal.SIGKILL, 1, None):
        assert _worker(died=[{"exit_code": code}]).outcome is Outcome.INCONCLUSIVE


def test_broken_execution_without_a_sibling_that_did_the_same_work_is_undecided() -> None:
    found = _worker(died=[{"exit_code": -signal.SIGSEGV}], is_lone=False)

    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.observed.startswith("its worker died of SIGSEGV; no sibling did the same work")


@pytest.mark.parametrize(
    ("error", "with_siblings", "alone"),
    [
        ("AcceleratorError: CUDA error: uncorrectable ECC error encountered", Outcome.FAIL, Outcome.FAIL),
        (
            "AcceleratorError: CUDA error: an illegal memory access was encountered",
            Outcome.FAIL,
            Outcome.INCONCLUSIVE,
        ),
        ("AcceleratorError: CUDA error: out of memory", Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE),
        ("DistBackendError: NCCL error: unhandled system error", Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE),
        ("ModuleNotFoundError: torch", Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE),
    ],
)
def test_an_error_fails_the_device_that_alone_has_it_or_that_accuses_itself(
    error: str, with_siblings: Outcome, alone: Outcome
) -> None:
    assert _worker(failed=[{"error": error}], is_lone=True).outcome is with_siblings
    assert _worker(failed=[{"error": error}], is_lone=False).outcome is alone


def test_a_late_start_is_undecided_and_a_late_stage_fails() -> None:
    assert _worker(late=[{"stage": "preflight", "within_s": 180}]).outcome is Outcome.INCONCLUSIVE
    assert _worker(late=[{"stage": "matmul", "within_s": 60}]).outcome is Outcome.FAIL


def test_a_lost_agent_is_undecided_whatever_it_had_said() -> None:
    lost = judge_agent("h", lost=[{"reason": "silent for 20 s"}], is_finished=False, log_tail="x")

    assert (lost.outcome, lost.observed) == (Outcome.INCONCLUSIVE, "silent for 20 s")
    assert judge_agent("h", lost=[], is_finished=False, log_tail="").outcome is Outcome.INCONCLUSIVE
    assert judge_agent("h", lost=[], is_finished=True, log_tail="").outcome is Outcome.PASS


def test_a_process_that_sigkill_cannot_end_is_named_with_reboot_as_the_next_step() -> None:
    (found,) = judge_stuck("h", [{"device": "GPU-1", "pid": 7}])

    assert (found.outcome, found.subject) == (Outcome.FAIL, "gpu:GPU-1")
    assert "reboot" in found.next_step
    assert judge_stuck("h", []) == []


def test_a_stage_that_was_left_out_is_shown_and_not_merged() -> None:
    (found,) = judge_left_out(["allreduce"])

    assert (found.outcome, found.subject) == (None, "stage:allreduce")


def test_what_a_dead_worker_did_not_show_is_named_once_and_its_failures_stay() -> None:
    dead = _worker(died=[{"exit_code": -9}])
    findings = [_finding("exact", Outcome.FAIL), _finding("speed", Outcome.INCONCLUSIVE)]
    findings += [_finding("digest", Outcome.INCONCLUSIVE), _finding("digest", Outcome.INCONCLUSIVE, "cpu:0")]

    found = fold_missing(findings, [dead])

    assert [(f.rule, f.subject, f.outcome) for f in found] == [
        ("exact", "device:cpu:1", Outcome.FAIL),
        ("digest", "device:cpu:0", Outcome.INCONCLUSIVE),
        ("missing-evidence", "device:cpu:1", Outcome.INCONCLUSIVE),
    ]
    assert found[-1].evidence["rules"] == ["speed", "digest"]


def test_a_tie_between_digests_stays_visible_beside_a_worker_that_was_cut_off() -> None:
    results: dict[str, JsonObject | None] = {
        name: {"digests": 9, "digest_every": 3, "digest": digest, "dissents": 0}
        for name, digest in (("cpu:0", "aa"), ("cpu:1", "bb"))
    }
    tie = judge_digests(results, dict.fromkeys(results, 0), dict.fromkeys(results, "alike"))

    found = fold_missing([*tie, _finding("speed", Outcome.INCONCLUSIVE)], [_worker(died=[{"exit_code": -9}])])

    assert [(f.rule, f.subject) for f in found] == [
        ("digest", "device:cpu:0"),
        ("digest", "device:cpu:1"),
        ("missing-evidence", "device:cpu:1"),
    ]
    assert "cpu:0" in found[1].observed


def _finding(rule: str, outcome: Outcome, device: str = "cpu:1") -> Finding:
    return Finding(rule=rule, subject=f"device:{device}", outcome=outcome, observed="x", expected="y")
