"""Going back into service: every way in which a host was, or was not, re-accepted; and whose doing it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from experiments.experiment import ExtensionSpec
from experiments.hosts.host import Host
from experiments.hosts.reaccept import fleet_of
from experiments.hosts.reaccept_judging import judge_reaccepted
from experiments.hosts.reaccept_spec import ReacceptSpec
from experiments.impact.recovery import FaultSeen
from experiments.injecting.ledger import INJECTED, UNDO_FAILED, UNDONE, VERIFIED, Entry
from probes.errors import ConfigError
from probes.finding import Finding
from probes.outcome import Outcome
from reports.reacceptance import OWN_DOING, BurnedIn
from tests.experiments.rows import T0_NS, at

FOLDER = Path("runs/day/reaccept")


def entry(state: str = UNDONE, *, host: str = "n1", id: str = "f1", **detail: object) -> Entry:
    captured = {"host_fault": "process.kill", "victims": [{"name": host}]}
    subject = f"host:{host} process:x"
    return Entry(id=id, fault="process.kill", subject=subject, captured=captured, state=state, detail=detail)


def fault(
    *, ends_by: str = "platform", undone_s: float | None = 9, healed_s: float | None = None
) -> FaultSeen:
    return FaultSeen(
        data={"id": "f1", "t_inject_ns": T0_NS, "ends_by": ends_by, "subject": "host:n1 process:x"},
        captured=entry().captured,
        is_verified=True,
        observed="",
        t_undone_ns=None if undone_s is None else at(undone_s),
        t_healed_ns=None if healed_s is None else at(healed_s),
    )


def burned(outcome: Outcome) -> dict[str, BurnedIn]:
    return {"n1": BurnedIn(outcome=outcome, observed="as it says", run="runs/day/reaccept/r", report="")}


def judge(
    entries: list[Entry],
    after: Mapping[str, BurnedIn] | None = None,
    *,
    faults: tuple[FaultSeen, ...] = (),
    is_asked: bool = True,
) -> Finding:
    (finding,) = judge_reaccepted(
        faults, entries, after or {}, is_asked=is_asked, recovery_s=5, folder=FOLDER
    )
    return finding


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_host_comes_to_what_its_burn_in_came_to(outcome: Outcome) -> None:
    finding = judge([entry()], burned(outcome))

    assert (finding.subject, finding.outcome, finding.observed) == ("host:n1", outcome, "as it says")
    assert bool(finding.next_step) == (outcome is not Outcome.PASS)


def test_a_burn_in_that_failed_names_the_command_that_takes_the_host_out() -> None:
    finding = judge([entry()], burned(Outcome.FAIL))

    assert "overproof burnin act runs/day/reaccept/r --drain" in finding.next_step


def test_a_host_without_a_burn_in_on_record_is_undecided() -> None:
    finding = judge([entry()])

    assert finding.outcome is Outcome.INCONCLUSIVE
    assert f"overproof burnin run {FOLDER}/fleet.yaml" in finding.next_step


@pytest.mark.parametrize("state", [VERIFIED, INJECTED, UNDO_FAILED])
@pytest.mark.parametrize("after", [{}, burned(Outcome.PASS)])
def test_a_host_with_a_fault_that_is_not_undone_is_undecided_whatever_a_burn_in_says(
    state: str, after: dict[str, BurnedIn]
) -> None:
    finding = judge([entry(), entry(state, id="f2")], after)

    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "gameday undo" in finding.next_step


def test_a_day_that_does_not_ask_for_it_says_so_and_judges_nothing() -> None:
    finding = judge([entry()], is_asked=False)

    assert (finding.outcome, finding.next_step) == (None, "")
    assert "was not re-accepted" in finding.observed


def test_each_host_that_was_hit_is_judged_once_and_nobody_else() -> None:
    lab = Entry(id="l", fault="replica.kill", subject="replica:r", captured={"victims": [{"name": "r"}]},
                state=UNDONE, detail={})  # fmt: skip

    entries = [entry(), entry(id="f2"), entry(host="n2", id="f3"), lab]
    found = judge_reaccepted((), entries, burned(Outcome.PASS), is_asked=True, recovery_s=5, folder=FOLDER)

    assert [(f.subject, f.outcome) for f in found] == [
        ("host:n1", Outcome.PASS),
        ("host:n2", Outcome.INCONCLUSIVE),
    ]


@pytest.mark.parametrize(
    ("entries", "faults"),
    [
        ([entry(has_acted=False)], (fault(healed_s=3),)),  # healed
        ([entry(has_acted=True)], (fault(ends_by="undo"),)),  # ours to undo, and undone
        ([entry(has_acted=True)], (fault(undone_s=2),)),  # undone before its time was over
        ([entry(has_acted=True)], (fault(healed_s=7),)),  # late, and by itself
        ([entry(VERIFIED)], (fault(undone_s=None),)),  # we were killed
        ([entry(UNDO_FAILED, did="connection refused", is_seen=False)], (fault(undone_s=None),)),  # cut off
        ([entry(UNDO_FAILED, did="of an older ledger")], (fault(undone_s=None),)),
        ([entry(has_acted=True)], ()),  # armed, and never injected
    ],
)
def test_what_we_did_to_a_host_is_never_its_own_doing(
    entries: list[Entry], faults: tuple[FaultSeen, ...]
) -> None:
    assert judge(entries, burned(Outcome.FAIL), faults=faults).evidence[OWN_DOING] == []


@pytest.mark.parametrize(
    ("entries", "faults", "said"),
    [
        ([entry(has_acted=True, did="started it")], (fault(),), "not healed: "),
        ([entry(UNDO_FAILED, did="the link stays down", is_seen=True)], (), "not undone: "),
    ],
)
def test_what_it_did_not_heal_and_what_undoing_could_not_restore_are_its_own_doing(
    entries: list[Entry], faults: tuple[FaultSeen, ...], said: str
) -> None:
    (own,) = judge(entries, faults=faults).evidence[OWN_DOING]

    assert own.startswith(f"{said}host:n1")


def test_the_fleet_is_reached_as_the_game_day_reaches_it() -> None:
    host = Host(name="n1", address="10.0.0.1", user="ops", port=22, wrapper=("sudo", "-n"))
    wanted = ReacceptSpec(gpus=8).to_reaccept(Path("day.yaml"))

    fleet = fleet_of([host], wanted, name="day")

    assert fleet["defaults"] == {"launcher": "ssh", "permission": "listed", "gpus": 8}
    assert fleet["groups"] == [
        {"hosts": "n1", "address": "10.0.0.1", "user": "ops", "port": 22, "python": "python3"}
        | {"wrapper": ["sudo", "-n"]}
    ]


def test_a_plan_that_is_no_file_is_named() -> None:
    with pytest.raises(ConfigError, match="is no file in"):
        ReacceptSpec(plan="none.yaml").to_reaccept(Path("day.yaml"))


def test_only_hosts_can_be_re_accepted() -> None:
    lab = {"name": "overproof", "target": "lab", "workload": "w.yaml", "recovery_s": 5, "reaccept": {}}
    promises = [{"metric": "goodput", "objective": 0.9}]

    with pytest.raises(ValueError, match="reaccept: is for hosts"):
        ExtensionSpec.model_validate(lab | {"slos": dict.fromkeys(("before", "during", "after"), promises)})
