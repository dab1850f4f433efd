"""Live progress: calm on a terminal, plain lines elsewhere, nothing when asked to be quiet."""

from __future__ import annotations

import io
import os
import pty
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from probes.child import wait_until
from reports.live import ROWS_MAX, Progress
from reports.run import load_run

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


BUSY = """
import time
from reports.live import Progress
with Progress("busy") as progress:
    progress.show_table(("name", "value"), lambda: [(f"row {n}", f"{time.time():.3f}") for n in range(5)])
    for count in range(150):
        progress.step("work", "running", f"{count} of 150 " + "wide " * (count % 40))
        time.sleep(0.01)
"""
LONG = """
import time
from reports.live import Progress
with Progress("long") as progress:
    rows = [(f"GPU {n}", "matmul", "712") for n in range(8)]
    progress.show_table(("device", "what", "figure"), lambda: rows)
    for name in ("preflight", "memory", "matmul"):
        progress.step(name, "done")
    for name in ("links", "allreduce", "power", "aftermath"):
        progress.step(name, "waiting")
    for count in range(400):
        progress.step("bandwidth", "running", f"{count} of 400 " + "wide " * 30)
        time.sleep(0.05)
"""
WORKLOAD = """
name: long
arrivals: {kind: constant, rate_per_s: 10}
duration_s: 60
calibrate_prompts: false
calibration: {is_skipped: true}
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|9[0-7]|38;[25])[0-9;]*m")


def piped(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", STEPS, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def on_a_terminal(*arguments: str, code: str = STEPS, **variables: str) -> tuple[str, int]:
    leader, follower = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color", **variables}
    command = [sys.executable, "-P", "-c", code, *arguments]
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


def test_it_is_drawn_at_most_four_times_a_second_however_often_it_changes() -> None:
    began = time.monotonic()
    text, _ = on_a_terminal(code=BUSY)
    lasted_s = time.monotonic() - began

    frames = text.count("busy")
    assert 2 < frames <= 4 * lasted_s + 2
    assert frames < 150 / 4


def test_without_colour_only_the_cursor_is_moved() -> None:
    plain, _ = on_a_terminal(NO_COLOR="1")
    coloured, _ = on_a_terminal()

    assert COLOUR.search(coloured)
    assert not COLOUR.search(plain)
    assert "gpu:1 differs" in plain


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
def test_a_terminal_that_cannot_draw_in_place_gets_plain_lines(term: str) -> None:
    text, _ = on_a_terminal(TERM=term)

    assert "\x1b" not in text
    assert "matmul: fail gpu:1 differs\r\n" in text


def test_a_line_that_says_nothing_new_is_not_written_again(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("burn-in")
    for state in ("waiting", "running", "running", "waiting", "running"):
        progress.step("matmul", state)
    progress.step("power", "running", "1")
    progress.step("power", "done", "1")
    progress.step("power", "done", "1")
    lines = [re.sub(r"^ +[0-9.]+ s  ", "", line) for line in capsys.readouterr().err.splitlines()]

    assert lines == [
        *("matmul: waiting", "matmul: running", "matmul: waiting", "matmul: running"),
        *("power: running 1", "power: done 1"),
    ]


def drawn(progress: Progress, *, height: int, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(*progress.draw(height=height), sep="\n")
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def stages(rows: int) -> Progress:
    progress = Progress("burn-in", quiet=True)
    for name, state in {"memory": "done", "matmul": "pass", "links": "running", "gpu-7": "fail"}.items():
        progress.step(name, state)
    for name in ("allreduce", "power", "aftermath", "network"):
        progress.step(name, "waiting")
    progress.show_table(("device", "stage"), lambda: [(f"GPU {n}", "links") for n in range(rows)])
    return progress


def test_where_there_is_no_room_steps_that_are_done_or_to_come_share_a_line() -> None:
    lines = [line.strip() for line in drawn(stages(8), height=15)]

    assert len(lines) <= 15
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["✓", "2", "done"],
        ["▸", "links"],
        ["✗", "gpu-7", "fail"],
        ["·", "4", "to"],
    ]
    assert lines[4].endswith("allreduce, power, aftermath, network")
    assert lines[-1].startswith("GPU 7")


@pytest.mark.parametrize("height", range(3, 40))
@pytest.mark.parametrize("rows", [0, 1, 8, ROWS_MAX, ROWS_MAX + 1, 500])
def test_the_region_is_never_higher_than_its_terminal_and_counts_what_it_leaves_out(
    rows: int, height: int
) -> None:
    lines = drawn(stages(rows), height=height)
    shown = sum(line.startswith("GPU") for line in lines)

    assert len(lines) <= max(height, 5)  # what runs and what failed is never left out
    if 0 < shown < rows:
        assert lines[-1].strip() == f"and {rows - shown} more"
    assert shown == rows or shown <= ROWS_MAX


@pytest.mark.parametrize("width", [20, 40, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    progress = stages(3)
    progress.step("links", "running", "wide " * 40)

    assert max(map(len, drawn(progress, height=30, width=width))) <= width


class Tmux:
    """A real terminal emulator of 80 columns and 24 lines with a shell in it."""

    def __init__(self) -> None:
        self._socket = f"overproof-{secrets.token_hex(4)}"
        shell = "env -u COLUMNS -u LINES PS1='$ ' sh"  # pytest's own readline sets them, and they would count
        self.run("new-session", "-d", "-x", "80", "-y", "24", shell)
        assert wait_until(lambda: self.screen() == ["$"], timeout_s=40)

    def run(self, *words: str) -> str:
        command = ["tmux", "-L", self._socket, "-f", "/dev/null", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=40).stdout

    def screen(self, *options: str) -> list[str]:
        return [line for line in self.run("capture-pane", "-p", *options).splitlines() if line.strip()]

    def ended(self) -> list[str]:
        """Return what the screen holds once a command has ended that is followed by ``echo end:$?``."""
        lines = self.screen("-J")  # lines that are wider than the screen as one
        return lines if any(re.fullmatch(r"end:\d+", line) for line in lines) else []

    def type(self, line: str) -> None:
        self.run("send-keys", line, "Enter")


@pytest.fixture
def tmux() -> Iterator[Tmux]:
    terminal = Tmux()
    yield terminal
    terminal.run("kill-server")


def is_whole(screen: list[str], width: int) -> bool:
    """Say whether the region stands on a screen once: its title, the step under way and the table's begin."""
    once = [sum(word in line for line in screen) for word in (" long ", "bandwidth", "GPU 0")]
    return once == [1, 1, 1] and max(map(len, screen)) <= width


def whole_screen(tmux: Tmux, width: int) -> list[str]:
    """Return the first screen on which the region is whole, and else the last one."""
    deadline = time.monotonic() + 15
    while not is_whole(screen := tmux.screen(), width) and time.monotonic() < deadline:
        time.sleep(0.05)
    return screen


@pytest.mark.needs("tmux")
def test_a_terminal_that_changes_its_size_shows_the_region_once_and_whole(tmux: Tmux, tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(LONG)
    tmux.type(f"PYTHONPATH={Path.cwd()} {sys.executable} {tmp_path / 'long.py'}")
    assert wait_until(lambda: any("GPU 7" in line for line in tmux.screen()), timeout_s=30)
    seen = {}
    for width, height in ((60, 24), (100, 12), (40, 18), (80, 24)):
        tmux.run("resize-window", "-x", str(width), "-y", str(height))
        whole_screen(tmux, width)
        time.sleep(0.6)  # and it stays so, but while it is drawn anew
        seen[width] = whole_screen(tmux, width)
    tmux.run("send-keys", "C-c")
    assert wait_until(lambda: any(line.startswith("$") for line in tmux.screen()), timeout_s=20)

    assert {width: is_whole(screen, width) for width, screen in seen.items()} == dict.fromkeys(seen, True), (
        seen
    )
    assert len(seen[80]) == 1 + 8 + 1 + 8
    assert tmux.run("display", "-p", "#{cursor_flag}").strip() == "1"


@pytest.mark.needs("tmux")
def test_ctrl_c_leaves_a_sane_terminal_and_the_last_line_names_the_record(tmux: Tmux, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(WORKLOAD)
    program = f"{sys.executable} -P -m overproof load run w.yaml; echo end:$?"
    tmux.type(f"cd {tmp_path} && PYTHONPATH={Path.cwd()} {program}")
    assert wait_until(lambda: any("ttft ms" in line for line in tmux.screen()), timeout_s=40), tmux.screen()
    tmux.run("send-keys", "C-c")
    assert wait_until(lambda: bool(tmux.ended()), timeout_s=40), tmux.screen()

    *_, said, code = [line for line in tmux.ended() if not line.startswith("$")]
    [path] = re.findall(r"record: (runs/\S+)", said)
    assert code == "end:130"
    assert load_run(tmp_path / path).state == "interrupted"
    tmux.type("stty -a | grep -c ' echo '")
    assert wait_until(lambda: "1" in tmux.screen()[-2:], timeout_s=10), tmux.screen()
    assert tmux.run("display", "-p", "#{cursor_flag}").strip() == "1"
