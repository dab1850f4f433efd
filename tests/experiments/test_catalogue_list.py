"""The list of the catalogue is what the files and their faults say, in 80 columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import overproof
from experiments.catalogue_list import FOLDER, WIDTH, fault_of, read_catalogue, render_lines
from experiments.targets.all import ACTIONS_MODULE
from probes.failure_categories import failure_categories
from probes.json_types import JsonObject

ENTRIES = {entry.path.stem: entry for entry in read_catalogue()}


def test_every_experiment_that_is_shipped_is_listed_and_its_fault_known() -> None:
    experiments = {path.stem for path in FOLDER.rglob("*.yaml") if "\nmethod:" in path.read_text()}

    assert set(ENTRIES) == experiments
    assert [name for name, entry in ENTRIES.items() if not entry.breaks] == []
    assert [
        name
        for name, entry in ENTRIES.items()
        for one in entry.breaks
        if one.fault != "declared" and (not one.categories or failure_categories().unknown(one.categories))
    ] == []


def test_one_experiment_is_listed_with_what_its_fault_says() -> None:
    (one,) = ENTRIES["replica-hang"].breaks

    assert (one.fault, one.categories, one.fidelity, one.risk) == ("replica.hang", ("hang",), "P", "low")
    assert one.heals == "the lab's liveness check"
    assert ENTRIES["replica-hang"].recovery_s == 20
    assert ENTRIES["replica-hang"].kind == "lab"


def test_a_fault_that_is_several_in_one_is_listed_as_the_one_that_the_experiment_brings_about() -> None:
    assert ENTRIES["gateway-reset"].breaks[0].categories == ("mid-stream-cut",)
    assert ENTRIES["gateway-latency"].breaks[0].categories == ("overload",)


def test_a_fault_of_a_host_is_listed_by_what_its_arguments_say() -> None:
    found = fault_of(
        {"module": "experiments.hosts.actions", "func": "gpu_xid", "arguments": {"gpu": "0", "xid": 79}}
    )

    assert found is not None
    assert found[0].covered(found[1]) == ("gpu-lost",)


def test_an_action_that_breaks_nothing_is_no_fault() -> None:
    assert fault_of({"module": ACTIONS_MODULE, "func": "undo_faults"}) is None
    assert ENTRIES["stop-and-go"].kind == "named"
    assert [one.fault for one in ENTRIES["stop-and-go"].breaks] == ["declared"]


def test_the_list_fits_80_columns_and_says_what_is_not_known() -> None:
    lines = list(render_lines(list(ENTRIES.values()), root=Path("/nowhere")))

    assert max(map(len, lines)) <= WIDTH
    assert any(line.startswith("  replica-kill ") and line.endswith(" 15 s") for line in lines)
    assert any(line.startswith("  stop-and-go ") and " ? ?" in line for line in lines)


def test_the_command_lists_them_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    status = overproof.run_command(["gameday", "catalogue", "--json"])
    document: JsonObject = json.loads(capsys.readouterr().out)
    listed = {entry["name"]: entry for entry in document["experiments"]}

    assert status == 0
    assert listed["replica-spot"]["breaks"][0]["heals"] == "the lab's supervisor"
    assert listed["replica-spot"]["path"].endswith("experiments/catalogue/local/replica-spot.yaml")
