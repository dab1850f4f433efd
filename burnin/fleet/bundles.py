"""What vendors ask for, collected on the hosts that failed and fetched into their records."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from burnin.bundle import FOLDER, INDEX_FILE, RUNNER_GRACE_S, Item, Runner, collect_bundle, is_wanted
from burnin.fleet.host import Host
from burnin.fleet.launchers.channel import ARCHIVE, Channel, Launcher, Program
from burnin.node.tool_run import FINISHED
from burnin.node.tool_run import Program as Tool
from probes.errors import ConfigError, TargetError
from probes.event import Event, event_from_line
from reports.record import RunWriter
from reports.run import load_run

HOSTS_MAX = 16  # at once: a report of eight GPUs has tens of MB
TELL_EVERY_S = 2.0
SILENCE_S = 10.0  # of ours, after which a host stops collecting
BUNDLE = "bundle"


def collect_bundles(
    writer: RunWriter,
    hosts: Sequence[Host],
    launcher_of: Callable[[Host], Launcher],
    archive: bytes,
    *,
    stop: threading.Event,
    start_within_s: float,
    items: Sequence[Item] | None = None,
) -> None:
    """Collect from every host whose own burn-in failed, unless an earlier attempt did; one event for each."""
    wanted = [host for host in hosts if _is_wanted(writer, host)]

    def collect(host: Host) -> None:
        if stop.is_set():
            return
        runner = _runner_on(host, launcher_of, archive, stop, start_within_s)
        index = collect_bundle(writer.path / "hosts" / host.name, items, runner=runner)
        lacking = [entry["file"] for entry in index if not entry["is_complete"]]
        writer.event("controller", BUNDLE, subject=host.name, lacking=lacking)

    if wanted:
        with ThreadPoolExecutor(max_workers=min(len(wanted), HOSTS_MAX), thread_name_prefix=BUNDLE) as pool:
            list(pool.map(collect, wanted))


def _is_wanted(writer: RunWriter, host: Host) -> bool:
    folder = writer.path / "hosts" / host.name
    try:
        return is_wanted(load_run(folder)) and not (folder / FOLDER / INDEX_FILE).exists()
    except ConfigError:  # it has no record
        return False


def _runner_on(
    host: Host,
    launcher_of: Callable[[Host], Launcher],
    archive: bytes,
    stop: threading.Event,
    start_within_s: float,
) -> Runner:
    """Return what runs a program on that host."""
    program = Program(arguments=(ARCHIVE, "burnin.node.tool_run"), archive=archive)

    @contextlib.contextmanager
    def run(tool: Tool) -> Iterator[Iterator[Event]]:
        try:
            channel = launcher_of(host).start(host, program, within_s=start_within_s)
        except TargetError:
            yield iter(())
            return
        try:
            yield _hear(channel, replace(tool, silence_s=SILENCE_S), stop)
        finally:
            channel.end()

    return run


def _hear(channel: Channel, tool: Tool, stop: threading.Event) -> Iterator[Event]:
    """Yield what the runner says, while telling it that we are there; a host that is lost says no more."""
    rest, bytes_left = b"", 2 * tool.bytes_max + (1 << 20)  # base64 and JSON around what is wanted
    deadline = time.monotonic() + tool.within_s + RUNNER_GRACE_S
    told_at = time.monotonic()
    with contextlib.suppress(TargetError, ValueError):
        channel.write(tool.to_line().encode())
        while bytes_left > 0 and time.monotonic() < deadline and not stop.is_set():
            if time.monotonic() >= told_at + TELL_EVERY_S:
                told_at = time.monotonic()
                channel.write(b"{}\n")
            if not channel.wait(TELL_EVERY_S / 2):
                continue
            data = channel.read()
            bytes_left -= len(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                event = event_from_line(line.decode())
                yield event
                if event.kind == FINISHED:
                    return
            if not data:
                return
