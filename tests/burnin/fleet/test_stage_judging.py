"""Cables and training as they stand in the record of a fleet's run, judged from it alone."""

from __future__ import annotations

from pathlib import Path

from burnin.fleet.archive import build_archive
from burnin.fleet.host import Access, Fleet, Host, Place
from burnin.fleet.launchers.local import LocalLauncher
from burnin.fleet.network.cabling_run import record_cabling
from burnin.fleet.stage_judging import judge_stages
from burnin.fleet.training import TRAINING
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import load_run

HOSTS = tuple(
    Host(name=name, access=Access(launcher="local"), place=Place(rails=("leaf-0", "leaf-1"))) for name in "ab"
)
FLEET = Fleet(name="f", hosts=(*HOSTS, Host(name="c", access=Access(launcher="local"))))


def test_hosts_with_a_plan_are_asked_and_one_that_sees_nothing_is_undecided(tmp_path: Path) -> None:
    writer, launcher = create_run(tmp_path, kind="fleet", spec={}, seed=1), LocalLauncher()
    record_cabling(writer, FLEET.hosts, lambda host: launcher, build_archive())
    launcher.close()

    found = judge_stages(load_run(writer.path), FLEET)

    assert {(f.rule, f.subject, f.outcome) for f in found} == {
        ("cabling", "host:a", Outcome.INCONCLUSIVE),
        ("cabling", "host:b", Outcome.INCONCLUSIVE),
    }


def _told(*switches: str) -> JsonObject:
    adapters = [
        {"adapter": f"mlx5_{number}", "port": 1, "guid": f"00{number}", "interfaces": []}
        for number in range(len(switches))
    ]
    links = {f"00{number}/1": [switch, "7"] for number, switch in enumerate(switches)}
    return {"told": {"adapters": adapters}, "links": links}


def test_what_passed_is_one_finding_and_what_failed_is_named(tmp_path: Path) -> None:
    writer = create_run(tmp_path, kind="fleet", spec={}, seed=1)
    third = Host(name="d", place=Place(rails=("leaf-0", "leaf-1")))
    for name in "ab":
        writer.event("network", "net.cabling", subject=name, **_told("leaf-0", "leaf-1"))
    writer.event("network", "net.cabling", subject="d", **_told("leaf-1", "leaf-0"))

    found = judge_stages(load_run(writer.path), Fleet(name="f", hosts=(*HOSTS, third)))

    assert {(f.subject, f.outcome) for f in found} == {
        ("host:d", Outcome.FAIL),
        ("fleet:f", Outcome.PASS),
    }
    assert found[1].observed == "2 hosts alike; a: 2 adapters end where they should"


def test_a_training_step_is_judged_from_its_event_and_its_rows(tmp_path: Path) -> None:
    writer = create_run(tmp_path, kind="fleet", spec={}, seed=1)
    writer.event("controller", TRAINING, hosts=["a", "b"], state="lost", blamed=["b"], detail="", seconds=3.0)

    found = judge_stages(load_run(writer.path), FLEET)

    assert ("training-end", "host:b", Outcome.FAIL) in {(f.rule, f.subject, f.outcome) for f in found}


def test_training_that_was_asked_for_and_never_ended_is_undecided(tmp_path: Path) -> None:
    writer = create_run(tmp_path, kind="fleet", spec={"together": {"train": True}}, seed=1)

    (finding,) = judge_stages(load_run(writer.path), FLEET)

    assert (finding.rule, finding.outcome) == ("training-end", Outcome.INCONCLUSIVE)


def test_a_run_without_these_stages_has_no_such_findings(tmp_path: Path) -> None:
    writer = create_run(tmp_path, kind="fleet", spec={}, seed=1)

    assert judge_stages(load_run(writer.path), FLEET) == []
