"""What the terminal shows of a result, read from a real pipe and a real pseudo-terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from probes.finding import finding_to_json
from probes.outcome import Outcome
from reports.run import Run
from tests.reports.hostile import TEXTS
from tests.reports.recorded import finding, game_day, judged

PRINT = """
import sys
from pathlib import Path
from reports.run import load_run
from reports.terminal import print_result, print_results
run = load_run(Path(sys.argv[1]))
if sys.argv[2] == "all":
    print_results([run, run], as_json=False)
else:
    print_result(run, as_json=sys.argv[2] == "json")
"""


def command(run: Run, how: str) -> list[str]:
    return [sys.executable, "-P", "-c", PRINT, str(run.path), how]


def piped(run: Run, how: str = "text") -> str:
    done = subprocess.run(command(run, how), capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
    return done.stdout


def on_a_terminal(run: Run, how: str = "text", columns: int = 80) -> str:
    """Run under a pseudo-terminal and return all that it got."""
    leader, follower = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color"}
    child = subprocess.Popen(command(run, how), stdout=follower, env=env)
    os.close(follower)
    text = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # EIO: the other end is closed
            break
        text += piece
    os.close(leader)
    assert child.wait(timeout=30) == 0
    return text.decode().replace("\r\n", "\n")


def test_the_verdict_is_the_first_line_and_the_path_the_last(tmp_path: Path) -> None:
    run = game_day(tmp_path)

    lines = piped(run).splitlines()

    assert lines[0].startswith("✗ FAIL  Game day on ")
    assert lines[-1] == str(run.path)
    assert f"report  {run.path}/report.html" in lines


def test_what_decided_stands_with_its_next_step(tmp_path: Path) -> None:
    text = piped(game_day(tmp_path))

    assert "✗ FAIL slo slo:ttft@during\n  observed  88.21% of 34 values at most 500 ms\n" in text
    assert "\n  next      look at the slowest requests of this phase\n" in text
    assert "fault injected at 20.00 s → noticed +0.60 s → traffic good again +3.00 s" in text
    assert re.search(r"^\? waived +collateral +host:bench", text, re.MULTILINE)


def test_without_a_terminal_there_is_no_colour_and_nothing_is_cut(tmp_path: Path) -> None:
    long = "a word " * 60
    text = piped(judged(tmp_path, [finding("slo", "slo:x", Outcome.PASS, long)]))

    assert "\x1b" not in text
    assert long.strip() in text


def test_on_a_terminal_a_rule_is_one_line_cut_to_its_width_and_the_path_is_never_cut(tmp_path: Path) -> None:
    run = judged(
        tmp_path / ("deep" * 30), [finding("slo", f"slo:{n}", Outcome.PASS, "a word " * 60) for n in range(3)]
    )

    lines = on_a_terminal(run).splitlines()

    assert lines[-1] == str(run.path)
    [cut] = [line for line in lines if "a word" in line]
    assert "×3" in cut
    assert re.sub(r"\x1b\[[0-9;]*m", "", cut)[79:] == "…"


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_what_decided_wraps_below_its_own_beginning(columns: int, tmp_path: Path) -> None:
    words = "replace-it " * 30
    run = judged(tmp_path, [finding("exact", "gpu:0", Outcome.FAIL, words, next_step=words, expected=words)])

    text = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(run, columns=columns))
    lines = text.partition("Follow-ups")[0].splitlines()

    told = [line for line in lines if "replace-it" in line]
    begins = {line[:12] for line in told}
    assert begins == {"  observed  ", "  expected  ", "  next      ", " " * 12}
    assert max(map(len, told)) <= columns
    assert all(line[12:].startswith("replace-it") for line in told)


def test_hostile_text_reaches_no_terminal_as_a_command(tmp_path: Path) -> None:
    rows = [finding(t, t, Outcome.FAIL, t, next_step=t) for t in TEXTS[:8]]
    run = judged(tmp_path, [*rows, *(finding(t, t, Outcome.PASS, t) for t in TEXTS)])

    shown = piped(run)

    assert not {c for c in shown if (ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160}
    assert shown.splitlines()[-1] == str(run.path)
    assert "[bold red]markup[/] [/nonsense] :smile:" in shown


def test_json_is_one_document_on_one_line(tmp_path: Path) -> None:
    run = game_day(tmp_path)

    document = json.loads(piped(run, "json"))

    assert document == {
        "schema_version": 1,
        "run": str(run.path),
        "id": run.header.id,
        "kind": "gameday",
        "outcome": "fail",
        "state": "finished",
        "seed": 7,
        "findings": [finding_to_json(f) for f in run.findings],
    }


def test_several_runs_are_one_line_each_with_the_path_of_the_report(tmp_path: Path) -> None:
    run = game_day(tmp_path)

    lines = piped(run, "all").splitlines()[-2:]

    assert [line.split() for line in lines] == [["✗", "FAIL", "Game", "day", f"{run.path}/report.html"]] * 2
