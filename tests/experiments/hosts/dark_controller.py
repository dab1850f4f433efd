"""A controller that injects one fault and is then killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from experiments.faults.fault import load_fault
from experiments.hosts.capture import capture_hosts
from experiments.hosts.choice import Target
from experiments.hosts.host import host_from_json
from experiments.injecting.injection import inject_fault


def main() -> None:
    """Inject, say so, and stay."""
    given = json.loads(sys.argv[1])
    host = host_from_json(given["host"])
    target = Target(hosts=(host,), seed=1, run=Path(given["folder"]).name)
    (captured,) = capture_hosts(
        given["fault"], given["arguments"], [host], target, undo_after_s=given["undo_after_s"]
    )
    inject_fault(load_fault(given["fault"]), captured, Path(given["folder"]))
    sys.stdout.write("injected\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
