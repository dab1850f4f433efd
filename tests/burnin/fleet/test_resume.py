"""Going on with a fleet's run: what is kept, what goes aside, and what is no run to go on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnin.fleet.fleet_json import fleet_from_json, fleet_to_json
from burnin.fleet.host import Access, Expected, Fleet, Host, Place, PowerCap
from burnin.fleet.resume import set_aside
from overproof import run_command
from reports.record import RunWriter, create_run
from reports.run import FINISHED, load_run

FLEET = Fleet(
    name="f",
    hosts=(
        Host(
            name="done",
            access=Access(wrapper=("docker", "run"), port=22),
            place=Place(rack="r", rails=("a", "b")),
            expected=Expected(gpus=8),
            permission="listed",
        ),
        Host(name="cut"),
        Host(name="lost"),
        Host(name="never"),
    ),
    power_caps=(PowerCap(kind="rack", name="r", watts=1.5),),
    expected_versions={"driver": "580"},
)


def _host_run(fleet_run: RunWriter, name: str, *kinds: str) -> None:
    path = fleet_run.path / "hosts" / name
    with create_run(
        path.parent, kind="burnin", spec={}, seed=1, is_child=True, path=path, host=name
    ) as writer:
        for kind in kinds:
            writer.event("controller" if kind == FINISHED else "agent", kind)


def test_a_fleet_comes_back_from_the_record_as_it_was() -> None:
    assert fleet_from_json(json.loads(json.dumps(fleet_to_json(FLEET)))) == FLEET


def test_hosts_that_finished_are_kept_and_all_else_goes_aside(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="fleet", spec={}, seed=1) as writer:
        writer.sample("host", {"host": "done"})
        _host_run(writer, "done", "agent.finished", FINISHED)
        _host_run(writer, "cut", "agent.started")
        _host_run(writer, "lost", "agent.lost", FINISHED)
    kept = set_aside(load_run(writer.path), FLEET)

    assert set(kept) == {"done"}
    assert [path.name for path in (writer.path / "hosts").iterdir()] == ["done"]
    aside = writer.path / "attempts" / "1"
    assert {path.name for path in (aside / "hosts").iterdir()} == {"cut", "lost"}
    assert (aside / "series" / "host.ndjson").exists()
    assert list((writer.path / "series").iterdir()) == []
    assert set(set_aside(load_run(writer.path), FLEET)) == {"done"}


def test_what_is_no_run_of_a_fleet_cannot_be_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with create_run(tmp_path, kind="burnin", spec={}, seed=1) as burnin:
        pass
    with create_run(tmp_path, kind="fleet", spec={}, seed=1) as running:
        pass
    for arguments, said in (
        ([str(tmp_path / "none")], "not a run folder"),
        ([str(burnin.path)], "is a burnin run; only a fleet's can be resumed"),
        ([str(running.path)], "is still running, as pid"),
        ([str(running.path), "fleet.yaml"], "the run knows its fleet"),
    ):
        assert run_command(["burnin", "run", "--resume", *arguments]) == 2
        assert said in capsys.readouterr().err
