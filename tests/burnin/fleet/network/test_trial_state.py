"""What is concluded from the words of a trial's hosts: pure, without hosts."""

from __future__ import annotations

import pytest

from burnin.fleet.network.trial import Trial
from burnin.fleet.network.trial_state import TrialState, merge_environment, name_transport
from probes.event import Event

HOSTS = ("a", "b", "c")
TRIAL = Trial(id="t", round=1, design="domains", hosts=HOSTS)


def _say(state: TrialState, host: str, kind: str, now_s: float = 0.0, **data: object) -> None:
    state.note_life(host, now_s)
    state.note(Event(t_ns=0, host=host, source="x", kind=kind, data=data), now_s)


def _pulse(state: TrialState, rank: int, now_s: float, *, entered: int, is_inside: bool = False) -> None:
    said = {"device": str(rank), "steps": 5, "is_waiting": True, "is_inside": is_inside, "entered": entered}
    _say(state, HOSTS[rank], "pulse", now_s, **said)


def _met(*, device: str = "cpu", stall_s: float = 10) -> TrialState:
    state = TrialState(TRIAL, stall_s=stall_s, silence_s=20)
    for rank, host in enumerate(HOSTS):
        _say(state, host, "trial.ready", ranks=1, device=device)
        _say(state, host, "rank.started", rank=rank)
        _say(state, host, "rank.joined", rank=rank, environment={"NCCL_ALGO": "Ring"})
    _say(state, "a", "trial.port", port=1)
    assert state.is_ready
    assert state.has_met
    state.start_watching_stalls()
    return state


def _sweep(state: TrialState, rank: int, *, mean_s: float = 0.1, wrong: int = 0) -> None:
    plan = {"collectives": ["all_reduce"], "sizes_bytes": [100], "too_large_bytes": []}
    _say(state, HOSTS[rank], "rank.plan", rank=rank, **plan)
    told = {"collective": "all_reduce", "size_bytes": 100, "ranks": 3, "iterations": 5}
    times = {"mean_s": mean_s, "worst_s": 2 * mean_s, "busbw_bytes": 1e9, "wrong_elements": wrong}
    _say(state, HOSTS[rank], "rank.sweep", rank=rank, **told, **times)


def _end(state: TrialState, rank: int, *transports: str) -> None:
    _say(state, HOSTS[rank], "rank.done", rank=rank, transports=list(transports))
    _say(state, HOSTS[rank], "trial.ended", is_well=True, failures=[])


def test_a_sweep_is_as_slow_as_its_slowest_rank_and_wrong_wherever_anybody_saw_it() -> None:
    state = _met()
    for rank, (mean_s, wrong) in enumerate([(0.1, 0), (0.4, 2), (0.2, 1)]):
        _sweep(state, rank, mean_s=mean_s, wrong=wrong)
        _end(state, rank, "gloo")

    result = state.result()

    assert (result.state, result.is_complete, result.transport) == ("done", True, "gloo")
    assert [(s.busbw_gbps, s.busbw_worst_gbps, s.wrong_elements) for s in result.sweeps] == [(2.5, 1.25, 3)]


def test_a_size_that_one_rank_did_not_tell_is_no_sweep_and_the_trial_is_not_complete() -> None:
    state = _met()
    for rank in (0, 1):
        _sweep(state, rank)
    for rank in range(3):
        _end(state, rank)

    result = state.result()

    assert (result.sweeps, result.is_complete) == ((), False)


def test_a_trial_that_measured_nothing_is_not_complete() -> None:
    state = _met()
    for rank in range(3):
        _end(state, rank)

    assert not state.result().is_complete


def test_who_entered_fewer_collectives_than_the_others_is_blamed_for_the_hang() -> None:
    state = _met()
    for now_s in (0, 5, 10, 11):
        for rank in range(3):
            _pulse(state, rank, now_s, entered=8 if rank == 1 else 9)
    state.note_time(11.5)

    assert (state.state, state.result().blamed) == ("hung", ("b",))


@pytest.mark.parametrize("entered_by_b", [9, 8])  # 8: it waits for the end of what the others have left
def test_a_hang_in_which_all_wait_inside_accuses_nobody(entered_by_b: int) -> None:
    state = _met()
    for now_s in range(0, 24, 2):
        for rank in range(3):
            _pulse(state, rank, now_s, entered=entered_by_b if rank == 1 else 9, is_inside=True)
        state.note_time(now_s)

    assert (state.state, state.result().blamed) == ("hung", ())


def test_where_pace_accuses_nobody_the_ranks_that_ras_misses_are_blamed() -> None:
    state = _met(device="cuda")
    state.run_out_of_time("not all were done within 9 s")
    _say(state, "a", "trial.ras", missing=[{"rank": 2, "considered_dead": True}], behind=[])
    _say(state, "b", "trial.ras", error="NCCL's RAS: ConnectionRefusedError")

    result = state.result()

    assert (result.state, result.blamed) == ("hung", ("c",))
    assert "considered_dead" in result.detail


def test_a_rank_that_died_without_a_word_is_blamed_and_not_those_that_waited_for_it() -> None:
    state = _met()
    _say(state, "a", "rank.failed", rank=0, is_waiting=True, error="connection closed by peer")
    _say(state, "a", "trial.ended", is_well=False, failures=[{"rank": 0, "exit_code": 1}])
    _say(state, "b", "trial.ended", is_well=False, failures=[{"rank": 1, "exit_code": -9}])

    assert (state.state, state.result().blamed) == ("failed", ("b",))


def test_a_host_whose_line_ended_is_lost_even_if_others_failed_before() -> None:
    state = _met()
    _say(state, "a", "rank.failed", rank=0, is_waiting=True, error="connection closed by peer")
    _say(state, "a", "trial.ended", is_well=False, failures=[{"rank": 0, "exit_code": 1}])
    state.note_end("c", "")

    assert (state.state, state.result().blamed) == ("lost", ("c",))


def test_a_silent_host_is_lost_and_one_that_has_ended_may_be_silent() -> None:
    state = _met(stall_s=30)
    for rank in (0, 1):
        _end(state, rank)
    _say(state, "a", "heartbeat", 1.0)
    state.note_time(19.0)
    before = state.state
    state.note_time(21.5)

    assert (before, state.state, state.result().blamed) == ("", "lost", ("c",))


def test_hosts_that_were_not_ready_in_time_are_named() -> None:
    state = TrialState(TRIAL, stall_s=10, silence_s=20)
    _say(state, "a", "trial.ready", ranks=1, device="cpu")
    state.run_out_of_time("not all were ready within 5 s")

    assert (state.state, state.result().blamed) == ("failed", ("b", "c"))


@pytest.mark.parametrize(("started", "blamed"), [((0, 1), ("c",)), ((), ())])
def test_hosts_whose_ranks_never_began_are_named_unless_nobodys_did(
    started: tuple[int, ...], blamed: tuple[str, ...]
) -> None:
    state = TrialState(TRIAL, stall_s=10, silence_s=20)
    for host in HOSTS:
        _say(state, host, "trial.ready", ranks=1, device="cpu")
    _say(state, "a", "trial.port", port=1)
    for rank in started:
        _say(state, HOSTS[rank], "rank.started", rank=rank)
    state.run_out_of_time("not all met within 5 s")

    assert (state.state, state.result().blamed) == ("failed", blamed)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"NET/IB/0/GDRDMA", "P2P/CUMEM", "NET/Socket/1"}, "NET/Socket"),
        ({"NET/IB/0/GDRDMA", "P2P/CUMEM"}, "NET/IB"),
        ({"P2P/MNNVL"}, "P2P/MNNVL"),
        (set(), None),
    ],
)
def test_sockets_decide_the_transport_wherever_there_were_any(told: set[str], name: str | None) -> None:
    assert name_transport(told) == name


def test_where_hosts_differ_in_a_setting_each_value_names_its_hosts() -> None:
    told = {"a": {"NCCL_ALGO": "Ring", "NCCL_IB_HCA": "mlx5"}, "b": {"NCCL_ALGO": "Ring"}}

    assert merge_environment(told) == {"NCCL_ALGO": "Ring", "NCCL_IB_HCA": "mlx5 on a; (unset) on b"}


def test_one_rank_in_all_has_nobody_to_exchange_data_with() -> None:
    state = TrialState(Trial(id="t", round=1, design="domains", hosts=("a",)), stall_s=10, silence_s=20)
    _say(state, "a", "trial.ready", ranks=1, device="cpu")
    _say(state, "a", "trial.port", port=1)
    state.refuse_lone_rank()

    assert state.result().state == "not run"
    assert "one rank alone" in state.result().detail


def test_a_host_that_refuses_ends_the_trial_with_its_reason_and_is_not_lost_when_it_leaves() -> None:
    state = TrialState(TRIAL, stall_s=10, silence_s=20)
    _say(state, "b", "trial.refused", reason="path rail:0: gloo on a CPU has neither NVLink nor rails")
    state.note_end("b", "")

    assert (state.result().state, state.result().blamed) == ("not run", ())
    assert "b: path rail:0: gloo" in state.result().detail
