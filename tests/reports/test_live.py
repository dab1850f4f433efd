"""Live progress: calm on a terminal, plain lines elsewhere, nothing when asked to be quiet."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

STEPS = """
import sys, time
from reports.live import Progress
with Progress("burn-in", quiet="quiet" in sys.argv) as progress:
    progress.step("preflight", "running")
    progress.step("preflight", "pass", "8 devices")
    for second in range(3):
        progress.step("matmul", "running", f"{second} s of 3 [bold]\\x1b[31m " + "wide " * 40)
        time.sleep(0.3)
    progress.step("matmul", "fail", "gpu:1 differs")
    if "raise" in sys.argv:
        raise KeyboardInterrupt
print("result", flush=True)
"""


def piped(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", STEPS, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def on_a_terminal(*arguments: str) -> tuple[str, int]:
    leader, follower = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
    command = [sys.executable, "-P", "-c", STEPS, *arguments]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=follower, env=env)
    os.close(follower)
    text = b""
    while True:
        try:
            text += os.read(leader, 65536)
        except OSError:  # EIO: the other end is closed
            break
    os.close(leader)
    return text.decode(), child.wait(timeout=30)


def test_without_a_terminal_each_change_is_one_plain_line_on_stderr() -> None:
    done = piped()

    assert done.stdout == "result\n"
    assert "\x1b" not in done.stderr
    told = [re.sub(r"^ +[0-9.]+ s  ", "", line) for line in done.stderr.splitlines()]
    assert [line[:26] for line in told] == [
        "preflight: running",
        "preflight: pass 8 devices",
        "matmul: running 0 s of 3 [",
        "matmul: fail gpu:1 differs",
    ]


def test_quiet_says_nothing() -> None:
    assert piped("quiet").stderr == ""


def test_on_a_terminal_the_table_is_redrawn_in_place_within_its_width() -> None:
    text, code = on_a_terminal()

    assert code == 0
    assert text.count("\x1b[1A") > 2  # it went back up to draw over itself
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "[bold]" in shown
    assert "gpu:1 differs" in shown


@pytest.mark.parametrize("arguments", [(), ("raise",)])
def test_the_cursor_comes_back_however_it_ends(arguments: tuple[str, ...]) -> None:
    text, _ = on_a_terminal(*arguments)

    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
