"""The shipped experiments on hosts: each is sound, names its hosts, and its fault says what it stands for."""

from __future__ import annotations

import pytest

from experiments.catalogue_list import FOLDER, read_catalogue
from experiments.experiment import load_experiment
from experiments.faults.fault import load_fault
from experiments.host_agent.faults import FAULTS
from experiments.hosts.brings_about import OF_FIELDS, OF_SERVICES, OF_XIDS
from probes.failure_categories import failure_categories

ENTRIES = {entry.path.stem: entry for entry in read_catalogue(FOLDER / "hosts")}


def test_every_fault_of_hosts_has_an_experiment_of_its_name() -> None:
    assert {name.replace(".", "-") for name in FAULTS} - set(ENTRIES) == set()


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_an_experiment_breaks_that_one_thing_on_named_hosts_and_puts_it_back(name: str) -> None:
    experiment = load_experiment(ENTRIES[name].path)

    assert [one.fault.replace(".", "-") for one in ENTRIES[name].breaks] == [name]
    assert [host.name for host in experiment.target.hosts] == ["gpu-node-1", "gpu-node-2"]
    assert experiment.document["rollbacks"][0]["provider"]["func"] == "undo_faults"
    assert f"overproof gameday plan experiments/catalogue/hosts/{name}.yaml" in ENTRIES[name].path.read_text()


def test_what_a_fault_stands_for_follows_from_what_it_is_told() -> None:
    assert ENTRIES["service-stop"].breaks[0].categories == ("host-down",)
    assert ENTRIES["gpu-xid"].breaks[0].categories == ("gpu-lost",)
    assert ENTRIES["gpu-dcgm-inject"].breaks[0].categories == ("gpu-lost",)
    for fault, unit, stands_for in (
        ("service.stop", {"unit": "nvidia-fabricmanager.service"}, ("nvlink",)),
        ("service.stop", {"unit": "cron"}, ("software-crash",)),
        ("gpu.xid", {"xid": 119}, ("gpu-system-processor",)),
        ("gpu.xid", {"xid": 1}, ()),
        ("gpu.dcgm-inject", {"field": 311, "value": 1}, ("gpu-memory",)),
        ("gpu.dcgm-inject", {"field": 230, "value": 74}, ("nvlink",)),
    ):
        assert load_fault(fault).covered({"arguments": unit}) == stands_for
    assert failure_categories().unknown({*OF_FIELDS, *OF_SERVICES, *OF_XIDS}) == []


def test_what_may_set_off_automation_or_stay_is_a_high_risk_and_what_is_synthetic_says_so() -> None:
    faults = {name: load_fault(name) for name in FAULTS}

    assert {name for name, fault in faults.items() if fault.fidelity == "S"} == {"gpu.dcgm-inject", "gpu.xid"}
    assert {name for name, fault in faults.items() if not fault.is_undoable} == {"gpu.xid"}
    assert {name for name, fault in faults.items() if fault.risk == "high"} == {
        "gpu.dcgm-inject",
        "gpu.unbind",
        "gpu.xid",
        "host.power",
    }


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_an_experiment_that_says_that_it_is_noticed_asks_whether_an_alert_rang(name: str) -> None:
    experiment = load_experiment(ENTRIES[name].path)
    says = any(word in experiment.title for word in ("noticed", "missed", "rings"))

    assert (experiment.alerts is not None) == says
