"""The second try of CI: it forgives what passes alone, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAKY = """
from pathlib import Path
def test_luck():
    tries = Path("tries")
    tries.touch()
    tries.write_text(tries.read_text() + "x")
    assert len(tries.read_text()) > 1
"""
ENDS_BADLY = """
import pytest
@pytest.fixture(scope="session")
def whole():
    yield
    from pathlib import Path
    assert Path("been").exists() or Path("been").touch()
def test_luck(whole):
    pass
"""


def ci(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Do what CI does with a suite: ``make test``, and after a failure the second try."""
    suite, conftest = folder / "test_it.py", ROOT / "tests" / "conftest.py"
    suite.write_text(tests)
    (folder / "conftest.py").write_text(conftest.read_text().replace('scope="session", autouse=True', ""))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  needs\n  gpu\n  cluster\n")
    (folder / "Makefile").write_text(f"test:\n\t@{sys.executable} -m pytest -q $(ARGS)\n")
    again = f"cd {folder}; make test || PYTHONPATH={ROOT} {sys.executable} -m tests.again test"
    return subprocess.run(["bash", "-c", again], capture_output=True, text=True, timeout=60, check=False)


def test_what_passes_alone_is_told_as_flaky(tmp_path: Path) -> None:
    done = ci(tmp_path, FLAKY)

    assert done.returncode == 0
    assert done.stdout.endswith("make test: FLAKY, passed alone:\n  test_it.py::test_luck\n")


def test_what_fails_twice_stands(tmp_path: Path) -> None:
    done = ci(tmp_path, "def test_it():\n    assert False\n")

    assert done.returncode != 0
    assert "FLAKY" not in done.stdout


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param(ENDS_BADLY, id="the end of a session"),
        pytest.param("".join(f"def test_{i}():\n    assert False\n" for i in range(4)), id="four tests"),
        pytest.param("import nothing_of_that_name\n", id="a file that cannot be read"),
    ],
)
def test_what_may_not_be_forgiven_fails(tests: str, tmp_path: Path) -> None:
    done = ci(tmp_path, tests)

    assert done.returncode != 0
    assert "FLAKY" not in done.stdout


def test_a_process_left_running_is_never_forgiven_along_with_a_flaky_test(tmp_path: Path) -> None:
    leaves = "import subprocess\ndef test_leaves():\n    subprocess.Popen(['sleep', '3'])\n"

    done = ci(tmp_path, FLAKY + leaves)

    assert done.returncode != 0
    assert "left running by a test" in done.stdout
    assert "Not tried again" in done.stdout
