"""A rehearsal: a fleet that does not exist, through the same record, isolation, judging and report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnin.fleet.fleet_json import fleet_from_json
from burnin.fleet.judging import judge_run
from burnin.fleet.network.record import read_results, result_to_rows
from burnin.fleet.network.stage import read_outcome
from burnin.fleet.simulation.run import run_simulation
from overproof import run_command
from probes.errors import ConfigError
from probes.outcome import Outcome
from reports.run import Run


def _run(
    out: Path, hosts: int = 96, *, text: str | None = None, is_healthy: bool = False, seed: int = 7
) -> Run:
    file = None
    if text is not None:
        file = out / "faults.yaml"
        file.write_text(text, encoding="utf-8")
    return run_simulation(
        hosts,
        profile="quick",
        seed=seed,
        out=out / "runs",
        is_quiet=True,
        faults_file=file,
        is_healthy=is_healthy,
    )


def _failed(run: Run) -> set[str]:
    return {f.subject for f in run.findings if f.outcome is Outcome.FAIL and f.rule == "network"}


def test_a_healthy_simulated_fleet_passes_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    run = _run(tmp_path, is_healthy=True)

    assert run.outcome is Outcome.PASS
    assert run.header.spec["simulated"] is True
    assert any("SIMULATED" in f.observed for f in run.findings)
    assert (run.path / "report.html").exists()


def test_the_faults_of_a_file_are_found_and_nothing_else(tmp_path: Path) -> None:
    text = """
faults:
  - {kind: slow nic, hosts: [sim0005], rail: 3, speed: 0.7}
  - {kind: wrong results, hosts: [sim0040], rail: 2}
  - {kind: dead host, hosts: [sim0070]}
"""
    run = _run(tmp_path, text=text)

    assert _failed(run) == {"nic:sim0005/3", "host:sim0040"}
    untested = next(f for f in run.findings if f.subject.endswith("/hosts"))
    assert (untested.outcome, untested.evidence["hosts"]) == (Outcome.INCONCLUSIVE, ["sim0070"])
    digest = [f for f in run.findings if f.rule == "fleet-digest" and f.outcome is Outcome.FAIL]
    assert len(digest) == 1


def test_the_record_alone_gives_the_same_conclusion_again(tmp_path: Path) -> None:
    run = _run(tmp_path, text="faults: [{kind: slow gpu, hosts: [sim0005], speed: 0.6}]")
    fleet = fleet_from_json(run.header.spec["fleet"])

    outcome = read_outcome(run, fleet)
    again = [f for f in judge_run(run) if f.rule.startswith("network")]

    assert outcome is not None
    assert [a.subject for a in outcome.attributions] == ["host:sim0005"]
    assert again == [f for f in run.findings if f.rule.startswith("network")]


def test_what_is_written_of_a_trial_is_read_back(tmp_path: Path) -> None:
    run = _run(tmp_path, text="faults: [{kind: hang, hosts: [sim0005]}]")

    results = read_results(run)

    assert {result.state for result in results.values()} == {"done", "hung"}
    for result in results.values():
        rows = list(result_to_rows(result))
        assert len(rows) == max(1, len(result.sweeps))
        assert rows[0]["hosts"] == list(result.trial.hosts)


def test_the_same_seed_rehearses_the_same_fleet(tmp_path: Path) -> None:
    first, second = _run(tmp_path / "a", seed=11, hosts=64), _run(tmp_path / "b", seed=11, hosts=64)

    assert first.header.spec["faults"] == second.header.spec["faults"]
    assert _failed(first) == _failed(second)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "faults: [{kind: slow nic, hosts: [sim9999], rail: 3}]",
            "'sim9999'; the hosts are sim0001 to sim0096",
        ),
        ("faults: [{kind: slow nic, hosts: [sim0001], rail: 8}]", "got 8; rails go from 0 to 7"),
        ("faults: [{kind: slow pair, hosts: [sim0001]}]", "needs 2 in hosts"),
        ("faults: [{kind: gremlin}]", "faults.0.kind: got 'gremlin'"),
    ],
)
def test_a_wrong_file_of_faults_is_refused(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _run(tmp_path, text=text)

    assert error in str(caught.value)


def test_the_command_line_rehearses_and_judges_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run_command(
        ["burnin", "run", "--simulate", "64", "--simulate-healthy", "--out", str(tmp_path), "--json"]
    )
    told = json.loads(capsys.readouterr().out)
    again = run_command(["judge", str(next(tmp_path.glob("*-fleet-*"))), "--json"])

    assert (code, again) == (0, 0)
    assert told["outcome"] == "pass"


def test_a_rehearsal_takes_no_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_command(["burnin", "run", "fleet.yaml", "--simulate", "64", "--out", str(tmp_path)])

    assert code == 2
    assert "--simulate" in capsys.readouterr().err
