"""A campaign follows nodes and GPUs by serial number, over runs whose folders may be gone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import overproof
from burnin.fleet.campaign import NodeState, campaign_state, load_campaign, render_campaign, update_campaign
from burnin.fleet.campaign_entry import CampaignEntry, Gpu
from burnin.fleet.judging import judge_fleet
from burnin.fleet.lemon import DAY_NS, judge_lemon
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
