"""Acting on a verdict: within limits, on a FAIL only, and never against what somebody else wanted."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

import overproof
from burnin.fleet.acting import budget, is_safe_name
from burnin.fleet.acting_run import Acted, ActRequest, act, outcome_of
from burnin.fleet.judging import judge_fleet
from probes.errors import ConfigError, RecordError
from probes.outcome import Outcome
from reports.run import Run, load_run
from reports.session import rejudge
from tests.burnin.fleet.fleet_record import FleetRecord, fails

# What stands for Slurm's scontrol: nodes in a file, one partition; it writes down every call.
SCONTROL = """#!{python}
import json, sys
from pathlib import Path
state = Path({folder!r}) / "nodes.json"
nodes = json.loads(state.read_text())
with (state.parent / "calls.ndjson").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "show":
    for name, (states, reason) in nodes.items():
        tail = f" Reason={{reason}} [root@2026-11-21T06:00:00]" if reason else ""
        print(f"NodeName={{name}} Arch=x86_64 State={{states}} Partitions=main,all{{tail}}")
else:
    fields = dict(word.split("=", 1) for word in sys.argv[2:])
    if fields["state"] == "drain":
        nodes[fields["nodename"]] = ["IDLE+DRAIN", fields["reason"]]
    else:
        nodes[fields["nodename"]] = ["IDLE", ""]
    state.write_text(json.dumps(nodes))
"""


class StandIn:
    """A stand-in for Slurm on PATH."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._nodes, self._calls = folder / "nodes.json", folder / "calls.ndjson"
        self.set(dict.fromkeys(names, ("IDLE", "")))
        tool = folder / "scontrol"
        tool.write_text(SCONTROL.format(python=sys.executable, folder=str(folder)))
        tool.chmod(0o755)

    def set(self, nodes: dict[str, tuple[str, str]]) -> None:
        self._nodes.write_text(json.dumps(self.nodes() | nodes if self._nodes.exists() else nodes))

    def nodes(self) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = json.loads(self._nodes.read_text())
        return found

    def drained(self) -> list[str]:
        return [name for name, (state, _) in self.nodes().items() if "DRAIN" in state]

    def updates(self) -> list[list[str]]:
        calls = [json.loads(line) for line in self._calls.read_text().splitlines()]
        return [call for call in calls if call[0] == "update"]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return StandIn(folder, FleetRecord(hosts=40).names())


def _request(folder: Path, **changes: object) -> ActRequest:
    fields: dict[str, object] = {"manager": "slurm", "log": folder / "acting.ndjson", "is_dry_run": False}
    return ActRequest(**fields | changes)  # type: ignore[arg-type]


def _run(folder: Path, *bad: str, **changes: object) -> Run:
    record = FleetRecord(hosts=40, gpus=0, outcome=dict.fromkeys(bad, "fail"))
    record.findings = [fails(host, f"rule-of-{host}") for host in bad]
    for name, value in changes.items():
        setattr(record, name, value)
    run = record.write(folder / "runs")
    rejudge(run, judge_fleet)
    return load_run(run.path)


def _states(acted: list[Acted]) -> dict[str, str]:
    return {each.step.host: each.state for each in acted}


def test_a_failed_node_is_drained_with_the_finding_as_the_reason(tmp_path: Path, slurm: StandIn) -> None:
    run = _run(tmp_path, "gpu00002")

    acted = act(run, _request(tmp_path))

    assert _states(acted) == {"gpu00002": "done"}
    ((*_, reason),) = slurm.updates()
    assert reason.startswith(
        f"reason=overproof {run.header.id}: host host:gpu00002: its burn-in came to fail"
    )
    assert slurm.drained() == ["gpu00002"]


def test_a_dry_run_says_what_it_would_do_and_does_nothing(tmp_path: Path, slurm: StandIn) -> None:
    acted = act(_run(tmp_path, "gpu00002"), _request(tmp_path, is_dry_run=True))

    assert _states(acted) == {"gpu00002": "planned"}
    assert slurm.drained() == []


@pytest.mark.parametrize("state", ["lost", "unreachable", "interrupted"])
def test_nothing_is_done_about_a_host_that_is_undecided(tmp_path: Path, slurm: StandIn, state: str) -> None:
    run = _run(tmp_path, state={"gpu00002": (state, "")})

    assert act(run, _request(tmp_path)) == []
    assert slurm.drained() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_finished": False}, "is interrupted"),
        ({"spec": {"simulated": True}}, "is simulated"),
    ],
)
def test_a_run_that_was_cut_off_or_simulated_is_not_acted_on(
    tmp_path: Path, slurm: StandIn, changes: dict[str, object], words: str
) -> None:
    run = _run(tmp_path, "gpu00002", **changes)
    if "is_finished" in changes:  # by another process, which is gone
        header = json.loads((run.path / "run.json").read_text())
        (run.path / "run.json").write_text(json.dumps(header | {"pid_start_time": 1}))

    with pytest.raises(ConfigError, match=words):
        act(load_run(run.path), _request(tmp_path))


def test_an_old_run_is_not_acted_on(tmp_path: Path, slurm: StandIn) -> None:
    run = _run(tmp_path, "gpu00002")

    with pytest.raises(ConfigError, match="is 25 h old"):
        act(run, _request(tmp_path), now_ns=run.header.started_ns + 25 * 3600 * 10**9)


def test_a_rule_that_fails_on_more_than_a_tenth_of_the_hosts_stops_everything(
    tmp_path: Path, slurm: StandIn
) -> None:
    bad = [f"gpu{index:05d}" for index in (1, 9, 17, 25, 33)]
    run = _run(tmp_path, *bad, findings=[fails(host, "ecc") for host in bad])

    acted = act(run, _request(tmp_path))

    assert set(_states(acted).values()) == {"held"}
    assert "common cause" in acted[0].step.reason
    assert slurm.drained() == []


def test_no_more_than_two_per_cent_of_a_partition_are_drained_in_an_hour_over_all_calls(
    tmp_path: Path, slurm: StandIn
) -> None:
    first, second = _run(tmp_path, "gpu00002", "gpu00013"), _run(tmp_path, "gpu00022")

    states = [_states(act(run, _request(tmp_path))) for run in (first, second)]

    assert states == [
        {"gpu00002": "done", "gpu00013": "held"},
        {"gpu00002": "nothing", "gpu00022": "held"},
    ]
    assert slurm.drained() == ["gpu00002"]


def test_an_hour_later_the_next_one_may_go(tmp_path: Path, slurm: StandIn) -> None:
    run = _run(tmp_path, "gpu00002", "gpu00013")
    act(run, _request(tmp_path))

    acted = act(run, _request(tmp_path), now_ns=time.time_ns() + 3601 * 10**9)

    assert _states(acted) == {"gpu00002": "nothing", "gpu00013": "done"}


@pytest.mark.parametrize(("nodes", "most"), [(2, 1), (99, 1), (100, 2), (1024, 20)])
def test_the_budget_is_two_per_cent_and_at_least_one(nodes: int, most: int) -> None:
    assert budget(nodes) == most


def test_a_node_that_an_operator_drained_is_left_alone_and_not_given_back(
    tmp_path: Path, slurm: StandIn
) -> None:
    slurm.set({"gpu00002": ("IDLE+DRAIN", "bad fan"), "gpu00003": ("IDLE+DRAIN", "overproof is on leave")})

    acted = act(_run(tmp_path, "gpu00002"), _request(tmp_path))

    assert _states(acted) == {"gpu00002": "nothing"}
    assert slurm.drained() == ["gpu00002", "gpu00003"]
    assert slurm.updates() == []


def test_what_we_drained_is_given_back_once_it_passes_again(tmp_path: Path, slurm: StandIn) -> None:
    act(_run(tmp_path, "gpu00002"), _request(tmp_path))

    acted = act(_run(tmp_path), _request(tmp_path))

    assert [(each.step.action, each.step.host, each.state) for each in acted] == [
        ("undrain", "gpu00002", "done")
    ]
    assert slurm.drained() == []


def test_a_drain_to_which_an_operator_gave_another_reason_is_theirs(tmp_path: Path, slurm: StandIn) -> None:
    act(_run(tmp_path, "gpu00002"), _request(tmp_path))
    slurm.set({"gpu00002": ("IDLE+DRAIN", "waiting for the vendor")})

    acted = act(_run(tmp_path), _request(tmp_path))

    assert _states(acted) == {"gpu00002": "nothing"}
    assert slurm.drained() == ["gpu00002"]


def test_passing_a_shorter_profile_does_not_outweigh_the_failure_of_a_longer_one(
    tmp_path: Path, slurm: StandIn
) -> None:
    act(_run(tmp_path, "gpu00002"), _request(tmp_path))

    acted = act(_run(tmp_path, profile="gate"), _request(tmp_path))

    assert _states(acted) == {"gpu00002": "held"}
    assert slurm.drained() == ["gpu00002"]


def test_an_operator_who_gives_a_node_back_is_respected_until_a_newer_run_fails(
    tmp_path: Path, slurm: StandIn
) -> None:
    run = _run(tmp_path, "gpu00002")
    act(run, _request(tmp_path))
    slurm.set({"gpu00002": ("IDLE", "")})

    again = act(run, _request(tmp_path))
    newer = act(_run(tmp_path, "gpu00002"), _request(tmp_path), now_ns=time.time_ns() + 3601 * 10**9)

    assert _states(again) == {"gpu00002": "nothing"}
    assert _states(newer) == {"gpu00002": "done"}


@pytest.mark.parametrize("name", ["ALL", "gpu[1-9]", "a,b", "", "-x", "a b", "a\nb", "gpu1;reboot"])
def test_a_name_that_may_stand_for_more_than_one_node_is_never_acted_on(name: str) -> None:
    assert not is_safe_name(name)


def test_what_a_finding_says_reaches_slurm_as_one_plain_word(tmp_path: Path, slurm: StandIn) -> None:
    run = _run(tmp_path, "gpu00002", findings=[fails("gpu00002", 'ecc"; reboot; $(x)\n\x1b[2J')])

    act(run, _request(tmp_path))

    ((_, _, _, reason),) = slurm.updates()
    assert not set(reason) & set("\"'`$\\\n\x1b")


def test_a_command_gets_host_and_reason_as_words_of_their_own(tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = (
        sys.executable,
        "-c",
        f"import sys; open({str(told)!r}, 'a').write(repr(sys.argv[1:]))",
        "{host}",
        "{reason}",
    )
    run = _run(tmp_path, "gpu00002")

    acted = act(run, _request(tmp_path, manager="command", command=command))

    assert _states(acted) == {"gpu00002": "done"}
    assert told.read_text().startswith(f"['gpu00002', 'overproof {run.header.id}: host host:gpu00002")


def test_a_command_that_fails_is_said_and_spends_nothing_of_the_budget(tmp_path: Path) -> None:
    run = _run(tmp_path, "gpu00002")
    refused = act(run, _request(tmp_path, manager="command", command=("false", "{host}")))

    done = act(run, _request(tmp_path, manager="command", command=("true", "{host}")))

    assert (_states(refused), outcome_of(refused)) == ({"gpu00002": "failed"}, Outcome.INCONCLUSIVE)
    assert _states(done) == {"gpu00002": "done"}


def test_nothing_is_done_when_the_log_cannot_be_written(tmp_path: Path, slurm: StandIn) -> None:
    with pytest.raises((ConfigError, RecordError)):
        act(_run(tmp_path, "gpu00002"), _request(tmp_path, log=Path("/dev/full")))
    assert slurm.drained() == []


def test_a_damaged_log_stops_acting(tmp_path: Path, slurm: StandIn) -> None:
    (tmp_path / "acting.ndjson").write_text('{"action":"drain","ho\n')

    with pytest.raises(ConfigError, match="1 lines cannot be read"):
        act(_run(tmp_path, "gpu00002"), _request(tmp_path))


def test_the_command_line_drains_and_exits_with_3_where_something_was_held(
    tmp_path: Path, slurm: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run(tmp_path, "gpu00002", "gpu00013")

    code = overproof.run_command(
        ["burnin", "act", str(run.path), "--drain", "slurm", "--log", str(tmp_path / "log"), "--json"]
    )

    assert code == 3
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [(step["host"], step["state"]) for step in steps] == [("gpu00002", "done"), ("gpu00013", "held")]
