"""Children that cannot outlive us, met as real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from probes.child import (
    end_child,
    is_alive,
    process_start_time,
    process_state,
    python_module,
    start_child,
    wait_until,
)

LISTENER = "import os; from probes.child import watch_lifeline; watch_lifeline(lambda: os._exit(7)).join()"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""
FAMILY = f"""
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
children = [subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], stdout=subprocess.PIPE) for _ in range(2)]
for child in children: child.stdout.readline()
print(*[child.pid for child in children], flush=True)
time.sleep(60)
"""
PARENT = f"""
import sys, time
from probes.child import start_child
child = start_child([sys.executable, "-P", "-c", {LISTENER!r}])
print(child.pid, flush=True)
time.sleep(60)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-P", "-c", code]


def first_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def is_gone(pid: int) -> bool:
    return process_start_time(pid) is None


def test_a_child_leaves_when_its_parent_was_killed_with_kill_9() -> None:
    parent = subprocess.Popen(python(PARENT), stdout=subprocess.PIPE, text=True)
    child_pid = int(first_line(parent))
    assert not is_gone(child_pid)

    parent.kill()
    parent.communicate(timeout=10)

    assert wait_until(lambda: is_gone(child_pid), timeout_s=10)


def test_a_child_that_ignores_sigterm_goes_with_its_grandchildren() -> None:
    child = start_child(python(FAMILY))
    pids = [child.pid, *map(int, first_line(child).split())]

    has_gone = end_child(child, grace_s=0.3)

    assert has_gone
    assert [pid for pid in pids if not is_gone(pid)] == []
    assert child.returncode == -signal.SIGKILL
    assert child.stdout is not None
    child.stdout.close()


def test_grandchildren_are_ended_also_when_the_child_is_long_dead() -> None:
    child = start_child(python(FAMILY))
    grandchildren = list(map(int, first_line(child).split()))
    os.kill(child.pid, signal.SIGKILL)
    child.wait(timeout=10)
    assert not any(map(is_gone, grandchildren))

    has_gone = end_child(child, grace_s=2)

    assert has_gone
    assert all(map(is_gone, grandchildren))
    assert child.stdout is not None
    child.stdout.close()


def test_a_polite_child_leaves_by_its_lifeline_and_is_not_killed() -> None:
    child = start_child(python(LISTENER), stdout=None)

    assert end_child(child, grace_s=10)
    assert child.returncode in (7, -signal.SIGTERM)  # whichever of lifeline and SIGTERM it met first


def test_ending_a_child_twice_is_harmless() -> None:
    child = start_child(python("pass"), stdout=None)
    child.wait(timeout=10)

    assert end_child(child)
    assert end_child(child)


def test_a_ctrl_c_in_the_terminal_reaches_only_the_parent() -> None:
    child = start_child(python("import os; print(os.getsid(0) == os.getpid(), flush=True)"))

    assert first_line(child) == "True"
    assert end_child(child)
    assert child.stdout is not None
    child.stdout.close()


def test_our_modules_start_in_a_folder_full_of_look_alikes(tmp_path: Path) -> None:
    (tmp_path / "probes.py").write_text("raise RuntimeError('someone else’s file')\n")
    (tmp_path / "json.py").write_text("raise RuntimeError('someone else’s file')\n")

    done = subprocess.run(
        python_module("probes.child"), cwd=tmp_path, capture_output=True, text=True, timeout=20
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_is_named_by_pid_and_start_time_together() -> None:
    start_time = process_start_time(os.getpid())

    assert start_time is not None
    assert is_alive(os.getpid(), start_time)
    assert not is_alive(os.getpid(), start_time + 1)
    assert not is_alive(os.getpid(), None)


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(python("pass"))

    assert wait_until(lambda: process_start_time(child.pid) is None, timeout_s=10)
    assert Path(f"/proc/{child.pid}").exists()  # nobody has collected it yet
    child.wait(timeout=10)


def test_a_process_whose_first_thread_has_ended_is_alive_until_its_last_one_has() -> None:
    end_the_first_thread = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    child = subprocess.Popen(python(end_the_first_thread), start_new_session=True)

    assert wait_until(lambda: process_state(child.pid) == "Z", timeout_s=20)
    assert process_start_time(child.pid) is not None
    child.kill()
    assert wait_until(lambda: process_start_time(child.pid) is None, timeout_s=10)
    child.wait(timeout=10)


def test_a_name_full_of_brackets_and_bytes_does_not_hide_a_process(tmp_path: Path) -> None:
    program = tmp_path / ") R 1 1"
    program.symlink_to(sys.executable)
    child = subprocess.Popen([program, "-S", "-E", "-c", "import time; time.sleep(30)"])

    assert process_start_time(child.pid) is not None
    child.kill()
    child.wait(timeout=10)


@pytest.mark.parametrize(
    ("holds_after", "timeout_s", "held"), [(0, 0.0, True), (3, 60.0, True), (10_000, 0.2, False)]
)
def test_waiting_ends_with_the_condition_or_the_deadline(
    holds_after: int, timeout_s: float, held: bool
) -> None:
    asked = iter(range(20_000))

    assert wait_until(lambda: next(asked) >= holds_after, timeout_s=timeout_s, interval_s=0.01) is held


def test_waiting_is_bounded_even_if_nothing_ever_happens() -> None:
    started = time.monotonic()

    assert not wait_until(threading.Event().is_set, timeout_s=0.1, interval_s=0.01)
    assert time.monotonic() - started >= 0.1
