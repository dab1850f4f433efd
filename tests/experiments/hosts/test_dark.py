"""The controller is killed and the wire is cut: then only the timer on the host restores what was captured.

Each fault on a host of its own, all of them at the same time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.host_agent.faults import FAULTS
from experiments.injecting.injection import Undone, undo_pending
from probes.child import wait_until
from probes.json_types import JsonObject
from tests.experiments.hosts.real_hosts import base_of, entry_of, environment, real_hosts, start_host
from tests.experiments.hosts.rows import ROWS, Row
from tests.ssh_hosts import SshHost, SshHosts

pytestmark = pytest.mark.needs("root", "sshd", "ip", "nft", "tc")
UNDO_AFTER_S = (
    15.0  # from the look at the host: until then it has to be armed and injected, on a busy machine
)
AT_ONCE = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What was seen of one fault, with nobody there but the host."""

    before: object
    during: object
    is_dark: bool  # the host could not be reached while its timer ran
    after: object
    waited_s: float
    on_host: JsonObject  # what the timer wrote
    undone: list[Undone]  # what undoing said, once the wire was mended


def night(hosts: SshHosts, host: SshHost, name: str, row: Row, folder: Path) -> Night:
    folder.mkdir()
    arguments = row.arrange(host)
    before = row.observe(host)
    given = {"fault": name, "arguments": arguments, "host": entry_of(host).to_json()}
    given |= {"folder": str(folder), "undo_after_s": UNDO_AFTER_S}
    controller = subprocess.Popen(
        [sys.executable, "-P", "-m", "tests.experiments.hosts.dark_controller", json.dumps(given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(hosts) | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    with controller:
        assert controller.stdout is not None
        said = controller.stdout.readline()
        controller.kill()  # SIGKILL
    assert said == "injected\n", (folder / "events.ndjson").read_text()
    host.cut()
    host.end_connections()
    during, began = row.observe(host), time.monotonic()
    is_dark = "eth0" not in host.run("ip", "-o", "link", "show", "up")
    wait_until(
        lambda: row.observe(host) == before or not row.is_undoable,
        timeout_s=UNDO_AFTER_S + 20,
        interval_s=0.5,
    )
    after, waited_s = row.observe(host), time.monotonic() - began
    (armed,) = (base_of(host) / "armed").iterdir()
    wait_until((armed / "undone.json").exists, timeout_s=UNDO_AFTER_S + 20)
    on_host = json.loads((armed / "undone.json").read_text())
    host.mend()
    return Night(
        before=before,
        during=during,
        is_dark=is_dark,
        after=after,
        waited_s=waited_s,
        on_host=on_host,
        undone=undo_pending(folder, by="test"),
    )


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Night]]:
    folder = tmp_path_factory.mktemp("dark")
    with real_hosts(folder / "hosts") as hosts, ThreadPoolExecutor(AT_ONCE) as pool:
        started = {name: start_host(hosts, name, setup=row.setup) for name, row in ROWS.items()}
        futures = {
            name: pool.submit(night, hosts, started[name], name, row, folder / name)
            for name, row in ROWS.items()
        }
        yield {name: future.result() for name, future in futures.items()}


def test_every_fault_of_hosts_is_met_here() -> None:
    assert sorted(ROWS) == sorted(FAULTS)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_the_timer_alone_restores_what_was_captured(name: str, nights: dict[str, Night]) -> None:
    seen = nights[name]

    assert seen.is_dark
    assert seen.during != seen.before
    assert (seen.after == seen.before) is ROWS[name].is_undoable
    assert (seen.on_host["by"], seen.on_host["is_restored"]) == ("timer on the host", True)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_undoing_afterwards_says_that_the_timer_has_done_it(name: str, nights: dict[str, Night]) -> None:
    (undone,) = nights[name].undone

    assert undone.is_restored
    assert "timer on the host" in undone.did
