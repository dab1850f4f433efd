"""The image of the Containerfile, built in a folder by its very commands, without a container engine."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
LINES = (PROJECT / "Containerfile").read_text().splitlines()


def steps(word: str) -> list[str]:
    """Return what follows a word of the Containerfile, in order."""
    return [line.removeprefix(f"{word} ") for line in LINES if line.startswith(f"{word} ")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that stands for the image, after every RUN."""
    root = tmp_path_factory.mktemp("image")
    listed = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (PROJECT / name).exists():  # somebody may be about to rename it
            (root / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, root / "src" / name)
    subprocess.run([sys.executable, "-m", "venv", root / "usr"], check=True)
    (library,) = (root / "usr/lib").glob("python*/site-packages")
    (library / "ours.pth").write_text("\n".join(site.getsitepackages()))  # what an index would give
    _run(root, steps("RUN")[:1])
    shutil.copyfile(PROJECT / "constraints.txt", root / "wheels/constraints.txt")
    _run(root, steps("RUN")[1:])
    return root


def _run(root: Path, commands: list[str]) -> None:
    for command in commands:
        for place in ("/wheels", "/src", "/runs"):
            command = command.replace(f" {place}", f" {root}{place}")
        settings = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        path = f"{root}/usr/bin:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", command],
            env=os.environ | settings | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-1000:]} {done.stderr[-1000:]}"


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder is given to another user")
def test_the_entry_point_runs_what_was_installed_and_not_the_sources(root: Path) -> None:
    (entry,) = steps("ENTRYPOINT")

    words = [f"{root}/usr/bin/overproof", "gameday", "catalogue"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    python = [f"{root}/usr/bin/python3", "-c", "import experiments; print(experiments.__file__)"]
    where = subprocess.run(python, cwd="/", capture_output=True, text=True, timeout=60, check=False)

    assert entry == '["overproof"]'
    assert done.returncode == 0, done.stderr
    assert "pod-kill" in done.stdout
    assert where.stdout.startswith(f"{root}/usr/lib/")
    assert not (root / "wheels").exists()
    assert (root / "runs").stat().st_uid == 10001


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder is given to another user")
def test_manifests_and_catalogue_are_in_the_image(root: Path) -> None:
    (library,) = (root / "usr/lib").glob("python*/site-packages")

    for name in (
        "experiments/kube/manifests/run/day.yaml",
        "experiments/catalogue/workloads/steady-chat.yaml",
    ):
        assert (library / name).is_file()


def test_what_is_copied_is_there_and_what_is_ignored_would_only_be_in_the_way() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().split()

    assert (PROJECT / "constraints.txt").is_file()
    assert {".venv", ".git", "runs"} <= set(ignored)
