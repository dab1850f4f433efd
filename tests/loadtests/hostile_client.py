"""The reader in a process of its own, so that what a hostile server makes it hold can be measured.

Each line on standard input is ``name port timeout_s``; each line out is what became of the one request made
there.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from loadtests.reading.poll_clock import PollClock
from tests.loadtests.clients import Client

LIMITS_OF_ONE = {"events_max": 20_000, "bytes_max": 8 * 1024 * 1024}


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    """Serve standard input to its end."""
    client = Client(PollClock())
    client.to(1).run()  # what the first request brings along is not the server's doing
    for line in sys.stdin:
        name, port, timeout_s = line.split()
        limits = dict.fromkeys(("timeout_s", "connect_timeout_s", "first_byte_timeout_s"), float(timeout_s))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak
        before, began_s, cpu_s = _peak_kib(), time.monotonic(), time.process_time()
        rows = client.to(int(port), **limits, **LIMITS_OF_ONE).run(timeout_s=40)
        found = {
            "name": name,
            "errors": [row.error for row in rows],
            "detail": [row.error_detail for row in rows],
            "took_s": time.monotonic() - began_s,
            "cpu_s": time.process_time() - cpu_s,
            "grown_kib": _peak_kib() - before,
        }
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
