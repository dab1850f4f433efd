"""What all tests share: programs they need, and the rule that nothing is left running."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.again import STANDS

# Carried by every process that a test starts, however far down, so that leftovers can be found.
_MARK = "OVERPROOF_TEST_SESSION"
_SESSION = secrets.token_hex(8)
_PACKAGES = {
    "sshd": "openssh-server",
    "srun": "slurm-client",
    "munged": "munge",
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "promtool": "prometheus",
    "dockerd": "docker.io",
}
_CLUSTER = "the Kubernetes cluster of make test-cluster"
_NEEDS = "needs "  # begins the reason of a skip
_TORN_DOWN: list[str] = []  # tests at whose end something went wrong, be it theirs or the session's


def pytest_configure(config: pytest.Config) -> None:
    # How long one example takes says how busy the machine is, not whether the code is right.
    settings.register_profile("any machine", deadline=None)
    settings.load_profile("any machine")
    # Workers of pytest-xdist carry the mark of the session that has started them: it looks when all are done.
    if not is_worker(config):
        os.environ[_MARK] = _SESSION


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs a share of the tests for another one."""
    return hasattr(config, "workerinput")


def _is_there(program: str) -> bool:
    if program == "root":
        return os.geteuid() == 0
    if program.startswith("foreign-server/"):  # set up beside ours, in an environment of its own
        return (Path(sys.prefix) / program).exists()
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def _missing(item: pytest.Item) -> str | None:
    """Return what the test needs and this machine lacks."""
    if item.get_closest_marker("gpu") and not Path("/dev/nvidiactl").exists():
        return "an NVIDIA GPU"
    if item.get_closest_marker("cluster") and "OVERPROOF_TEST_KUBECONFIG" not in os.environ:
        return _CLUSTER
    wanted = [str(program) for mark in item.iter_markers("needs") for program in mark.args]
    return next((program for program in wanted if not _is_there(program)), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = _missing(item)
    if missing is None:
        return
    if os.environ.get("CI") == "true" and missing not in ("an NVIDIA GPU", _CLUSTER):
        pytest.fail(f"needs {missing}, which the set-up should have installed", pytrace=False)
    pytest.skip(f"{_NEEDS}{missing}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", ()):  # of this process or of its workers
        _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, "")
        if reason.startswith(f"Skipped: {_NEEDS}"):
            left_out[reason.partition(_NEEDS)[2]].append(report.nodeid)
    for missing, tests in sorted(left_out.items()):
        package = "" if missing == _CLUSTER else f" (Debian: {_PACKAGES.get(missing, missing)})"
        terminalreporter.line(f"left out on this machine: {len(tests)} tests need {missing}{package}")


@pytest.fixture(scope="session", autouse=True)
def _results_keep_their_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hold the result of every run that a test has made, of whatever kind, against the published schema."""
    yield
    from tests.reports.results import complaints_under

    assert complaints_under(tmp_path_factory.getbasetemp()) == {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown" and report.failed:
        _TORN_DOWN.append(f"teardown of {report.nodeid}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_worker(session.config):
        return
    leftovers = [f"left running by a test: pid {pid}: {command}" for pid, command in _leftovers()]
    for line in leftovers:
        print(f"\n{line}")  # noqa: T201
    if leftovers:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if (cache := getattr(session.config, "cache", None)) is not None and (stands := leftovers + _TORN_DOWN):
        cache.set(STANDS, [*cache.get(STANDS, []), *stands])


def _leftovers() -> list[tuple[int, str]]:
    """Return the processes that carry this session's mark and are not this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            if pid != os.getpid() and f"{_MARK}={_SESSION}".encode() in (folder / "environ").read_bytes():
                found.append((pid, (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]))
        except OSError:
            continue  # it ended meanwhile, or is not ours to look at
    return found
