"""Whole burn-ins whose sensors misbehave: the command, its exit code, the subject that it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from probes.child import wait_until
from tests.burnin.test_sensors import GONE
from tests.twins.machine import FIRST_BUS, Machine, build_driver
from tests.twins.nvml import uuid

pytestmark = pytest.mark.needs("gcc")
PLAN = "device: cpu\nonly: [matmul]\nmatmul: {{length_s: {length_s}, formats: [fp32]}}\n"


@dataclass
class Burning:
    """One run of the command."""

    process: subprocess.Popen[str]
    folder: Path

    def has_told(self, kind: str) -> bool:
        return any(f'"{kind}"' in path.read_text() for path in self.folder.glob("runs/*/events.ndjson"))

    def end(self) -> tuple[int, dict[str, Any]]:
        said, errors = self.process.communicate(timeout=110)
        assert said, errors
        return self.process.returncode, json.loads(said)


def _begin(machine: Machine, root: Path, *, length_s: int = 3, **env: str) -> Burning:
    (machine.folder / "plan.yaml").write_text(PLAN.format(length_s=length_s))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "overproof", "burnin", "run", "--plan", "plan.yaml", "--json"],
        cwd=machine.folder,
        env=os.environ | machine.environment() | {"OVERPROOF_HOST_ROOT": str(root)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Burning(process=process, folder=machine.folder)


def _findings(document: dict[str, Any], outcome: str) -> set[tuple[str, str]]:
    return {(f["rule"], f["subject"]) for f in document["findings"] if f["outcome"] == outcome}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, dict[str, Any]]]:
    """Run all of them at once: they wait for their sensors most of the time."""
    machines, begun = {}, {}
    for name, age in {"healthy": 535, "lost": 580, "kernel log": 570, "intruder": 580}.items():
        folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
        (folder / "root" / "dev").mkdir(parents=True)
        (folder / "root" / "dev" / "kmsg").touch()
        machines[name] = Machine(folder=folder, library=build_driver(folder / "driver", age), age=age)
        machines[name].write()
        length_s = 25 if name == "intruder" else 3
        begun[name] = _begin(machines[name], folder / "root", length_s=length_s)

    def through(name: str) -> tuple[int, dict[str, Any]]:
        # Each has its trouble as soon as it works: the slowest to start may be seconds behind the first.
        assert wait_until(lambda: begun[name].has_told("worker.ready"), timeout_s=90), name
        _trouble(name, machines[name])
        return begun[name].end()

    with ThreadPoolExecutor(max_workers=len(begun)) as pool:
        return dict(zip(begun, pool.map(through, begun), strict=True))


def _trouble(name: str, machine: Machine) -> None:
    if name == "lost":
        machine.write("lost.3 1")
    if name == "intruder":
        machine.write("processes.3 4242")
    if name == "kernel log":
        with (machine.folder / "root" / "dev" / "kmsg").open("a") as kernel:
            kernel.write(GONE.format(bus=FIRST_BUS + 3))


def test_a_healthy_machine_with_an_old_driver_has_nothing_against_it_but_the_planted_files(ends: Any) -> None:
    code, document = ends["healthy"]

    assert _findings(document, "fail") == set()
    assert {rule for rule, _ in _findings(document, "inconclusive")} == {"host-root"}
    assert code == 3


def test_a_gpu_lost_in_mid_run_fails_the_run_and_is_named_once(ends: Any) -> None:
    code, document = ends["lost"]
    failed = {subject for _, subject in _findings(document, "fail")}

    assert (code, failed) == (1, {f"gpu:{uuid(3)}"})
    assert ("gpu-lost", f"gpu:{uuid(3)}") in _findings(document, "fail")


def test_an_xid_in_the_kernel_log_alone_fails_the_run(ends: Any) -> None:
    code, document = ends["kernel log"]

    assert code == 1
    assert _findings(document, "fail") == {("xid", f"gpu:{uuid(3)}")}


def test_a_process_that_appears_in_mid_run_ends_our_load_and_is_named(ends: Any) -> None:
    code, document = ends["intruder"]
    (finding,) = [f for f in document["findings"] if f["rule"] == "foreign-process" and f["next_step"]]
    events = (Path(document["run"]) / "events.ndjson").read_text().splitlines()
    times = {kind: e["t_ns"] for e in map(json.loads, events) if (kind := e["kind"])}

    assert code == 3
    assert finding["subject"] == f"gpu:{uuid(3)}"
    assert "pid 4242 began to compute on it during matmul; our load was ended" in finding["observed"]
    assert (times["stage.finished"] - times["gpu.intruder"]) / 1e9 < 10
