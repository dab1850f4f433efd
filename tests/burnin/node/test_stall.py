"""Who has stalled, and who merely waits for it."""

from __future__ import annotations

from burnin.node.stall import Sign, find_stalled, is_stall_found, note_pulse


def _sign(device: str, *, silent_s: float, is_waiting: bool = False, unheard_s: float = 0.0) -> Sign:
    return Sign(
        device=device,
        is_busy=True,
        is_waiting=is_waiting,
        stepped_at=100 - silent_s,
        heard_at=100 - unheard_s,
    )


def test_one_that_stands_still_is_named_and_those_that_wait_for_it_are_not() -> None:
    signs = [_sign("a", silent_s=12), _sign("b", silent_s=12, is_waiting=True), _sign("c", silent_s=1)]

    assert find_stalled(signs, stall_s=10, now_s=100) == ["a"]


def test_one_that_is_frozen_is_named_although_it_last_said_that_it_waits() -> None:
    signs = [
        _sign("a", silent_s=12, is_waiting=True, unheard_s=12),
        _sign("b", silent_s=12, is_waiting=True),
    ]

    assert find_stalled(signs, stall_s=10, now_s=100) == ["a"]


def test_a_collective_in_which_all_wait_names_all_after_a_grace() -> None:
    signs = [_sign("a", silent_s=15, is_waiting=True), _sign("b", silent_s=14, is_waiting=True)]

    assert find_stalled(signs, stall_s=10, now_s=100) == []
    assert find_stalled(signs, stall_s=10, now_s=105.5) == ["a", "b"]


def test_of_all_that_wait_the_one_that_entered_fewer_collectives_is_named() -> None:
    signs = [_sign(name, silent_s=12, is_waiting=True) for name in "abc"]
    for sign, entered in zip(signs, (7, 6, 7), strict=True):
        sign.entered = entered

    assert find_stalled(signs, stall_s=10, now_s=100) == ["b"]


def test_one_that_is_inside_an_earlier_collective_did_come_and_may_wait_for_what_was_lost_on_the_way() -> (
    None
):
    signs = [_sign(name, silent_s=12, is_waiting=True) for name in "ab"]
    for sign, entered in zip(signs, (7, 6), strict=True):
        sign.entered, sign.is_inside = entered, True

    assert find_stalled(signs, stall_s=10, now_s=100) == []
    assert find_stalled(signs, stall_s=10, now_s=109) == ["a", "b"]


def test_an_idle_worker_has_not_stalled() -> None:
    assert find_stalled([Sign(device="a", stepped_at=0.0)], stall_s=10, now_s=100) == []


def test_a_pulse_without_a_step_is_a_sign_of_life_but_no_progress() -> None:
    sign = Sign(device="a", is_busy=True)
    said = {"steps": 7, "is_waiting": False, "is_inside": False, "entered": 0}
    note_pulse(sign, said, now_s=50.0)
    note_pulse(sign, said | {"is_waiting": True}, now_s=61.0)

    assert (sign.stepped_at, sign.heard_at, sign.is_waiting) == (50.0, 61.0, True)


def test_the_positive_control_finds_its_own_seeded_stall() -> None:
    assert is_stall_found(10.0)
    assert is_stall_found(2.0)
