"""Asks every host which switches it sees, all at once, and one of them for the whole InfiniBand fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from burnin.fleet.host import Host
from burnin.fleet.launchers.channel import ARCHIVE, Channel, Launcher, Program
from burnin.fleet.network.cabling import CABLING, links_to_json, parse_fabric
from burnin.node.neighbours import ANSWER_WITHIN_S, NEIGHBOURS
from probes.errors import TargetError
from probes.event import event_from_line, to_json_line
from probes.json_types import JsonObject
from reports.record import RunWriter

HOSTS_MAX = 64  # at once
LINE_BYTES_MAX = 4 << 20


def record_cabling(
    writer: RunWriter, hosts: Sequence[Host], launcher_of: Callable[[Host], Launcher], archive: bytes
) -> None:
    """Ask the hosts of which a plan says where they are plugged in; one event for each of them."""
    planned = [host for host in hosts if host.place.rails or host.place.switch]
    told = read_neighbours(planned, launcher_of, archive)
    fabric = parse_fabric("\n".join(str(said.pop("fabric_text", "")) for said in told.values()))
    for host in planned:
        said = told.get(host.name)
        links = links_to_json(said, fabric) if said is not None else {}
        writer.event("network", CABLING, subject=host.name, told=said, links=links)


def read_neighbours(
    hosts: Sequence[Host],
    launcher_of: Callable[[Host], Launcher],
    archive: bytes,
    *,
    start_within_s: float = 90.0,
) -> dict[str, JsonObject]:
    """Return what each host said; one that could not be asked is left out.

    The first host is asked for the fabric as well: each sweep of it is work for the subnet manager.
    """

    def ask(index: int) -> JsonObject | None:
        program = Program(arguments=(ARCHIVE, "burnin.node.neighbours"), archive=archive)
        try:
            channel = launcher_of(hosts[index]).start(hosts[index], program, within_s=start_within_s)
        except TargetError:
            return None
        try:
            channel.write(to_json_line({"fabric": index == 0}).encode())
            return _answer(channel)
        except TargetError:
            return None
        finally:
            channel.end()

    if not hosts:
        return {}
    with ThreadPoolExecutor(max_workers=min(len(hosts), HOSTS_MAX)) as pool:
        answers = list(pool.map(ask, range(len(hosts))))
    return {host.name: said for host, said in zip(hosts, answers, strict=True) if said is not None}


def _answer(channel: Channel) -> JsonObject | None:
    heard, deadline = b"", time.monotonic() + 2 * ANSWER_WITHIN_S + 10
    while channel.wait(max(deadline - time.monotonic(), 0)):
        data = channel.read()
        *lines, heard = (heard + data).split(b"\n")
        for line in lines:
            try:
                event = event_from_line(line.decode())
            except ValueError:
                continue
            if event.kind == NEIGHBOURS:
                return event.data
        if not data or len(heard) > LINE_BYTES_MAX:
            return None
    return None
