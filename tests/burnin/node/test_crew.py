"""A child that does not end is stuck in the kernel only when the kernel has had its time to end it."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from burnin.node import crew
from burnin.node.crew import Crew, Member
from burnin.node.speaker import Speaker
from burnin.node.stall import Sign
from probes.child import start_child

FREEZER = Path("/sys/fs/cgroup/freezer")
pytestmark = [
    pytest.mark.needs("root"),
    pytest.mark.skipif(not (FREEZER / "cgroup.procs").exists(), reason="needs a freezer of cgroup v1"),
]


class Frozen:
    """A child that no signal ends, SIGKILL neither, before it is thawed."""

    def __init__(self) -> None:
        self.process = start_child(["sleep", "60"])
        self._folder = FREEZER / f"overproof-{secrets.token_hex(4)}"
        self._folder.mkdir()
        (self._folder / "cgroup.procs").write_text(str(self.process.pid))
        (self._folder / "freezer.state").write_text("FROZEN")

    def thaw(self) -> None:
        """Let it go on, and so end."""
        (self._folder / "freezer.state").write_text("THAWED")

    def remove(self) -> None:
        """Leave nothing behind."""
        self.thaw()
        self.process.kill()
        self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._folder.rmdir()


@pytest.fixture
def frozen() -> Iterator[Frozen]:
    found = Frozen()
    yield found
    found.remove()


def _end(frozen: Frozen) -> None:
    Crew(Speaker("agent")).end(Member(name="sampler", process=frozen.process, sign=Sign(device="sampler")))


def test_a_child_that_the_kernel_ends_after_seconds_is_not_stuck(
    frozen: Frozen, capfd: pytest.CaptureFixture[str]
) -> None:
    timer = threading.Timer(4, frozen.thaw)  # SIGKILL has come after one second
    timer.start()

    _end(frozen)

    timer.join()
    assert "process.stuck" not in capfd.readouterr().out


def test_a_child_that_the_kernel_does_not_end_is_named(
    frozen: Frozen, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "END_GRACE_S", 0.1)
    monkeypatch.setattr(crew, "STUCK_GRACE_S", 0.2)

    _end(frozen)

    assert f'"pid":{frozen.process.pid}' in capfd.readouterr().out
