"""The timer as a unit of systemd, where that runs the host: it outlives sessions, and reboots."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from experiments.host_agent.fault import Refused, run_command

UNITS = Path("/etc/systemd/system")
_RUNS = Path("/run/systemd/system")  # as sd_booted(3) tells
# KillMode: a process that undoing has started must not end with the timer.
_UNIT = """\
[Unit]
Description=overproof: puts back {name}

[Service]
ExecStart={command}
Restart=on-failure
RestartSec=5
KillMode=process
OOMScoreAdjust=-1000

[Install]
WantedBy=multi-user.target
"""


def has_systemd() -> bool:
    """Say whether systemd runs this host."""
    return _RUNS.is_dir()


def unit_text(name: str, words: Sequence[str]) -> str:
    """Return the unit; the percent sign is systemd's own."""
    return _UNIT.format(name=name, command=shlex.join(words).replace("%", "%%"))


def start_unit(name: str, words: Sequence[str]) -> None:
    """Install and start the unit of one timer.

    Raises:
        Refused: systemd does not take it.
    """
    unit = _unit(name)
    try:
        (UNITS / unit).write_text(unit_text(name, words), encoding="utf-8")
    except OSError as error:
        raise Refused(f"{UNITS / unit}: cannot be written: {error.strerror}; nothing is broken") from error
    for command in (["daemon-reload"], ["enable", "--now", unit]):
        status, said = run_command(["systemctl", *command])
        if status:
            remove_unit(name)
            raise Refused(f"systemctl {' '.join(command)}: {said}; nothing is broken")


def remove_unit(name: str) -> None:
    """Take the unit of a timer away, once its fault is undone; the timer itself leaves on its own."""
    unit = _unit(name)
    if (UNITS / unit).exists():
        run_command(["systemctl", "disable", unit])
        (UNITS / unit).unlink(missing_ok=True)
        run_command(["systemctl", "daemon-reload"])


def _unit(name: str) -> str:
    return f"overproof-undo-{name}.service"
