"""The moments of a fault, derived from rows and samples."""

from __future__ import annotations

from experiments.impact.recovery import Times, Window, find_recovery, find_times, split_phases
from probes.request import Request
from probes.slo import Slo
from tests.experiments.rows import T0_NS, at, fault, lab_samples, request, traffic

SLOS = (
    Slo(name="ttft", metric="ttft_ms", bound=500, objective=0.95),
    Slo(name="goodput", metric="goodput", objective=0.95),
)


def times(requests: list[Request], **lab: float | None) -> Times:
    return find_times(requests, lab_samples(**lab), faults=[fault()], t_end_ns=at(20), slos=SLOS)


def after(found: Times, t_ns: int | None) -> float | None:
    return found.after_inject_s(t_ns)


def test_a_kill_is_detected_mitigated_recovered_and_redundant_in_that_order() -> None:
    cut = [request(-0.2, took_s=0.25, error="cut")]
    found = times([*traffic(-5, 20), *cut])

    assert found.detection is not None
    assert (after(found, found.detection.t_ns), found.detection.by) == (0.0, "the redundancy probe")
    assert after(found, found.t_mitigate_ns) == 0.3
    assert after(found, found.t_recover_ns) == 1.0
    assert after(found, found.t_redundant_ns) == 4.0
    assert found.t_back_ns == at(4.0)


def test_a_bad_request_before_the_probe_is_what_detects() -> None:
    rows = [row for row in lab_samples() if row["t_ns"] < T0_NS or row["t_ns"] > at(1)]
    requests = [*traffic(-5, 20), request(-0.2, took_s=0.25, error="cut")]
    found = find_times(requests, rows, faults=[fault()], t_end_ns=at(20), slos=SLOS)

    assert found.detection is not None
    assert (after(found, found.detection.t_ns), found.detection.by) == (0.05, "a bad request")


def test_a_failure_before_the_fault_detects_nothing() -> None:
    requests = [*traffic(-5, 20), request(-3, error="cut")]
    found = find_times(requests, [], faults=[fault()], t_end_ns=at(20), slos=SLOS)

    assert found.detection is None


def test_bad_traffic_recovers_only_with_three_good_seconds_in_a_row() -> None:
    bad_again = [request(t, error="http_5xx") for t in (0.1, 2.5, 2.6, 5.1, 5.2)]
    found = times([*traffic(-5, 20), *bad_again])

    assert after(found, found.t_recover_ns) == 6.0


def test_traffic_that_stays_bad_never_recovers() -> None:
    found = times([*traffic(-5, 0), *traffic(0, 20, error="http_5xx")])

    assert found.t_recover_ns is None
    assert found.t_back_ns is None


def test_silence_is_no_recovery() -> None:
    found = times(traffic(-5, 0))

    assert found.t_recover_ns is None
    assert {window.total for window in found.windows[1:]} == {0}


def test_a_request_that_hangs_spoils_every_second_until_it_is_given_up() -> None:
    found = times([*traffic(-5, 20, every_s=0.5), request(0.5, took_s=9.9, error="timeout")])

    assert after(found, found.t_recover_ns) == 11.0


def test_a_lab_that_restarts_nothing_is_never_redundant() -> None:
    found = times(traffic(-5, 20), back_after_s=None)

    assert found.t_redundant_ns is None
    assert found.t_back_ns is None


def test_the_victim_seen_alive_for_a_moment_longer_is_not_redundancy() -> None:
    rows = lab_samples()
    for row in rows:
        if row["subject"] == "replica:replica-1" and 0 <= row["t_ns"] - T0_NS < 2e8:
            row |= {"pid": 11, "start_time": 110, "is_serving": True}
    found = find_times(traffic(-5, 20), rows, faults=[fault()], t_end_ns=at(20), slos=SLOS)

    assert after(found, found.t_redundant_ns) == 4.0


def test_what_the_fault_cut_belongs_to_the_time_of_the_fault() -> None:
    early, cut, late = request(-1), request(-0.1, took_s=0.3, error="cut"), request(5)
    lost = request(3, error="connect")

    phases = split_phases([early, cut, late, lost], t_inject_ns=T0_NS, t_back_ns=at(4))

    assert phases == {"before": [early], "during": [cut, lost], "after": [late]}


def test_without_a_return_everything_since_the_fault_is_during() -> None:
    phases = split_phases([request(-1), request(1), request(9)], t_inject_ns=T0_NS, t_back_ns=None)

    assert [len(phases[name]) for name in ("before", "during", "after")] == [1, 2, 0]


def test_two_good_windows_are_not_enough() -> None:
    windows = [
        Window(start_ns=i, total=5, is_good=good) for i, good in enumerate([True, True, False, True, True])
    ]

    assert find_recovery(windows) is None
    assert find_recovery([*windows, Window(start_ns=5, total=5, is_good=True)]) == 3


def test_the_clock_of_a_fault_that_only_undoing_ends_starts_with_its_undoing() -> None:
    late = lab_samples(back_after_s=8.5)
    slow = [*traffic(-5, 6), *traffic(6, 20)] + [request(t, error="timeout") for t in (1.5, 3.5, 5.5)]
    found = find_times(slow, late, faults=[fault(ends_by="undo", undone_s=6.2)], t_end_ns=at(20), slos=SLOS)

    assert found.took_s(found.t_recover_ns) == 0.0
    assert after(found, found.t_redundant_ns) == 8.5
    assert found.took_s(found.t_redundant_ns) == 2.3


def test_nothing_recovers_from_a_fault_that_is_still_there() -> None:
    found = find_times(
        traffic(-5, 20),
        lab_samples(),
        faults=[fault(ends_by="undo", undone_s=None)],
        t_end_ns=at(20),
        slos=SLOS,
    )

    assert (found.t_clock_ns, found.t_recover_ns, found.t_redundant_ns) == (None, None, None)


def test_of_several_faults_the_last_clock_counts_and_every_victim_has_to_be_another_process() -> None:
    rows = lab_samples()
    for row in rows:
        if row["subject"] == "replica:replica-0" and row["t_ns"] >= at(9):
            row["pid"] = 20
    other = {"victims": [{"name": "replica-0", "pid": 10, "start_time": 100}], "others": []}
    found = find_times(
        traffic(-5, 20), rows, faults=[fault(), fault(t_s=7, captured=other)], t_end_ns=at(20), slos=SLOS
    )

    assert after(found, found.t_clock_ns) == 7.0
    assert after(found, found.t_redundant_ns) == 9.0
