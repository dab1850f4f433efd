from __future__ import annotations

import re
from pathlib import Path

import pytest

from burnin.fleet.fleet_file import load_fleet
from burnin.fleet.host import Access, Expected, Host, Place, PowerCap
from probes.errors import ConfigError

EXAMPLES = sorted((Path(__file__).parents[3] / "burnin" / "fleets").glob("*.yaml"))


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_group_goes_above_the_defaults(tmp_path: Path) -> None:
    fleet = load_fleet(
        _write(
            tmp_path,
            """
name: a
defaults: {user: burnin, gpus: 8, permission: listed, hall: h}
groups:
  - {hosts: n1, user: root, port: 2222, rack: r1, rails: [l0, l1]}
  - {hosts: "n[2-3]", permission: {ask: slurm}}
power_caps: [{hall: h, watts: 1000}]
expected_versions: {kernel: 6.8}
""".replace("6.8", "'6.8'"),
        )
    )

    assert fleet.hosts == (
        Host(
            name="n1",
            access=Access(user="root", port=2222),
            place=Place(rack="r1", hall="h", rails=("l0", "l1")),
            expected=Expected(gpus=8),
            permission="listed",
        ),
        *(
            Host(
                name=name,
                access=Access(user="burnin"),
                place=Place(hall="h"),
                expected=Expected(gpus=8),
                ask="slurm",
            )
            for name in ("n2", "n3")
        ),
    )
    assert fleet.power_caps == (PowerCap(kind="hall", name="h", watts=1000),)
    assert fleet.expected_versions == {"kernel": "6.8"}


def test_a_host_that_nobody_says_is_free_has_no_permission(tmp_path: Path) -> None:
    fleet = load_fleet(_write(tmp_path, "name: a\ngroups: [{hosts: n1}]\n"))

    assert (fleet.hosts[0].permission, fleet.hosts[0].ask) == (None, None)


def test_placement_goes_by_blocks_and_by_patterns(tmp_path: Path) -> None:
    text = """
name: a
groups: [{hosts: "r[1-2]n[1-2]"}]
placement:
  - {match: "r(?P<rack>\\\\d)n\\\\d", rack: "rack-{rack}"}
  - {hosts: "r[1-2]n[1-2]", block_size: 3, switch: "leaf-{block}"}
"""
    places = [host.place for host in load_fleet(_write(tmp_path, text)).hosts]

    assert [(p.rack, p.switch) for p in places] == [
        ("rack-1", "leaf-1"),
        ("rack-1", "leaf-1"),
        ("rack-2", "leaf-1"),
        ("rack-2", "leaf-2"),
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("name: a\ngroups: []\n", r"fleet.yaml:2: groups: got \[\]; "),
        ("name: a\ngroups:\n- hosts: n[1-1000000000]\n", r"fleet.yaml:3: groups.0.hosts: .*at most 100000"),
        (
            "name: a\ngroups:\n- hosts: n1\n- hosts: n[1-3]\n",
            r"fleet.yaml:4: groups.1.hosts: 'n1' stands .*twice",
        ),
        (
            "name: a\ngroups:\n- hosts: n1\n  raks: r\n",
            r"fleet.yaml:4: groups.0.raks: .*did you mean 'rac?ks?'",
        ),
        (
            "name: a\ngroups:\n- hosts: n[1-2]\n  address: x\n",
            r"fleet.yaml:4: groups.0.address: .*single host",
        ),
        (
            "name: a\ngroups:\n- hosts: n1\n  rack: r1\nplacement:\n- hosts: n1\n  rack: r2\n",
            r"fleet.yaml:7: placement.0.rack: puts n1 at 'r2', its group at 'r1'; keep one",
        ),
        (
            "name: a\ngroups:\n- hosts: n1\nplacement:\n- {hosts: n1, rack: r1}\n- {hosts: n1, rack: r2}\n",
            r"fleet.yaml:6: placement.1.rack: puts n1 at 'r2', placement.0 at 'r1'; keep one",
        ),
        (
            "name: a\ngroups:\n- hosts: n1\nplacement:\n- hosts: n2\n  rack: r\n",
            r"fleet.yaml:5: placement.0.hosts: 'n2' is in no group",
        ),
        (
            "name: a\ngroups:\n- hosts: n1\nplacement:\n- match: x.*\n  rack: r\n",
            r"fleet.yaml:5: placement.0.match: got 'x\.\*'; no host",
        ),
        (
            "name: a\ngroups:\n- hosts: n1\nplacement:\n- match: n1\n  rack: r{row}\n",
            r"fleet.yaml:6: placement.0.rack: got 'r\{row\}'; \{row\} is unknown",
        ),
        (
            "name: a\ngroups:\n- hosts: n1\nplacement:\n- match: '('\n",
            r"fleet.yaml:5: .*no regular expression",
        ),
        (
            "name: a\ngroups:\n- hosts: n1\npower_caps:\n- rack: r9\n  watts: 5\n",
            r"fleet.yaml:5: power_caps.0.rack: got 'r9'; no host stands there",
        ),
        ("name: a\ngroups:\n- hosts: n1\npower_caps:\n- watts: 5\n", r"give one of rack, pdu, hall"),
        (
            "name: a\ngroups:\n- hosts: n1\n  wrapper: [docker, run, torch:latest]\n",
            r"fleet.yaml:4: groups.0.wrapper: .*by digest",
        ),
        ("name: a\ngroups:\n- hosts: n1\n  permission: yes\n", r"fleet.yaml:4: groups.0.permission"),
        ("", r"fleet.yaml: the file is empty"),
    ],
)
def test_a_wrong_file_is_refused_with_line_key_and_what_is_right(
    tmp_path: Path, text: str, error: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_fleet(_write(tmp_path, text))

    assert re.search(error, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.stem))
def test_every_example_is_a_fleet(path: Path) -> None:
    fleet = load_fleet(path)

    assert len(fleet.hosts) >= 2
    assert all(host.permission or host.ask for host in fleet.hosts)
