"""Each command of the how-to pages, run as it stands, or named here with the reason why it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documented import DOCS, copy_of_repository, follow, steps_of, told

PAGES = sorted((DOCS / "howto").glob("*.md"))
SSH = "needs hosts over SSH; tests/burnin/fleet/test_ssh_fleet.py runs fleets over a real sshd"
SLURM = "needs Slurm; tests/burnin/fleet/launchers and test_acting_slurm.py run it on a real one"
CLUSTER = "needs a Kubernetes cluster; tests/cluster runs these days on a real one"
STAGING = "needs a service of yours; tests/test_tutorial.py does the same with the simulated endpoint"
# What the hardware or the site is missing for. Each line stands on a page just like this.
NOT_RUN = {
    ("accept-a-rack", "overproof burnin run rack.yaml --profile quick"): SSH,
    ("accept-a-rack", "overproof burnin run rack.yaml --profile intake"): SSH,
    (
        "accept-a-rack",
        "overproof burnin certify runs/latest",
    ): "a fleet that is simulated gets no certificates",
    ("accept-a-rack", "overproof burnin act runs/latest --drain slurm --dry-run"): SLURM,
    ("gate-a-release", "overproof load run gate.yaml --endpoint http://staging:8000"): STAGING,
    ("gate-a-release", "overproof baseline runs/2*-load-* --out baselines/gate.json"): (
        "needs runs of a service of yours; tests/test_ci_files.py runs this very line"
    ),
    ("gate-a-release", "overproof load find-max gate.yaml --endpoint http://staging:8000 --within-s 600"): (
        "takes minutes; tests/loadtests/test_find_max.py searches on the simulated endpoint"
    ),
    ("game-day-on-staging", "kubectl apply -f experiments/kube/manifests/"): CLUSTER,
    ("game-day-on-staging", "kubectl label namespace inference overproof.dev/gameday=allowed"): CLUSTER,
    ("game-day-on-staging", "kubectl label node gpu-2 overproof.dev/gameday=allowed"): CLUSTER,
    ("game-day-on-staging", "overproof gameday plan my-day.yaml"): CLUSTER,
    ("game-day-on-staging", "overproof gameday run my-day.yaml --plan 2144558cf15c"): CLUSTER,
    ("add-a-gpu-model", "nvidia-smi --query-gpu=name --format=csv,noheader"): "needs an NVIDIA GPU",
    ("run-on-slurm", "overproof burnin run slurm.yaml --profile intake"): SLURM,
    ("run-on-slurm", "overproof burnin gate --device cpu --out gate-runs --within-s 120"): (
        "takes a minute; tests/burnin/test_gate.py and tests/burnin/fleet/test_gate_slurm.py run it"
    ),
    ("run-on-slurm", "overproof burnin act runs/latest --drain slurm --dry-run"): SLURM,
    ("run-on-slurm", "overproof burnin act runs/latest --drain slurm"): SLURM,
}


def without(page: Path) -> set[str]:
    return {line for name, line in NOT_RUN if name == page.stem}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_how_to_work_and_show_what_it_says(page: Path, tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    folder = copy_of_repository(tmp_path / "clone")

    done = follow(steps_of(page.read_text(encoding="utf-8")), folder, without=without(page), timeout_s=180)

    assert done
    difference = next((one for one in done if not one.is_as_shown), None)
    assert difference is None, told(page, difference)


def test_only_lines_that_stand_on_a_page_are_left_out_and_never_all_of_a_page() -> None:
    lines = {
        page.stem: [
            line.strip()
            for s in steps_of(page.read_text())
            for line in s.commands.splitlines()
            if line.strip()
        ]
        for page in PAGES
    }

    assert [left_out for left_out in NOT_RUN if left_out[1] not in lines[left_out[0]]] == []
    assert [page.stem for page in PAGES if {*lines[page.stem]} <= without(page)] == []


def test_each_test_that_a_reason_names_is_there() -> None:
    root = DOCS.parent
    named = {
        word.rstrip(";,")
        for reason in NOT_RUN.values()
        for word in reason.split()
        if word.startswith("tests/")
    }

    assert named
    assert [name for name in sorted(named) if not (root / name).exists()] == []
