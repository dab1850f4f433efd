"""XIDs: what each calls for, counted once whoever reports it, and blamed on the right party."""

from __future__ import annotations

import pytest

from burnin.rules.sighting import Sighting, coalesce
from burnin.rules.xid_rule import judge_xids
from burnin.xid_table import UNKNOWN, XidSpec, shipped_xids, xid_spec
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

S = 10**9


def _judge(*at: tuple[float, int], **changes: object) -> Finding:
    sightings = [Sighting(t_ns=round(t_s * S), xid=xid) for t_s, xid in at]
    given: dict[str, object] = {"is_watched": True, "unavailable": None}
    return judge_xids("GPU-1", sightings, **(given | changes))  # type: ignore[arg-type]


def test_an_xid_of_the_hardware_fails_with_the_action_that_it_calls_for() -> None:
    found = _judge((0, 79))

    assert found.outcome is Outcome.FAIL
    assert found.observed == "XID 79 GPU has fallen off the bus"
    assert "power-cycle" in found.next_step


def test_no_xid_passes_only_where_somebody_watched() -> None:
    assert _judge().outcome is Outcome.PASS
    assert _judge(is_watched=False).outcome is Outcome.INCONCLUSIVE
    assert _judge(unavailable={"error": "Unknown Error", "is_lacking": False}).outcome is Outcome.INCONCLUSIVE
    assert _judge(is_watched=False, unavailable={"error": "?", "is_lacking": True}).outcome is None


def test_the_same_event_seen_by_nvml_and_by_the_kernel_log_counts_once() -> None:
    events = coalesce(
        [
            Sighting(t_ns=12 * S, xid=31, source="kernel log"),
            Sighting(t_ns=10 * S, xid=31),
            Sighting(t_ns=11 * S, xid=43),
            Sighting(t_ns=16 * S, xid=31),
        ]
    )

    assert [(e.t_ns // S, e.xid, e.source) for e in events] == [
        (10, 31, "NVML"),
        (11, 43, "NVML"),
        (16, 31, "NVML"),
    ]


def test_an_xid_that_programs_cause_blames_the_gpu_only_when_it_comes_again() -> None:
    assert _judge((0, 31)).outcome is Outcome.INCONCLUSIVE
    assert _judge((0, 31), (1, 31), (4.9, 31)).outcome is Outcome.INCONCLUSIVE
    assert _judge((0, 31), (6, 31)).outcome is Outcome.FAIL


def test_a_counted_xid_fails_from_its_limit_on() -> None:
    patient = {92: XidSpec(name="storm", verdict="count", limit=3, next_step="watch it")}

    assert _judge((0, 92), (10, 92), overrides=patient).outcome is Outcome.INCONCLUSIVE
    assert _judge((0, 92), (10, 92), (20, 92), overrides=patient).outcome is Outcome.FAIL
    assert _judge((0, 92)).outcome is Outcome.FAIL


def test_a_note_does_not_count_and_is_shown() -> None:
    found = _judge((0, 106))

    assert found.outcome is Outcome.PASS
    assert "XID 106" in found.observed


def test_a_note_does_not_make_up_for_a_watch_that_broke_off() -> None:
    broken: JsonObject = {"error": "Unknown Error", "is_lacking": False}

    assert _judge((0, 106), unavailable=broken).outcome is Outcome.INCONCLUSIVE


def test_the_worst_of_several_xids_decides_and_names_its_own_step() -> None:
    found = _judge((0, 31), (1, 48), (2, 106))

    assert found.outcome is Outcome.FAIL
    assert found.observed.startswith("XID 48 ")
    assert found.next_step == xid_spec(48).next_step


def test_a_code_that_nobody_listed_fails_and_says_where_to_look() -> None:
    assert _judge((0, 999)).outcome is Outcome.FAIL
    assert xid_spec(999) is UNKNOWN
    assert "XID catalog" in _judge((0, 999)).next_step


def test_a_user_can_replace_an_entry() -> None:
    own = {79: XidSpec(name="known quirk of our boards", verdict="note")}

    assert _judge((0, 79), overrides=own).outcome is Outcome.PASS


@pytest.mark.parametrize("xid", [48, 64, 74, 79, 94, 95, 119, 120, 140, 157, 167, 171, 172])
def test_the_codes_that_published_tools_agree_on_fail_at_once(xid: int) -> None:
    assert shipped_xids().xids[xid].verdict == "fail"
