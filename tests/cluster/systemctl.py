"""A node's ``systemctl``, by which its supervisor stops and starts services: as much of it as is asked.

Copied beside ``services.json`` of its node, whose folder it works on.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
_WITHIN_S = 20.0


def _pid(service: str) -> str:
    """Return the process of a service; empty: it does not run."""
    command = json.loads((_FOLDER / "services.json").read_text())[service]
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cmdline").read_bytes().decode().split("\0")[:-1] == command:
                return path.name
        except (OSError, UnicodeDecodeError):
            continue
    return ""


def _show(name: str, asked: list[str]) -> None:
    service = name.removesuffix(".service")
    known = service in json.loads((_FOLDER / "services.json").read_text())
    pid = _pid(service) if known else ""
    is_down = not known or (_FOLDER / f"{service}.stopped").exists()
    state = "active" if pid else "inactive" if is_down else "activating"  # what ends is started again
    shown = {"Id": name, "LoadState": "loaded" if known else "not-found", "ActiveState": state}
    shown |= {"UnitFileState": "enabled", "InvocationID": pid}
    sys.stdout.write("".join(f"{key}={shown.get(key, '')}\n" for key in asked))


def _turn(service: str, *, on: bool) -> int:
    stopped = _FOLDER / f"{service}.stopped"
    if on:
        stopped.unlink(missing_ok=True)
    else:
        stopped.touch()
    deadline = time.monotonic() + _WITHIN_S
    while bool(_pid(service)) != on:
        if time.monotonic() > deadline:
            return 1
        time.sleep(0.05)
    return 0


def _main(words: list[str]) -> int:
    verb, name = words[0], words[-1]
    if verb == "show":
        (asked,) = [word.partition("=")[2] for word in words if word.startswith("--property=")]
        _show(name, asked.split(","))
    elif verb in ("start", "stop"):
        return _turn(name.removesuffix(".service"), on=verb == "start")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
