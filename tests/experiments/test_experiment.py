"""Experiment files: what is wrong is said with file, line, key, value and what would be right."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from experiments.experiment import deadline_s, load_experiment
from probes.errors import ConfigError
from probes.slo import Slo, Window

CATALOGUE = Path(__file__).parents[2] / "experiments/catalogue"
SHIPPED = sorted(CATALOGUE.glob("local/*.yaml"))
GOOD = (CATALOGUE / "local/replica-kill.yaml").read_text()


def line_of(text: str, part: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), start=1) if part in line)


def write(folder: Path, text: str) -> Path:
    """Put an experiment where its workload is found from."""
    (folder / "local").mkdir()
    (folder / "workloads").mkdir()
    (folder / "workloads/steady-chat.yaml").write_text("name: x\n")
    path = folder / "local/e.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_experiment_is_sound(path: Path) -> None:
    experiment = load_experiment(path)

    assert experiment.workload.is_file()
    assert set(experiment.slos) == {"before", "during", "after"}
    assert experiment.document["rollbacks"]
    assert experiment.document["runtime"] == {"rollbacks": {"strategy": "always"}}


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("rollbacks:\n  - type", "rollback:\n  - type", "rollback: unknown key; did you mean 'rollbacks'?"),
        ("    steady_s: 10", "    steady: 10", "steady: unknown key; did you mean 'steady_s'?"),
        ("    recovery_s: 15", "    recovery_s: soon", "recovery_s: got 'soon'"),
        ("metric: ttft_ms, statistic: p80", "metric: ttfb, statistic: p80", "metric 'ttfb' is unknown"),
        ("      during:", "      midway:", "slos.midway: unknown key"),
        ("    target: lab", "    target: production", "target: got 'production'; input should be 'lab'"),
        (
            "timeout: 15\n    provider",
            "timeuot: 15\n    provider",
            "timeuot: unknown key; did you mean 'timeout'?",
        ),
        ("  - name: overproof", "  - name: overprof", "one entry named 'overproof' is wanted here"),
        ("type: action\n    name: kill", "type: acton\n    name: kill", "type: got 'acton'"),
    ],
)
def test_a_typo_is_named_with_its_line(right: str, wrong: str, said: str, tmp_path: Path) -> None:
    assert right in GOOD
    text = GOOD.replace(right, wrong, 1)
    path = write(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        load_experiment(path)

    first_line = wrong.splitlines()[0].strip() if "name: overprof" not in wrong else "extensions:"
    assert said in str(caught.value)
    assert f"{path}:" in str(caught.value)
    lines = {int(line.split(":")[1]) for line in str(caught.value).splitlines()}
    assert line_of(text, first_line) in lines


def test_two_promises_of_one_name_cannot_be_told_apart(tmp_path: Path) -> None:
    text = GOOD.replace("{metric: goodput, objective: 0.8}", "{metric: ttft_ms, statistic: p80, bound: 9}")

    with pytest.raises(ConfigError, match="two SLOs are named 'ttft_ms_p80'"):
        load_experiment(write(tmp_path, text))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (
            "module: experiments.actions, func: kill_replica",
            "module: os, func: abort",
            "the lab is the target",
        ),
        (
            "provider: {type: python, module: experiments.actions, func: kill_replica}",
            "provider: {type: process, path: kill}",
            "the lab is the target",
        ),
        ("func: kill_replica", "func: kill_replicas", "Chaos Toolkit refuses it"),
        ("workload: ../workloads/steady-chat.yaml", "workload: nowhere.yaml", "'nowhere.yaml' is no file"),
        ("title: The service outlives one replica\n", "", "title: this key is missing"),
    ],
)
def test_what_cannot_be_run_safely_is_refused(right: str, wrong: str, said: str, tmp_path: Path) -> None:
    assert right in GOOD

    with pytest.raises(ConfigError, match=said):
        load_experiment(write(tmp_path, GOOD.replace(right, wrong, 1)))


def test_a_deadline_is_the_activitys_own_or_its_providers_or_a_minute() -> None:
    assert deadline_s({"timeout": 3, "provider": {"timeout": 4}}) == 3
    assert deadline_s({"provider": {"timeout": 4}}) == 4
    assert deadline_s({"provider": {}}) == 60


def test_the_whole_deadline_covers_every_activity_twice_for_the_hypothesis() -> None:
    experiment = load_experiment(CATALOGUE / "local/replica-kill.yaml")

    assert experiment.chaos_deadline_s == 30 + 2 * (10 + 15) + 15 + 30 + 45


def plain(folder: Path) -> Path:
    """The shipped experiment as one for plain Chaos Toolkit."""
    path = folder / "plain.yaml"
    path.write_text(GOOD[: GOOD.index("extensions:")])
    return path


def test_an_experiment_without_our_extension_has_the_promises_of_the_workload(tmp_path: Path) -> None:
    workload = CATALOGUE.parents[1] / "loadtests/workloads/chat.yaml"
    without = load_experiment(plain(tmp_path))
    judged = load_experiment(plain(tmp_path), workload=workload)

    assert (without.workload, without.slos["during"]) == (None, ())
    assert judged.workload == workload
    assert {slo.metric for slo in judged.slos["after"]} >= {"ttft_ms"}
    assert judged.slos["before"] == judged.slos["during"] == judged.slos["after"]


def test_a_workload_with_several_endpoints_is_refused_before_any_load_starts(tmp_path: Path) -> None:
    path, workload = write(tmp_path, GOOD), tmp_path / "workloads/steady-chat.yaml"
    promise = "slos: [{metric: ttft_ms, statistic: p80, bound: 1}]"
    workload.write_text(f"name: x\n{promise}\nendpoints:\n  - {{name: a}}\n  - {{name: b}}\n")

    with pytest.raises(ConfigError, match=r"steady-chat.yaml:3: endpoints: a game day loads the one"):
        load_experiment(path)
    with pytest.raises(ConfigError, match=r"steady-chat.yaml:3: endpoints: a game day loads the one"):
        load_experiment(plain(tmp_path), workload=workload)


def test_promises_are_wanted_once_and_somewhere(tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("name: x\n")

    with pytest.raises(ConfigError, match="slos: none are there"):
        load_experiment(plain(tmp_path), workload=tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="names a workload already"):
        load_experiment(CATALOGUE / "local/replica-kill.yaml", workload=tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("    guards: [{kind: burn, objective: 0.9, burn_max: 14.4}]\n", "can never be exceeded"),
        (
            "    guards: [{kind: errors, share_max: 0.5}, {kind: errors, share_max: 0.1}]\n",
            "one name: errors",
        ),
        ("    guards: [{kind: probe, probe: {type: action}}]\n", "wanted type: probe, and a tolerance"),
        ("    guards: [{kind: erors, share_max: 0.5}]\n", "errors"),
        ("    window: {days: [monday], timezone: UTC}\n", "'monday' is no day"),
        ("    max_share: 1.5\n", "max_share"),
    ],
)
def test_a_guard_or_bound_that_makes_no_sense_is_named(extra: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("    steady_s: 10\n", "    steady_s: 10\n" + extra))

    with pytest.raises(ConfigError) as refused:
        load_experiment(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_promises_of_a_phase_may_come_from_a_preset_or_an_openslo_file(tmp_path: Path) -> None:
    before = "{metric: ttft_ms, statistic: p80, bound: 2000}"
    assert before in GOOD
    text = GOOD.replace(before, "{openslo: slo.yaml, metrics: {e: e2e_ms in s}}").replace(
        "after:\n", "after:\n        - {preset: agents}\n"
    )
    path = write(tmp_path, text)
    (path.parent / "slo.yaml").write_text(
        "apiVersion: openslo/v1\nkind: SLO\nmetadata: {name: whole}\nspec:\n  budgetingMethod: Timeslices\n"
        "  indicator:\n    metadata: {name: e}\n    spec: {thresholdMetric: {metricSource: {type: x}}}\n"
        "  objectives: [{value: 9, target: 0.9, timeSliceTarget: 0.8, timeSliceWindow: 5s}]\n"
    )

    slos = load_experiment(path).slos

    (whole,) = [slo for slo in slos["during"] if slo.name == "whole"]
    assert (whole.bound, whole.window) == (9000, Window(length_s=5, objective=0.9))
    assert Slo(**asdict(whole)) == whole  # as the record has it
    assert "e2e_ms_p99" in [slo.name for slo in slos["after"]]
