"""Follow a page of the documents as a reader does: its commands in order, in a copy of the repository.

A block ``sh`` is typed as it stands. A block ``text`` right below it is what the reader should see: ``…``
within a line stands for anything in that line, a line of ``…`` alone for any lines. A command that is to fail
says so on the page, as ``… || echo "exit code $?"``; every other one has to succeed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from probes.child import wait_until
from tests.processes import processes_with

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_MARK = "OVERPROOF_TEST_PAGE"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Some commands, and what the page shows of what they print."""

    commands: str
    shown: str | None
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What came of a step; ``code`` is None where the commands before it ended the shell."""

    step: Step
    printed: str
    code: int | None

    @property
    def is_as_shown(self) -> bool:
        """Whether it succeeded and printed what the page shows."""
        shown = self.step.shown
        return self.code == 0 and (shown is None or pattern(shown).fullmatch(self.printed) is not None)


def steps_of(text: str) -> list[Step]:
    """Return the steps of a page."""
    blocks = [(m[1], m[2], text.count("\n", 0, m.start()) + 1, m.end()) for m in _BLOCK.finditer(text)]
    steps = []
    for number, (language, body, line, end) in enumerate(blocks):
        if language != "sh":
            continue
        after = blocks[number + 1] if number + 1 < len(blocks) else ("", "", 0, 0)
        is_shown = after[0] == "text" and not text[end : text.rfind("```text", 0, after[3])].strip()
        steps.append(Step(commands=body, shown=after[1] if is_shown else None, line=line))
    return steps


def pattern(shown: str) -> re.Pattern[str]:
    """Return what output has to look like."""
    lines = [
        r"(?:.*\n)*?" if line.strip() == "…" else r".*?".join(map(re.escape, line.split("…"))) + r"[ ]*\n"
        for line in shown.splitlines()
    ]
    return re.compile("".join(lines))


def copy_of_repository(folder: Path) -> Path:
    """Copy what git does not ignore, as it is in the working tree; of a clone, that is all of it."""
    names = subprocess.run(
        ["git", "ls-files", "-zco", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def follow(steps: list[Step], folder: Path, *, without: Collection[str] = (), timeout_s: float) -> list[Done]:
    """Type every step into one shell, but for the lines that are named in ``without``."""
    mark = secrets.token_hex(8)
    typed = [
        "".join(line for line in step.commands.splitlines(keepends=True) if line.strip() not in without)
        for step in steps
    ]
    script = "set -e\n" + "".join(f"{commands}\necho; echo '--- {mark}'\n" for commands in typed)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "PYTEST_", "OVERPROOF_ENDPOINT"))
    }
    log = folder.with_name(f"{folder.name}.log")
    with log.open("w") as file:
        shell = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env=kept | {_MARK: mark, "PATH": path, "PYTHONPATH": str(folder), "COLUMNS": "80"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            returncode = shell.wait(timeout=timeout_s)
        finally:
            _end_all(f"{_MARK}={mark}")
            shell.wait()
    printed = log.read_text(errors="replace").split(f"\n--- {mark}\n")
    codes = [0] * (len(printed) - 1) + [returncode] + [None] * len(steps)
    printed += [""] * len(steps)
    return [Done(step=s, printed=p, code=c) for s, p, c in zip(steps, printed, codes, strict=False)]


def _end_all(entry: str) -> None:
    """End what a page has left running: in the background, or because it was not followed to its end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid, _ in processes_with(entry):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if wait_until(lambda: not processes_with(entry), timeout_s=5):
            return


def told(page: Path, done: Done) -> str:
    """Say where a page and what happened differ."""
    return (
        f"{page.name}:{done.step.line}: exit {done.code}\n{done.step.commands}\n"
        f"--- the page shows\n{done.step.shown}\n--- it printed\n{done.printed}"
    )
