"""Whole burn-ins of this machine, each in processes of its own: healthy, with seeded faults, cut off.

The load is short, so the runs are too; every fault goes through worker, agent, launcher, record and rules.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from burnin.judging import judge_run
from burnin.launcher import launch
from burnin.node.order import order_to_json
from burnin.plan import PlanSpec
from burnin.rules.gpu_health import GPU_RULES
from probes.child import wait_until
from probes.event import Event
from probes.finding import finding_to_json
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import Run, load_run
from reports.session import recording
from tests.processes import processes_with, start_job, wait_for
from tests.twins.nvml import Scenario, uuid

# The shortest stages that still give every rule what it needs, and an impatient watch.
PLAN = (
    "device: cpu\nstall_s: 3\nduration_s: 8\n"
    "matmul: {length_s: 2, formats: [fp32, bf16]}\nallreduce: {length_s: 1}\n"
)
NO_ALLREDUCE = f"{PLAN}only: [matmul]\n"


@dataclass(frozen=True)
class Burn:
    """One run of the command and what it printed."""

    exit_code: int
    document: dict[str, Any]
    errors: str

    @property
    def run(self) -> Run:
        return load_run(Path(self.document["run"]))

    def having(self, outcome: Outcome | None) -> set[tuple[str, str]]:
        """Return rule and subject of the findings with an outcome."""
        wanted = outcome and outcome.value
        return {(f["rule"], f["subject"]) for f in self.document["findings"] if f["outcome"] == wanted}


def burn(folder: Path, plan: str, *options: str, env: dict[str, str] | None = None) -> Burn:
    (folder / "plan.yaml").write_text(plan)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "overproof", "burnin", "run", "--plan", "plan.yaml", "--json", *options],
        cwd=folder,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout, done.stderr
    return Burn(exit_code=done.returncode, document=json.loads(done.stdout), errors=done.stderr)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Burn:
    return burn(tmp_path_factory.mktemp("healthy"), PLAN)


def test_a_healthy_machine_passes_with_exit_code_0(healthy: Burn) -> None:
    assert healthy.having(Outcome.FAIL) == set()
    assert healthy.having(Outcome.INCONCLUSIVE) == set()
    assert (healthy.exit_code, healthy.document["outcome"]) == (0, "pass")
    passed = healthy.having(Outcome.PASS)
    for device in ("device:cpu:0", "device:cpu:1"):
        for rule in ("worker", "exact", "first-product", "digest", "speed", "load-reached", "allreduce"):
            assert (rule, device) in passed


def test_the_result_says_in_its_first_line_that_the_device_is_a_cpu(healthy: Burn) -> None:
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "overproof", "report", healthy.document["run"]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "PASS  Burn-in of cpu (" in shown.stdout.splitlines()[0]


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_gpu_rules_do_not_apply_without_a_gpu_and_are_not_passed(healthy: Burn) -> None:
    assert {rule for rule, _ in healthy.having(None)} >= set(GPU_RULES)
    assert {rule for rule, _ in healthy.having(Outcome.PASS)} & set(GPU_RULES) == set()


def test_each_stage_names_the_detectors_that_were_proven_and_how_far(healthy: Burn) -> None:
    controls = {
        f["subject"]: f["evidence"]["fidelity"]
        for f in healthy.document["findings"]
        if f["rule"] == "control"
    }

    assert controls["detector:matmul: bit flip in a product"] == "end to end"
    assert controls["detector:matmul: NaN in a product"] == "end to end"
    assert controls["detector:allreduce: bit flip in a reduced buffer"] == "end to end"
    assert controls["detector:power: bit flip in a digested product"] == "end to end"
    assert controls["detector:power: bit flip in an operand"] == "end to end"
    assert controls["detector:matmul: stalled worker"] == "parser only"
    assert {name.partition(":")[2].partition(":")[0] for name in controls} >= {
        "preflight",
        "matmul",
        "memory",
        "bandwidth",
        "links",
        "allreduce",
        "power",
        "aftermath",
    }


def test_judging_again_from_the_folder_gives_the_same_findings(healthy: Burn) -> None:
    again = [finding_to_json(finding) for finding in judge_run(healthy.run)]

    assert again == [f for f in healthy.document["findings"] if f["rule"] != "completeness"]


@pytest.mark.parametrize(
    ("kind", "device", "rule"),
    [
        ("bit_flip", "cpu:1", "exact"),
        ("nan", "cpu:0", "exact"),
        ("slow", "cpu:1", "speed"),
        ("stall", "cpu:1", "worker"),
    ],
)
def test_a_fault_seeded_into_matmul_fails_exactly_that_device(
    kind: str, device: str, rule: str, tmp_path: Path
) -> None:
    found = burn(tmp_path, NO_ALLREDUCE, "--seed-fault", f"matmul:{kind}@{device}")

    # What is slow among others is slow alone as well.
    wanted = {(rule, f"device:{device}")} | (
        {("speed-alone", f"device:{device}")} if kind == "slow" else set()
    )
    assert found.having(Outcome.FAIL) == wanted
    assert (found.exit_code, found.document["outcome"]) == (1, "fail")
    assert ("left-out", "stage:allreduce") in found.having(None)


def test_a_worker_that_stalls_in_a_collective_is_named_and_not_the_one_that_waits_for_it(
    tmp_path: Path,
) -> None:
    found = burn(tmp_path, f"{PLAN}only: [matmul, allreduce]\n", "--seed-fault", "allreduce:stall@cpu:1")

    assert found.having(Outcome.FAIL) == {("worker", "device:cpu:1")}
    assert ("allreduce", "device:cpu:0") in found.having(Outcome.INCONCLUSIVE)
    assert ("exact", "device:cpu:0") in found.having(Outcome.PASS)


@pytest.mark.needs("gcc")
def test_each_misbehaving_gpu_of_a_driver_is_judged_by_itself(
    twin: Path, scenario: Scenario, tmp_path: Path
) -> None:
    scenario.set(gpus=6)
    changes = {
        "temperature_1": 95,
        "ecc_uncorrected_1": 1,
        "lost_2": 1,
        "blocks_3": 1,
        "xid": 79,
        "xid_gpu": 4,
        "silent_power_5": 1,
    }
    stop = threading.Event()

    def misbehave() -> None:
        """Change the scenario once the load has begun."""
        run = tmp_path / "runs" / "latest" / "events.ndjson"
        while not stop.wait(0.05):
            if run.exists() and '"stage":"matmul"' in run.read_text():
                scenario.set(gpus=6, **changes)
                return

    thread = threading.Thread(target=misbehave)
    thread.start()
    found = burn(tmp_path, NO_ALLREDUCE, env=scenario.environment(twin))
    stop.set()
    thread.join()

    failed = found.having(Outcome.FAIL)
    assert {("heat", f"gpu:{uuid(1)}"), ("ecc", f"gpu:{uuid(1)}")} <= failed
    assert {("gpu-lost", f"gpu:{uuid(2)}"), ("xid", f"gpu:{uuid(4)}")} <= failed
    assert {subject for _, subject in failed} == {f"gpu:{uuid(n)}" for n in (1, 2, 4)}
    undecided = found.having(Outcome.INCONCLUSIVE)
    assert ("sensors", f"gpu:{uuid(3)}") in undecided
    assert ("sensors", f"gpu:{uuid(5)}") in undecided
    assert {subject for _, subject in undecided} <= {f"gpu:{uuid(n)}" for n in (2, 3, 5)}
    assert ("sensors", f"gpu:{uuid(0)}") in found.having(Outcome.PASS)
    assert ("exact", "device:cpu:0") in found.having(Outcome.PASS)


@pytest.mark.parametrize("phase", ["agent.started", "stage.started matmul"])
def test_kill_9_of_the_controller_leaves_nothing_running_and_a_record_that_can_be_judged(
    phase: str, tmp_path: Path
) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN)
    job = start_job(["burnin", "run", "--plan", "plan.yaml"], tmp_path)
    kind, _, stage = phase.partition(" ")

    def has_come() -> bool:
        latest = tmp_path / "runs" / "latest"
        return latest.exists() and any(
            e.data.get("stage", "") == stage for e in load_run(latest).events_of(kind)
        )

    wait_for(has_come, job, timeout_s=60, what=phase)
    job.signal(signal.SIGKILL)
    job.wait(timeout_s=30)

    assert wait_until(lambda: not job.descendants(), timeout_s=30), job.descendants()
    run = load_run(tmp_path / "runs" / "latest")
    outcomes = {finding.outcome for finding in judge_run(run)}
    assert run.state == "interrupted"
    assert Outcome.INCONCLUSIVE in outcomes
    assert Outcome.FAIL not in outcomes


def test_an_agent_that_falls_silent_is_ended_with_all_its_children_and_leaves_the_host_undecided(
    tmp_path: Path,
) -> None:
    order = PlanSpec.model_validate({"device": "cpu", "duration_s": 4}).to_order(seed=1)
    writer = create_run(tmp_path, kind="burnin", spec={"order": order_to_json(order)}, seed=1)
    agents: list[int] = []

    def freeze(event: Event) -> None:
        if event.kind == "agent.started":
            agents.append(int(event.data["pid"]))
        elif event.kind == "room":
            os.kill(agents[0], signal.SIGSTOP)

    started = time.monotonic()
    with recording(writer, judge_run):
        launch(order, writer, on_event=freeze, silence_s=3.0)

    assert time.monotonic() - started < 30
    findings = {(f.rule, f.subject.partition(":")[0]): f for f in load_run(writer.path).findings}
    assert findings["agent", "host"].outcome is Outcome.INCONCLUSIVE
    assert findings["agent", "host"].observed == "silent for 3 s"
    assert load_run(writer.path).outcome is Outcome.INCONCLUSIVE
    assert wait_until(lambda: not _burnin_processes(), timeout_s=30), _burnin_processes()


def _burnin_processes() -> list[str]:
    mark = f"OVERPROOF_TEST_SESSION={os.environ['OVERPROOF_TEST_SESSION']}"
    return [
        command for pid, command in processes_with(mark) if pid != os.getpid() and "burnin.node." in command
    ]


def test_a_wrong_call_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    for options, said in (
        (["--seed-fault", "matmul:melt@cpu:0"], "matmul:bit_flip"),
        (["--plan", "missing.yaml"], "missing.yaml: cannot be read"),
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "overproof", "burnin", "run", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

        assert done.returncode == 2
        assert said in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_without_any_gpu_one_finding_says_so_and_none_repeats_it(tmp_path: Path) -> None:
    job = start_job(["burnin", "run", "--device", "cuda", "--json"], tmp_path)

    assert job.wait(timeout_s=60) == 3, job.text()
    findings = json.loads(job.text().splitlines()[-1])["findings"]
    assert [f["rule"] for f in findings if f["outcome"] == "inconclusive"] == ["devices"]
