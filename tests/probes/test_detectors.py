"""Every rule of the reference says what it can find, or that it finds nothing of ours; none is made up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from burnin.rules.controls import DETECTORS
from probes.detectors import FILE, IN_SERVICE, detectors, load_detectors
from probes.errors import ConfigError
from probes.finding import Finding
from probes.outcome import Outcome

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")


def rules_of(title: str) -> set[str]:
    """The rules of the first table under a heading of the reference."""
    section = REFERENCE.split(f"\n### {title}\n")[1]
    table = section.split("| rule | passes when |\n|---|---|\n")[1].split("\n\n")[0]
    cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize("job", detectors().jobs.values(), ids=lambda job: job.title)
def test_the_rules_of_the_reference_and_those_that_are_declared_are_the_same(job) -> None:  # type: ignore[no-untyped-def]
    assert rules_of(job.title) == job.rules


def test_every_heading_with_rules_is_declared() -> None:
    headings = re.findall(r"\n### ([^\n]+)\n(?:(?!\n### ).)*?\| rule \| passes when \|", REFERENCE, re.DOTALL)

    assert set(headings) == {job.title for job in detectors().jobs.values()}


def test_every_seed_of_a_burn_in_is_declared() -> None:
    seeds = {f"{stage}: {name}" for stage, names in DETECTORS.items() for name in names}

    assert set(detectors().jobs["burnin"].seeds) == seeds


def test_a_link_of_a_gpu_is_not_shown_on_cores() -> None:
    seeds = detectors().jobs["burnin"].seeds

    assert seeds["links: bit flip in a received buffer"] == {"gpu": ("nvlink",), "cores": ()}
    assert all("gpu-memory" not in on["cores"] for on in seeds.values())


def finding(rule: str, outcome: Outcome) -> Finding:
    return Finding(rule=rule, subject="endpoint:x", outcome=outcome, observed="", expected="")


def test_wrong_answers_are_not_found_by_whoever_notices_a_restart() -> None:
    job = detectors().jobs["gameday"]

    assert not job.has_found(finding("detection", Outcome.PASS), "wrong-answers")
    assert not job.has_found(finding("replica-answers", Outcome.PASS), "wrong-answers")
    assert job.has_found(finding("replica-answers", Outcome.FAIL), "wrong-answers")
    assert job.has_found(finding("detection", Outcome.PASS), "hang")
    assert not job.has_found(finding("detection", Outcome.INCONCLUSIVE), "hang")


def test_a_gpus_own_faults_are_found_at_acceptance_only() -> None:
    in_service = {found.category for found in detectors().all() if found.when == IN_SERVICE}

    assert in_service & {"gpu-lost", "gpu-memory", "gpu-sram", "gpu-system-processor", "nvlink"} == set()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda jobs: jobs["burnin"]["detects"].update(ecc={"gpu-memroy": "x"}), "no such category: gpu-mem"),
        (lambda jobs: jobs["burnin"]["nothing"].append("ecc"), "something and nothing: ecc"),
        (lambda jobs: jobs["gameday"].update(by_pass=["detektion"]), "no rule of this job: detektion"),
    ],
)
def test_a_declaration_that_is_not_right_is_refused(tmp_path: Path, change: object, said: str) -> None:
    document = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    change(document["jobs"])  # type: ignore[operator]
    path = tmp_path / "detectors.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")

    with pytest.raises(ConfigError, match=said):
        load_detectors(path)
