"""Cables against the plan: outputs as the tools print them, and a real lldpd between two namespaces."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from burnin.fleet.archive import build_archive
from burnin.fleet.host import Access, Host, Place
from burnin.fleet.launchers.local import LocalLauncher
from burnin.fleet.network.cabling import is_same_switch, judge_cabling, parse_fabric
from burnin.fleet.network.cabling_run import read_neighbours
from burnin.node.neighbours import in_rail_order, parse_lldp, read_adapters, read_lldp
from probes.child import wait_until
from probes.json_types import JsonObject
from probes.outcome import Outcome
from tests.probes.trees import plant

# The form of ibnetdiscover (infiniband-diags): blocks of switches and of host adapters.
FABRIC = """\
#
# Topology file: generated on Sat Nov 21 05:00:00 2026
#
vendid=0x2c9
devid=0xd2f2
sysimgguid=0xb83fd20300aa0000
switchguid=0xb83fd20300aa0000(b83fd20300aa0000)
Switch\t65 "S-b83fd20300aa0000"\t\t# "MF0;leaf-1-0:MQM9790/U1" enhanced port 0 lid 2 lmc 0
[1]\t"H-b83fd20300c00000"[1](b83fd20300c00000) \t\t# "gpu001 mlx5_0" lid 12 4xNDR
[33]\t"S-b83fd20300bb0000"[1]\t\t# "MF0;spine-1:MQM9790/U1" lid 3 4xNDR

vendid=0x2c9
devid=0x1021
sysimgguid=0xb83fd20300c00000
caguid=0xb83fd20300c00000
Ca\t1 "H-b83fd20300c00000"\t\t# "gpu001 mlx5_0"
[1](b83fd20300c00000) \t"S-b83fd20300aa0000"[1]\t\t# lid 12 lmc 0 "MF0;leaf-1-0:MQM9790/U1" lid 2 4xNDR

vendid=0x2c9
devid=0x1021
sysimgguid=0xb83fd20300c10000
caguid=0xb83fd20300c10000
Ca\t1 "H-b83fd20300c10000"\t\t# "gpu001 mlx5_1"
[1](b83fd20300c10000) \t"S-b83fd20300ab0000"[7]\t\t# lid 13 lmc 0 "leaf-1-1" lid 4 4xNDR
"""
PLAN = ("leaf-1-0", "leaf-1-1")


def _host(*rails: str, switch: str | None = None) -> Host:
    return Host(name="gpu001", place=Place(rails=rails, switch=switch))


def _told(*guids: str, **more: object) -> JsonObject:
    adapters = [
        {"adapter": f"mlx5_{number}", "port": 1, "guid": guid, "interfaces": [f"eth{number}"]}
        for number, guid in enumerate(guids)
    ]
    return {"adapters": adapters, "lldp_error": "lldpctl is not installed", **more}


def test_a_fabric_tells_switch_and_port_of_each_adapter_by_its_guid() -> None:
    assert parse_fabric(FABRIC) == {
        ("b83fd20300c00000", 1): ("leaf-1-0", "1"),
        ("b83fd20300c10000", 1): ("leaf-1-1", "7"),
    }


def test_adapters_at_the_switches_of_the_plan_pass() -> None:
    told = _told("b83fd20300c00000", "b83fd20300c10000")

    assert judge_cabling(_host(*PLAN), told, parse_fabric(FABRIC)).outcome is Outcome.PASS


def test_two_swapped_cables_are_named_with_each_others_rail() -> None:
    told = _told("b83fd20300c10000", "b83fd20300c00000")

    finding = judge_cabling(_host(*PLAN), told, parse_fabric(FABRIC))

    assert finding.outcome is Outcome.FAIL
    assert finding.observed == (
        "rail 0 (mlx5_0) ends at leaf-1-1 port 7, planned is leaf-1-0 (that is the switch of rail 1); "
        "rail 1 (mlx5_1) ends at leaf-1-0 port 1, planned is leaf-1-1 (that is the switch of rail 0)"
    )
    assert finding.next_step


def test_a_rail_that_nobody_sees_is_undecided_and_so_is_a_host_that_said_nothing() -> None:
    told = _told("b83fd20300c00000", "0000000000000000")

    unseen = judge_cabling(_host(*PLAN), told, parse_fabric(FABRIC))
    missing = judge_cabling(_host(*PLAN, "leaf-1-2"), _told("b83fd20300c00000"), parse_fabric(FABRIC))
    silent = judge_cabling(_host(*PLAN), None, parse_fabric(FABRIC))

    assert unseen.outcome is missing.outcome is silent.outcome is Outcome.INCONCLUSIVE
    assert unseen.observed == "rail 1 is not seen (lldpctl is not installed)"
    assert missing.observed.startswith("rail 1, 2 is not seen")


def test_without_a_plan_there_is_nothing_to_judge() -> None:
    assert judge_cabling(_host(), _told("b83fd20300c00000"), {}).outcome is None


def test_ethernet_adapters_are_seen_by_lldp() -> None:
    neighbours = [
        {"interface": "eth0", "switch": "LEAF-1-0.dc.example", "port": "Ethernet7"},
        {"interface": "eth1", "switch": "leaf-9-9", "port": "Ethernet8"},
    ]
    told = _told("", "", lldp_neighbours=neighbours)

    assert judge_cabling(_host("leaf-1-0", "leaf-9-9"), told, {}).outcome is Outcome.PASS
    assert judge_cabling(_host(*PLAN), told, {}).observed == (
        "rail 1 (mlx5_1) ends at leaf-9-9 port Ethernet8, planned is leaf-1-1"
    )
    assert judge_cabling(_host(switch="leaf-1-0"), told, {}).outcome is Outcome.FAIL


@pytest.mark.parametrize(("switch", "outcome"), [("leaf-1", Outcome.PASS), ("leaf-2", Outcome.FAIL)])
def test_a_host_without_adapters_has_one_interface_at_its_switch(switch: str, outcome: Outcome) -> None:
    neighbours = [
        {"interface": "mgmt0", "switch": "mgmt-1", "port": "3"},
        {"interface": "eth0", "switch": "leaf-1", "port": "7"},
    ]

    assert judge_cabling(_host(switch=switch), _told(lldp_neighbours=neighbours), {}).outcome is outcome


@pytest.mark.parametrize(
    ("seen", "planned", "is_same"),
    [
        ("leaf-1", "LEAF-1", True),
        ("leaf-1.a.example", "leaf-1", True),
        ("leaf-1.a.example", "leaf-1.b.example", False),
        ("leaf-1", "leaf-10", False),
    ],
)
def test_a_switch_may_lack_its_domain(seen: str, planned: str, is_same: bool) -> None:
    assert is_same_switch(seen, planned) is is_same


def test_adapters_are_told_in_the_order_of_rails(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        folder = f"sys/class/infiniband/mlx5_{number}"
        plant(tmp_path, {f"{folder}/node_guid": f"b83f:d203:00c0:00{number:02}\n"})
        plant(
            tmp_path,
            {f"{folder}/ports/1/state": "4: ACTIVE\n", f"{folder}/device/net/eth{number}/mtu": "1\n"},
        )

    assert [(one["adapter"], one["interfaces"]) for one in read_adapters(tmp_path, selection="mlx5")] == [
        ("mlx5_0", ["eth0"]),
        ("mlx5_2", ["eth2"]),
        ("mlx5_10", ["eth10"]),
    ]
    assert in_rail_order([("ib10", 1), ("ib9", 2), ("ib9", 1)]) == [("ib9", 1), ("ib9", 2), ("ib10", 1)]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"lldp": [{"interface": [{"name": "a"}]}]}'])
def test_what_is_no_output_of_lldpctl_is_an_error_and_no_neighbour(text: str, tmp_path: Path) -> None:
    tool = tmp_path / "lldpctl"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    tool.chmod(0o755)

    assert "is not understood" in read_lldp((str(tool),))["error"]


def test_a_host_whose_lldpd_is_silent_has_no_neighbours() -> None:
    assert parse_lldp('{"lldp": [{}]}') == []


def test_every_host_is_asked_and_one_that_cannot_be_is_left_out() -> None:
    launcher = LocalLauncher()
    hosts = [
        Host(name="a", access=Access(launcher="local")),
        Host(name="b", access=Access(launcher="local", python="/nowhere/python3")),
    ]

    told = read_neighbours(hosts, lambda host: launcher, build_archive())
    launcher.close()

    assert set(told) == {"a"}
    assert "adapters" in told["a"]
    assert {"lldp_error", "lldp_neighbours"} & set(told["a"])
    assert {"fabric_error", "fabric_text"} & set(told["a"])


@contextlib.contextmanager
def _lldpd_on_both_ends(folder: Path) -> Iterator[list[str]]:
    """Start an lldpd at each end of a cable between two namespaces; yield their sockets."""
    folder.chmod(0o755)  # lldpd gives up its rights, and its tools after it
    spaces = [f"op-lldp-{os.getpid()}-{side}" for side in "ab"]
    sockets = [f"{folder}/{side}" for side in "ab"]
    daemons = []
    try:
        for space in spaces:
            _run("ip", "netns", "add", space)
        _run(
            *("ip", "link", "add", "cable0", "netns", spaces[0]),
            *("type", "veth", "peer", "name", "cable1", "netns", spaces[1]),
        )
        for number, (space, socket) in enumerate(zip(spaces, sockets, strict=True)):
            _run("ip", "-n", space, "link", "set", f"cable{number}", "up")
            with (folder / f"log{number}").open("w") as log:
                daemons.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", space, "lldpd", "-d", "-u", socket, "-I", f"cable{number}"],
                        stderr=log,
                        stdout=log,
                    )
                )
        yield sockets
    finally:
        for daemon in daemons:
            daemon.terminate()
            daemon.wait(timeout=5)
        for space in spaces:
            subprocess.run(["ip", "netns", "delete", space], check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=20, capture_output=True)


def _is_done(command: Sequence[str]) -> bool:
    return subprocess.run(command, check=False, timeout=20, capture_output=True).returncode == 0


@pytest.mark.needs("lldpd", "ip", "root")
def test_a_real_lldpd_names_the_switch_at_the_other_end() -> None:
    with tempfile.TemporaryDirectory() as folder, _lldpd_on_both_ends(Path(folder)) as (switch, host):
        named = ("lldpcli", "-u", switch, "configure", "system", "hostname", "leaf-1-0")
        assert wait_until(lambda: _is_done(named) and Path(host).exists(), timeout_s=10, interval_s=0.2)
        assert _is_done(("lldpcli", "-u", switch, "update"))
        command = ("lldpctl", "-u", host, "-f", "json0")
        wait_until(lambda: bool(read_lldp(command).get("neighbours")), timeout_s=15, interval_s=0.2)
        told = read_lldp(command)

    assert told == {"neighbours": [{"interface": "cable1", "switch": "leaf-1-0", "port": "cable0"}]}
