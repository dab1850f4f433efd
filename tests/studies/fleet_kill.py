"""What is left on hosts when the controller is killed, the wire is cut, sshd stands still or a shell sleeps.

``make study-fleet-kill`` prints what docs/studies/fleet-kill.md holds. Needs root, sshd and ten minutes.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from probes.child import wait_until
from reports.run import load_run
from reports.table import read_series
from tests.burnin.fleet.kills import complete, kill_once, start, write_fleet
from tests.ssh_hosts import SshHost, ssh_hosts

KILLS = 20
SEED = 2026
SHELL_S = 60


def main() -> None:
    """Run everything and print the tables as Markdown."""
    with tempfile.TemporaryDirectory() as name:
        _print(_kills(Path(name)))
    for what, harm in (("the wire is cut", SshHost.cut), ("sshd stands still (SIGSTOP)", _freeze)):
        with tempfile.TemporaryDirectory() as name:
            _print(_harm(Path(name), what, harm))
    with tempfile.TemporaryDirectory() as name:
        _print(_slow_shell(Path(name)))


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201


def _kills(folder: Path) -> Iterator[str]:
    """Kill the controller of one run again and again, each time while it goes on, and complete it at last."""
    yield "| kill -9 | after s | last in the record | nothing left after s | left | record |"
    yield f"|{'---|' * 6}"
    chance = random.Random(SEED)
    arguments = ["fleet.yaml", "--plan", "plan.yaml", "--no-network"]
    with ssh_hosts(folder / "hosts") as hosts:
        hosts.start("one")
        hosts.start("two")
        write_fleet(folder, hosts)
        for number in range(1, KILLS + 1):
            kill = kill_once(folder, hosts, arguments, chance)
            arguments = ["--resume", "runs/latest"]
            readable = "readable, interrupted" if kill.is_readable else "NOT READABLE"
            cells = (
                f"{kill.after_s:.1f}",
                kill.stage,
                f"{kill.gone_s:.1f}",
                ", ".join(kill.left) or "nothing",
            )
            yield f"| {number} | {' | '.join(cells)} | {readable} |"
        complete(folder, hosts)
        rows = read_series(load_run(folder / "runs" / "latest"), "host")
        states = ", ".join(f"{row['host']} {row['state']}" for row in rows)
        yield f"\n`--resume` after kill {KILLS}: {states}.\n"


def _harm(folder: Path, what: str, harm: Callable[[SshHost], None]) -> Iterator[str]:
    """Do something to one host under load, and see how long its agent lives and what the run says of it."""
    with ssh_hosts(folder / "hosts") as hosts:
        hosts.start("one")
        hosts.start("two")
        write_fleet(folder, hosts)
        (folder / "plan.yaml").write_text(
            (folder / "plan.yaml").read_text().replace("duration_s: 6", "duration_s: 40")
        )
        controller = start(folder, hosts, "fleet.yaml", "--plan", "plan.yaml", "--no-network")
        events = folder / "runs" / "latest" / "hosts" / "one" / "events.ndjson"
        wait_until(lambda: events.exists() and '"stage":"matmul"' in events.read_text(), timeout_s=60)
        harm(hosts.hosts["one"])
        began = time.monotonic()
        wait_until(lambda: not hosts.hosts["one"].programs(), timeout_s=60)
        gone_s = time.monotonic() - began
        controller.wait(timeout=300)
        yield f"- {what} on one of two hosts: its agent was gone after {gone_s:.1f} s; {_states(folder)}."


def _freeze(host: SshHost) -> None:
    host.signal_sshd(signal.SIGSTOP)


def _slow_shell(folder: Path) -> Iterator[str]:
    with ssh_hosts(folder / "hosts") as hosts:
        hosts.start("one")
        hosts.start("two", shell=f'sleep {SHELL_S}; exec /bin/sh "$@"')
        write_fleet(folder, hosts)
        start(folder, hosts, "fleet.yaml", "--plan", "plan.yaml", "--no-network").wait(timeout=300)
        own = load_run(folder / "runs" / "latest" / "hosts" / "two")
        told = next((f.observed for f in own.findings if f.rule == "slow-login"), "no word of it")
        what = f"a login shell that takes {SHELL_S} s on one of two hosts"
        yield f"- {what}: {_states(folder)}; its record says: {told}."


def _states(folder: Path) -> str:
    rows = read_series(load_run(folder / "runs" / "latest"), "host")
    return ", ".join(
        f"{row['host']}: {row['state']}{' (' + row['detail'] + ')' if row['detail'] else ''}" for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
