"""A campaign follows nodes and GPUs by serial number, over runs whose folders may be gone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import overproof
from burnin.fleet.campaign import NodeState, campaign_state, load_campaign, render_campaign, update_campaign
from burnin.fleet.campaign_entry import GAME_DAY, NEVER_NS, CampaignEntry, Gpu
from burnin.fleet.judging import judge_fleet
from burnin.fleet.lemon import DAY_NS, judge_lemon
from probes.finding import Finding
from reports.record import create_run
from reports.session import rejudge
from tests.burnin.fleet.fleet_record import T0_NS, FleetRecord, fails


def _entry(day: float, **changes: object) -> CampaignEntry:
    entry = CampaignEntry(
        run=f"run-{day}",
        t_ns=T0_NS + round(day * DAY_NS),
        profile="intake",
        host="gpu1",
        serial="C1",
        outcome="pass",
        state="finished",
        gpus=(Gpu(serial="A", slot="0", model="H100"), Gpu(serial="B", slot="1", model="H100")),
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


def _states(*entries: CampaignEntry, days: float = 10) -> dict[str, NodeState]:
    found = campaign_state(entries, {}, now_ns=T0_NS + round(days * DAY_NS))
    return {state.host: state for state in found}


def test_the_furthest_profile_that_was_passed_counts() -> None:
    states = _states(_entry(1, profile="gate"), _entry(2, profile="intake"), _entry(3, profile="quick"))

    assert states["gpu1"].passed == "intake"


def test_a_failure_takes_back_what_was_passed_before() -> None:
    states = _states(_entry(1, profile="soak"), _entry(2, outcome="fail"), _entry(3, profile="gate"))

    assert states["gpu1"].passed == "gate"


def test_a_run_that_is_undecided_takes_nothing_back_and_adds_nothing() -> None:
    states = _states(_entry(1), _entry(2, profile="soak", outcome="inconclusive"))

    assert states["gpu1"].passed == "intake"


def test_a_gpu_that_was_swapped_has_passed_nothing_yet() -> None:
    new = (Gpu(serial="A", slot="0", model="H100"), Gpu(serial="X", slot="1", model="H100"))

    states = _states(_entry(1, profile="soak"), _entry(2, profile="gate", gpus=new))

    assert states["gpu1"].passed == "gate"
    assert states["gpu1"].changes == ("slot 1: GPU B was swapped for X",)


def test_a_gpu_that_moved_is_told_on_both_hosts() -> None:
    there = (Gpu(serial="B", slot="3", model="H100"),)

    states = _states(_entry(1), _entry(2, host="gpu2", serial="C2", gpus=there))

    said = "GPU B came from gpu1 slot 1 to gpu2 slot 3"
    assert said in states["gpu1"].changes
    assert said in states["gpu2"].changes


def test_a_node_under_a_new_name_is_the_same_node() -> None:
    states = _states(_entry(1), _entry(2, host="gpu7"))

    assert list(states) == ["gpu7"]
    assert states["gpu7"].changes[0] == "was called gpu1"


def test_a_node_that_keeps_coming_back_is_a_lemon_also_when_it_passed_last() -> None:
    own = [_entry(day, outcome="fail", rules=("ecc", "xid")) for day in (1, 4, 7)]

    states = _states(*own, _entry(8))

    assert states["gpu1"].lemon.is_lemon
    assert set(states["gpu1"].lemon.raised) == {
        "single_node_failures",
        "single_node_failure_rate",
        "xid_count",
    }


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([_entry(day) for day in range(9)], ()),
        ([_entry(1, outcome="fail", rules=("ecc",)), *(_entry(day) for day in range(2, 9))], ()),
        ([_entry(day, state="lost", outcome="inconclusive") for day in (1, 2, 3)], ("out_count",)),
        ([_entry(day, outcome="fail", fleet_rules=("network",)) for day in (1, 2)], ("multi_node_failures",)),
    ],
)
def test_one_signal_or_none_makes_no_lemon(entries: list[CampaignEntry], expected: tuple[str, ...]) -> None:
    lemon = judge_lemon(entries, [], now_ns=T0_NS + 10 * DAY_NS)

    assert (lemon.raised, lemon.is_lemon) == (expected, False)


def test_what_lies_further_back_than_the_window_is_forgiven() -> None:
    own = [_entry(day, outcome="fail", rules=("ecc", "xid")) for day in (1, 2, 3)]

    assert judge_lemon(own, [], now_ns=T0_NS + 28 * DAY_NS).is_lemon
    assert not judge_lemon(own, [], now_ns=T0_NS + 32 * DAY_NS).is_lemon


def _gameday(day: float, *, hours: float = 1, trouble: tuple[str, ...] = ()) -> CampaignEntry:
    """A game day that had a fault on the node for a while."""
    t_ns = T0_NS + round(day * DAY_NS)
    spans = ((t_ns, t_ns + round(hours * DAY_NS / 24)),)
    entry = _entry(day, run=f"day-{day}", profile="", serial="", outcome="inconclusive", state=GAME_DAY)
    return replace(entry, gpus=(), faults_ns=spans, trouble=trouble)


def test_faults_of_ours_never_make_a_healthy_node_a_lemon() -> None:
    days = [_gameday(day) for day in range(9)]
    under_fault = [_entry(day + 0.01, outcome="fail", rules=("xid", "ecc")) for day in range(9)]
    into_fault = [
        _entry(day - 0.01, outcome="fail", fleet_rules=("network",), t_end_ns=T0_NS + day * DAY_NS + 1)
        for day in range(9)
    ]
    cut_off = [_entry(day + 0.02, state="lost", outcome="inconclusive") for day in range(9)]

    with_them = _states(*days, *under_fault, *into_fault, *cut_off)["gpu1"].lemon
    without = _states(*under_fault, *into_fault, *cut_off)["gpu1"].lemon

    assert (with_them.raised, with_them.is_lemon) == ((), False)
    assert without.is_lemon


def test_a_fault_that_nobody_saw_undone_explains_all_that_comes_after_it() -> None:
    failed = [_entry(day, outcome="fail", rules=("xid", "ecc")) for day in (2, 3, 4)]
    pending = replace(_gameday(1), faults_ns=((T0_NS + DAY_NS, NEVER_NS),))

    assert not _states(pending, *failed)["gpu1"].lemon.is_lemon


def test_a_burn_in_after_a_game_day_counts_like_any_other() -> None:
    failed = [_entry(day + 0.5, outcome="fail", rules=("ecc", "xid")) for day in (1, 3, 5)]

    state = _states(*(_gameday(day) for day in (1, 3, 5)), *failed)["gpu1"]

    assert state.lemon.is_lemon
    assert (state.outcome, state.state, state.passed) == ("fail", "finished", "")


def test_a_game_day_takes_back_nothing_that_was_passed_and_is_no_last_run() -> None:
    state = _states(_entry(1), _gameday(2, trouble=("not healed: x",)))["gpu1"]

    assert (state.passed, state.outcome, state.state) == ("intake", "pass", "finished")


def test_what_a_host_did_wrong_in_game_days_is_one_signal_and_alone_makes_no_lemon() -> None:
    days = [_gameday(day, trouble=("not undone: link",)) for day in (1, 2, 3)]
    failed = [_entry(day + 0.5, outcome="fail", rules=("ecc",)) for day in (1, 2)]

    alone = _states(*days, _entry(9))["gpu1"].lemon
    both = _states(*days, *failed, *(_entry(day) for day in (6, 7, 8)))["gpu1"].lemon

    assert (alone.raised, alone.is_lemon) == (("gameday_trouble",), False)
    assert (both.raised, both.is_lemon) == (("single_node_failures", "gameday_trouble"), True)


def test_the_record_of_a_game_day_says_when_its_faults_were_there_and_what_went_wrong(tmp_path: Path) -> None:
    finding = Finding(
        rule="reaccepted",
        subject="host:gpu1",
        outcome=None,
        observed="",
        expected="",
        evidence={"host": "gpu1", "own_doing": ["not healed: x"]},
    )
    with create_run(tmp_path, kind="gameday", spec={}, seed=1) as writer:
        for id, captured in {
            "a": {"host_fault": "link.down", "victims": [{"name": "gpu1"}]},
            "b": {"host_fault": "link.down", "victims": [{"name": "gpu2"}]},
            "c": {"victims": [{"name": "replica-0"}]},
        }.items():
            writer.event("fault", "fault.armed", id=id, captured=captured)
        undone = writer.event("fault", "undo.verified", id="a")
        writer.event("controller", "run.finished")
        writer.write_findings([finding])

    entries, problems = update_campaign(tmp_path, tmp_path / "campaign.ndjson")

    assert problems == []
    assert [(e.host, e.state, e.trouble) for e in entries] == [
        ("gpu1", GAME_DAY, ("not healed: x",)),
        ("gpu2", GAME_DAY, ()),
    ]
    assert [e.faults_ns[0][1] for e in entries] == [undone.t_ns, NEVER_NS]
    assert load_campaign(tmp_path / "campaign.ndjson") == entries


def test_the_memory_outlives_the_folders_of_the_runs(tmp_path: Path) -> None:
    run = FleetRecord(hosts=3, gpus=2, outcome={"gpu00002": "fail"}, findings=[fails("gpu00002")]).write(
        tmp_path
    )
    rejudge(run, judge_fleet)
    file = tmp_path / "campaign.ndjson"
    before, _ = update_campaign(tmp_path, file)
    shutil.rmtree(run.path)

    after, problems = update_campaign(tmp_path, file)

    assert (after, problems) == (before, [])
    assert [(e.host, e.outcome, e.rules, len(e.gpus)) for e in after] == [
        ("gpu00001", "pass", (), 2),
        ("gpu00002", "fail", ("ecc",), 2),
        ("gpu00003", "pass", (), 2),
    ]


def test_a_run_is_added_once_and_again_only_after_it_was_judged_anew(tmp_path: Path) -> None:
    run = FleetRecord(hosts=2, gpus=1).write(tmp_path)
    file = tmp_path / "campaign.ndjson"
    update_campaign(tmp_path, file)
    update_campaign(tmp_path, file)
    unjudged = len(file.read_text().splitlines())
    rejudge(run, judge_fleet)

    update_campaign(tmp_path, file)

    assert (unjudged, len(file.read_text().splitlines())) == (2, 4)
    assert [e.outcome for e in load_campaign(file)] == ["pass", "pass"]


def test_a_rehearsal_is_not_remembered_and_a_broken_folder_is_named(tmp_path: Path) -> None:
    FleetRecord(hosts=2, gpus=1, spec={"simulated": True}).write(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")

    entries, problems = update_campaign(tmp_path, tmp_path / "campaign.ndjson")

    assert entries == []
    assert [problem.split(":")[0].endswith("broken") for problem in problems] == [True]


def test_the_table_stays_short_and_counts_everybody() -> None:
    states = campaign_state(
        [_entry(1, host=f"gpu{n}", serial="", gpus=()) for n in range(500)], {}, now_ns=T0_NS + DAY_NS
    )

    table = render_campaign(states, as_json=False, most=40)

    assert len(table.splitlines()) == 43
    assert table.splitlines()[-1] == "500 nodes: 500 passed intake; 0 lemons"


def test_the_command_shows_the_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rejudge(FleetRecord(hosts=2, gpus=1).write(tmp_path), judge_fleet)

    code = overproof.run_command(
        ["burnin", "campaign", str(tmp_path), "--log", str(tmp_path / "none"), "--json"]
    )

    nodes = json.loads(capsys.readouterr().out)["nodes"]
    assert code == 0
    assert [(node["host"], node["passed"]) for node in nodes] == [
        ("gpu00001", "intake"),
        ("gpu00002", "intake"),
    ]
