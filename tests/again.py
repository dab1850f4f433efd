"""``python -m tests.again TARGET``: runs what failed in ``make TARGET`` once more, alone, if it is little.

A failure that comes again stands. One that does not is told as flaky, which is a bug of the test or of the
product; its first traceback stands above. What failed beside the tests (a process left running, the end of a
session) would not come again where they run alone: it stands at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

STANDS = "overproof/stands"  # of pytest's cache: what failed beside the tests, or at their end
_AT_MOST = 3
_FAILED = "cache/lastfailed"


def _read(name: str) -> list[str]:
    path = Path(".pytest_cache/v") / name
    return list(json.loads(path.read_text())) if path.exists() else []


def _say(*lines: str) -> None:
    sys.stdout.write("\n  ".join(lines) + "\n")
    sys.stdout.flush()


def main(target: str) -> int:
    """Return the exit status of the second run, or 1 where there is none."""
    failed, stands = _read(_FAILED), _read(STANDS)
    _say(f"make {target} failed:", *failed, *stands)
    if stands or not 0 < len(failed) <= _AT_MOST:
        _say(f"Not tried again: {_AT_MOST} tests at most are, and only where nothing else failed.")
        return 1
    again = ["make", target, "ARGS=--last-failed --last-failed-no-failures none"]
    if status := subprocess.run(again, check=False).returncode:
        return status
    if left := _read(_FAILED) + _read(STANDS):
        _say("Not passed alone:", *left)
        return 1
    _say(f"make {target}: FLAKY, passed alone:", *failed)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else __doc__)
