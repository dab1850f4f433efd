"""The event log of a host's management controller, through ``ipmitool`` where that is installed."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from probes.json_types import JsonObject

ENTRIES_MAX = 100
DEADLINE_S = 6.0  # each entry is a request over a slow bus
# ``sel list`` and not ``elist``: the latter first reads every sensor's record, which can take half a minute.
COMMAND = ("ipmitool", "sel", "list", "last", str(ENTRIES_MAX))


def read_bmc_log(command: Sequence[str] = COMMAND) -> JsonObject | None:
    """Return the last entries of the log, or why there are none; None: the tool is not installed."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEADLINE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"entries": [], "problem": str(error)[:200]}
    if done.returncode and "no entries" not in f"{done.stdout}{done.stderr}":
        return {"entries": [], "problem": done.stderr.strip()[:200] or f"exit code {done.returncode}"}
    return {"entries": parse_log(done.stdout), "problem": ""}


def parse_log(text: str) -> list[JsonObject]:
    """Return the entries of ``ipmitool sel list``: number, date, time, sensor, event, asserted or not."""
    entries: list[JsonObject] = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) >= 5:
            state = parts[5] if len(parts) > 5 else ""
            entries.append(
                {
                    "id": parts[0],
                    "at": f"{parts[1]} {parts[2]}",
                    "sensor": parts[3],
                    "event": parts[4],
                    "is_asserted": state != "Deasserted",
                }
            )
    return entries
