"""What pip installs: built from a tree full of litter, used from elsewhere in an environment of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

from tests.twins.nvml import Scenario, build_twin

ROOT = Path(__file__).parent.parent
SHIPPED = ("burnin", "loadtests", "experiments", "probes", "reports")
# What lies about in a tree that somebody works in, and is nobody else's business.
LITTER = (
    "runs/20261121T000000Z-load-aaaa/run.json",
    "runs/latest/report.html",
    "dist/overproof-0.0.1.tar.gz",
    "site/index.html",
    ".venv/lib/python3.11/site-packages/secret.py",
    ".mypy_cache/missing_stubs",
    "burnin/__pycache__/plan.cpython-311.pyc",
    "reports/.pytest_cache/README.md",
    "keys.env",
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of every file that belongs to the repository, and litter."""
    tree = tmp_path_factory.mktemp("tree")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    for name in LITTER:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("litter")
    return tree


def build(tree: Path, out: Path, *targets: str) -> None:
    wanted = [word for target in targets for word in ("-t", target)]
    command = [sys.executable, "-P", "-m", "hatchling", "build", *wanted, "-d", str(out)]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel; the source distribution lies beside it."""
    out = tmp_path_factory.mktemp("dist")
    build(tree, out, "wheel", "sdist")
    return next(out.glob("*.whl"))


def sources(tree: Path) -> set[str]:
    """Name every file that a user's copy must have."""
    found = {path for folder in SHIPPED for path in (tree / folder).rglob("*") if path.is_file()}
    names = {str(path.relative_to(tree)) for path in found} | {"overproof.py", "overproof_pytest.py"}
    return names - set(LITTER)


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(tree: Path, wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    own = {name for name in names if ".dist-info/" not in name}

    assert own == sources(tree)
    assert {
        "reports/templates/report.html.j2",
        "reports/vendor/uplot/uPlot.iife.min.js",
        "experiments/catalogue/local/replica-kill.yaml",
        "experiments/kube/manifests/dead-man.yaml",
        "experiments/host_agent/__init__.py",
        "loadtests/workloads/demo.yaml",
        "burnin/expectations/h100-sxm.yaml",
    } <= own
    assert sorted(name.partition("/")[2] for name in names if name not in own) == [
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
    ]


def test_the_source_distribution_holds_what_the_wheel_is_built_from_and_the_documents(
    tree: Path, wheel: Path, tmp_path: Path
) -> None:
    with tarfile.open(next(wheel.parent.glob("*.tar.gz"))) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
        archive.extractall(tmp_path, filter="data")
    documents = {name for name in names if name.startswith("docs/")}
    build(next(tmp_path.iterdir()), tmp_path / "again", "wheel")
    again = next((tmp_path / "again").glob("*.whl"))

    assert names - documents == sources(tree) | {
        "README.md",
        "LICENSE",
        "pyproject.toml",
        ".gitignore",
        "PKG-INFO",
    }
    assert "docs/reference.md" in documents
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it, by pip; PyTorch is not there, all it depends on is lent."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home / "env", symlinks=True, with_pip=False)
    python = home / "env" / "bin" / "python"
    lend_dependencies(home / "lent", python)
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*command, "--quiet", str(wheel)], cwd=home, check=True, capture_output=True, timeout=60)
    return home


def lend_dependencies(lent: Path, python: Path) -> None:
    """Link the packages that we run on ourselves into a folder, and name it to another interpreter."""
    own = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.strip()
    lent.mkdir()
    for folder in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(folder).iterdir():
            if not path.name.startswith(("torch", "functorch", "overproof", "_editable", "__pycache__")):
                (lent / path.name).symlink_to(path)
    (Path(own) / "lent.pth").write_text(f"{lent}\n")


def run(
    installed: Path, *arguments: str, timeout_s: float = 60, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the installed command where nothing of ours is, with nothing of ours in the environment."""
    elsewhere = installed / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    marks = {name: value for name, value in os.environ.items() if name.startswith("OVERPROOF_TEST")}
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(elsewhere), "LANG": "C.UTF-8"} | marks | more
    return subprocess.run(
        [str(installed / "env" / "bin" / "overproof"), *arguments],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_an_installed_overproof_tells_the_versions_of_what_it_runs_on(installed: Path) -> None:
    done = run(installed, "version", "--json")
    document = json.loads(done.stdout)

    assert done.returncode == 0, done.stderr
    assert document["schema_version"] == 1
    assert document["versions"]["python"] == sys.version.split()[0]
    assert document["versions"]["kernel"] == os.uname().release
    assert {"overproof", "locust", "duckdb", "nvidia-ml-py", "kubernetes"} <= set(document["versions"])
    assert not {"hatchling", "pytest"} & (set(document["versions"]) | set(document["absent"]))
    assert document["absent"]["torch"].startswith("not installed")


@pytest.mark.needs("gcc")
def test_the_version_of_the_driver_is_what_nvml_says(installed: Path, tmp_path: Path) -> None:
    twin = build_twin(tmp_path)
    scenario = Scenario(tmp_path / "scenario")
    scenario.set(gpus=1)
    there = json.loads(run(installed, "version", "--json", **scenario.environment(twin)).stdout)
    none = json.loads(run(installed, "version", "--json", LD_LIBRARY_PATH="/nonexistent").stdout)

    assert there["versions"]["driver"] == "580.82.07"
    assert "driver" not in none["versions"]
    assert "not found" in none["absent"]["driver"].lower()


def test_an_installed_overproof_has_its_catalogue_and_its_help(installed: Path) -> None:
    catalogue = run(installed, "gameday", "catalogue", "--json")
    help_text = run(installed, "--help")

    assert catalogue.returncode == help_text.returncode == 0, catalogue.stderr
    assert "replica-kill" in catalogue.stdout
    assert "lent" not in catalogue.stdout  # no file is taken from elsewhere
    assert "burnin" in help_text.stdout


def test_an_installed_overproof_runs_a_load_test_and_shows_it(installed: Path) -> None:
    done = run(installed, "load", "run", "demo", "--duration-s", "4", timeout_s=110)
    record = Path(done.stdout.splitlines()[-1])

    assert done.returncode in (0, 3), done.stderr  # 4 s decide little, and a busy machine nothing
    assert record.parent == installed / "elsewhere" / "runs"
    assert (record / "report.html").stat().st_size > 50_000
    assert len(list((record / "requests").glob("*.parquet"))) >= 1
    assert json.loads((record / "run.json").read_text())["versions"].get("torch") is None


@pytest.mark.parametrize("command", [["burnin", "run"], ["lab", "train", "up"]])
def test_without_pytorch_what_needs_it_says_so_in_one_line(installed: Path, command: list[str]) -> None:
    done = run(installed, *command)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "needs torch: pip install 'overproof[burnin]'" in done.stderr


PROMPT = "ready>"


def type_into(shell: str, steps: list[tuple[str, str]], environment: dict[str, str]) -> str:
    """Start a shell at a terminal, type each text once another is shown, and return all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(shell, [shell, "-i"], environment)
    shown = ""
    try:
        for awaited, keys in steps:
            shown += _read_until(terminal, awaited)
            os.write(terminal, keys.encode())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    return shown


def _read_until(terminal: int, awaited: str) -> str:
    shown, deadline = "", time.monotonic() + 40
    while awaited not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
    return shown


@pytest.mark.parametrize(
    "shell",
    [
        pytest.param("bash", marks=pytest.mark.needs("bash")),
        pytest.param("zsh", marks=pytest.mark.needs("zsh")),
    ],
)
def test_a_shell_completes_our_commands_once_completion_is_installed(
    installed: Path, tmp_path: Path, shell: str
) -> None:
    environment = {
        "PATH": f"{installed / 'env' / 'bin'}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "LANG": "C.UTF-8",
    }
    setup = subprocess.run(
        [shell, "-c", "overproof --install-completion; true"],  # not the last, or the shell makes way for it
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    with (tmp_path / f".{shell}rc").open("a") as rc:
        rc.write(f"PS1='{PROMPT}'\n")
    steps = [
        (PROMPT, "overproof \t\x15overproof gamed\t"),  # zsh only loads what completes at the first one
        ("gameday ", "catal\t"),
        ("catalogue ", "--help\r"),
        ("who heals it", ""),
    ]
    shown = type_into(shell, steps, environment)

    assert f"{shell} completion installed" in setup.stdout, setup.stderr
    assert "Usage: overproof gameday catalogue" in shown
