"""The vendor's tools, as executables that print what the real ones do, run by the real runner and judged.

The exit code is never what decides; what was not printed whole decides nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from burnin.judging import judge_run
from burnin.node.order import OPTIONAL_STAGES
from burnin.node.tool_run import FINISHED, Program
from burnin.node.vendor_tools import Gpu, gpus_to_load, largest_message, run_tools
from burnin.plan import PROFILES, PlanSpec, VendorSpec
from burnin.rules.dcgm_output import Severity
from burnin.rules.vendor_nccl import sweep_sizes
from probes.child import end_child, python_module, start_child, wait_until
from probes.event import Event, event_from_line
from probes.finding import Finding, verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from tests.burnin.node_record import LOAD_S, Node
from tests.burnin.vendor_output import complaint, dcgmi, install, prints, sweep, version_3, version_4
from tests.processes import processes_with
from tests.twins.machine import Machine, build_driver
from tests.twins.nvml import uuid

pytestmark = pytest.mark.needs("gcc")
GPUS = range(8)
LARGEST = 1 << 34
SIZES = sweep_sizes(8, LARGEST, 2)
OPTIONS: JsonObject = {"dcgm_level": 3, "nccl_bytes_max": LARGEST, "dcgm_within_s": 20, "nccl_within_s": 20}
MEMORY_BYTES = 80 << 30
FAIL, UNDECIDED, PASS = Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS


@dataclass(frozen=True)
class Judged:
    """The findings of a run whose own stages are healthy."""

    findings: list[Finding]

    def of(self, rule: str, subject: str) -> Finding:
        found = [f for f in self.findings if (f.rule, f.subject) == (rule, subject)]
        assert len(found) == 1, [(f.rule, f.subject) for f in self.findings if f.rule == rule]
        return found[0]

    def gpu(self, index: int, test: str = "") -> Finding:
        return self.of("vendor-diagnostic", f"gpu:{uuid(index)}" + (f"/{test}" if test else ""))

    def tool(self, name: str) -> Finding:
        return self.of("vendor-tool", f"host:{self.host}/{name}")

    def nccl(self, rule: str, tail: str = "all_reduce_perf") -> Finding:
        return self.of(rule, f"host:{self.host}/{tail}")

    @property
    def host(self) -> str:
        return next(f.subject for f in self.findings if f.rule == "agent").removeprefix("host:")

    @property
    def undecided(self) -> set[tuple[str, str]]:
        return {(f.rule, f.subject) for f in self.findings if f.outcome is UNDECIDED}


def run_program(program: Program, path: Path) -> list[Event]:
    """Run one program as the agent does: in a runner of its own."""
    runner = start_child(
        python_module("burnin.node.tool_run"), env=os.environ | {"PATH": f"{path}:{os.environ['PATH']}"}
    )
    assert runner.stdin is not None
    assert runner.stdout is not None
    runner.stdin.write(program.to_line())
    events = []
    for line in runner.stdout:
        events.append(event_from_line(line))
        if events[-1].kind == FINISHED:
            break
    assert end_child(runner)
    runner.stdout.close()
    return events


def judge(
    folder: Path,
    programs: Mapping[str, str],
    *,
    gpus: Sequence[int] = GPUS,
    options: JsonObject | None = None,
    node: Node | None = None,
) -> Judged:
    """Install stand-ins, run them on the twin's GPUs, and judge the record of a healthy node with them."""
    path, asked = install(folder / "bin", programs), OPTIONS | (options or {})
    node = node or Node()
    told: list[tuple[str, JsonObject]] = [("vendor.gpus", {"gpus": [uuid(i) for i in gpus]})]

    def run(program: Program) -> list[Event]:
        events = run_program(program, path)
        told.extend((event.kind, event.data) for event in events)
        return events

    loaded = [Gpu(uuid=uuid(index), memory_bytes=MEMORY_BYTES) for index in gpus]
    say = lambda kind, **data: told.append((kind, data))  # noqa: E731
    run_tools(loaded, asked, environment={"PATH": str(path)}, run=run, say=say)
    node.events += [(LOAD_S + 7.5, kind, data) for kind, data in told]
    node.stages, node.options = {"vendor": 60.0}, {"vendor": asked}
    return Judged(judge_run(node.write(folder / "runs")))


def test_clean_output_passes_beside_our_own_figures_whatever_the_exit_code(tmp_path: Path) -> None:
    clean = prints(sweep(GPUS, SIZES), exit_code=1)
    judged = judge(tmp_path, {"dcgmi": dcgmi(version_4(GPUS), GPUS, exit_code=226), "all_reduce_perf": clean})

    assert verdict(judged.findings) is PASS
    assert all(judged.gpu(index).outcome is PASS for index in GPUS)
    assert "7 tests passed" in judged.gpu(0).observed
    assert judged.nccl("vendor-collective").outcome is PASS
    assert judged.nccl("vendor-bandwidth", "all_reduce_perf in place").outcome is PASS
    assert "exit code 226, which is no evidence" in judged.tool("dcgmi diag").observed
    assert "exit code 1, which is no evidence" in judged.tool("all_reduce_perf").observed
    assert judged.tool("all_gather_perf").outcome is None
    beside = judged.nccl("side-by-side", f"all-reduce of {LARGEST:,} B")
    assert beside.outcome is None
    assert beside.observed.startswith("ours 475 GB/s; nccl-tests 475 out of place (100% of ours)")


def test_where_nothing_is_installed_the_stage_says_so_and_does_not_apply(tmp_path: Path) -> None:
    judged = judge(tmp_path, {})

    told = [f for f in judged.findings if f.rule == "vendor-tool"]
    assert {f.outcome for f in told} == {None}
    assert {f.observed for f in told} == {"not installed: not on PATH"}
    assert len(told) == 6
    assert verdict(judged.findings) is PASS


def test_a_failure_with_exit_code_0_names_the_gpu_by_uuid_where_dcgm_numbers_them_otherwise(
    tmp_path: Path,
) -> None:
    order = list(reversed(GPUS))  # DCGM's GPU 2 is NVML's GPU 5
    failed = complaint(Severity.ISOLATE, "GPU 2 found 12 miscompares", error_id=95)
    report = version_4(order, {("memory", 2): failed})

    judged = judge(tmp_path, {"dcgmi": dcgmi(report, order)})

    assert judged.gpu(5, "memory").outcome is FAIL
    assert "take the GPU out of service" in judged.gpu(5, "memory").next_step
    assert {f.subject for f in judged.findings if f.outcome is FAIL} == {f"gpu:{uuid(5)}/memory"}


SEVERITIES = {
    Severity.NONE: (FAIL, "run this test alone"),
    Severity.MONITOR: (UNDECIDED, "watch it"),
    Severity.ISOLATE: (FAIL, "take the GPU out of service"),
    Severity.UNKNOWN: (FAIL, "run this test alone"),  # 3 is not RESET
    Severity.TRIAGE: (FAIL, "field diagnostic"),
    Severity.CONFIG: (UNDECIDED, "mend the configuration"),
    Severity.RESET: (FAIL, "reset the GPU"),  # 6 is
}


def test_each_severity_leads_to_its_own_step_in_both_versions(tmp_path: Path) -> None:
    changed = {("pcie", int(severity)): complaint(severity, "x") for severity in SEVERITIES}
    for version, report in {"3": version_3(GPUS, changed), "4": version_4(GPUS, changed)}.items():
        judged = judge(tmp_path / version, {"dcgmi": dcgmi(report, GPUS)})

        for severity, (outcome, step) in SEVERITIES.items():
            assert judged.gpu(int(severity), "pcie").outcome is outcome, severity
            assert step in judged.gpu(int(severity), "pcie").next_step
        assert judged.gpu(7).outcome is PASS


def test_what_was_skipped_missing_or_without_memory_is_never_a_pass(tmp_path: Path) -> None:
    unallocated = {
        "status": "Pass",
        "info": ["Couldn't allocate at least 75.0% of GPU memory on GPU 1"],
    }
    changed: dict[tuple[str, int], JsonObject | None] = {
        ("targeted_power", 0): {"status": "Skip"},
        ("memory", 1): unallocated,
        ("memory", 2): complaint(Severity.NONE, "cannot", status="Pass", error_id=56),
        ("diagnostic", 3): None,
        ("pcie", 4): complaint(
            Severity.MONITOR, "There were thermal violations totaling 0.0 seconds for GPU 4"
        ),
        ("pcie", 5): complaint(
            Severity.MONITOR, "There were thermal violations totaling 3.1 seconds for GPU 5"
        ),
    }
    changed |= {("eud", number): complaint(1, "no EUD here", status="Skip") for number in GPUS}
    changed |= {(test, 6): None for test in ("software", "memory", "pcie", "diagnostic", "eud")}
    changed |= {(test, 6): None for test in ("targeted_stress", "targeted_power", "memory_bandwidth")}
    tests = ("memory", "pcie", "diagnostic", "targeted_stress", "targeted_power", "memory_bandwidth", "eud")

    judged = judge(tmp_path, {"dcgmi": dcgmi(version_4(GPUS, changed, tests), GPUS)})

    assert judged.gpu(0, "targeted_power").outcome is UNDECIDED
    assert judged.gpu(1, "memory").outcome is UNDECIDED
    assert judged.gpu(1).observed.startswith("6 tests passed: software, pcie")
    assert judged.gpu(2, "memory").outcome is UNDECIDED
    assert judged.gpu(3, "diagnostic").outcome is UNDECIDED
    assert judged.gpu(4, "pcie").outcome is None  # no time at all: our own rule counts nanoseconds
    assert judged.gpu(5, "pcie").outcome is UNDECIDED
    assert judged.gpu(6).outcome is UNDECIDED
    assert judged.gpu(7, "eud").outcome is None
    assert judged.gpu(7).outcome is PASS
    assert {f.rule for f in judged.findings if f.outcome is FAIL} == set()


def test_a_level_whose_tests_are_not_in_the_report_is_undecided(tmp_path: Path) -> None:
    judged = judge(tmp_path, {"dcgmi": dcgmi(version_4(GPUS, tests=("memory", "pcie")), GPUS)})

    assert judged.gpu(0, "memory_bandwidth").outcome is UNDECIDED
    assert verdict(judged.findings) is UNDECIDED


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", "it printed nothing"),
        (prints('{"DCGM Diagnostic": {"test_cat'), "its JSON is torn"),
        (prints("Error: unable to establish a connection\n", exit_code=255), "no JSON: Error: unable"),
        (prints('{"other": 1}'), "not a report of dcgmi diag"),
        ("yes | head -c 40000000", "it printed too much"),
    ],
)
def test_a_report_that_cannot_be_read_is_undecided(tmp_path: Path, script: str, said: str) -> None:
    listed = dcgmi("", GPUS).replace("printf %s ''\nexit 0", script)

    judged = judge(tmp_path, {"dcgmi": listed})

    assert judged.tool("dcgmi diag").outcome is UNDECIDED
    assert said in judged.tool("dcgmi diag").observed


def test_a_daemon_that_does_not_answer_is_ended_at_its_deadline_with_all_that_was_started(
    tmp_path: Path,
) -> None:
    mark = f"OVERPROOF_HANGS={tmp_path}"
    hangs = f"{mark}; export OVERPROOF_HANGS\ntrap '' TERM\nsleep 321 &\nsleep 321"
    listed = dcgmi("", GPUS).replace("printf %s ''\nexit 0", hangs)
    started = time.monotonic()

    judged = judge(tmp_path, {"dcgmi": listed}, options={"dcgm_within_s": 0.5})

    assert time.monotonic() - started < 20
    assert judged.tool("dcgmi diag").outcome is UNDECIDED
    assert "it was ended" in judged.tool("dcgmi diag").observed
    assert processes_with(mark) == []


def test_a_daemon_that_knows_other_gpus_only_is_not_let_loose_on_them(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    script = dcgmi(version_4([7]), [7]).replace("fi\n", f"fi\ntouch {touched}\n")

    judged = judge(tmp_path, {"dcgmi": script}, gpus=[0, 1], options={"nccl_bytes_max": 0})

    assert not touched.exists()
    assert judged.tool("dcgmi diag").outcome is UNDECIDED


def test_the_diagnostic_is_given_the_numbers_of_our_gpus_alone(tmp_path: Path) -> None:
    said = tmp_path / "arguments"
    script = f'echo "$@" >> {said}\n' + dcgmi(version_4(GPUS), GPUS)

    judge(tmp_path, {"dcgmi": script}, gpus=[6, 3], options={"nccl_bytes_max": 0})

    assert said.read_text().splitlines() == ["discovery -l", "diag -r 3 -i 3,6 -j"]


def test_wrong_elements_fail_the_node_although_the_program_says_ok(tmp_path: Path) -> None:
    text = sweep(GPUS, SIZES, wrong=lambda size: "3" if size == 1 << 20 else "0")

    judged = judge(tmp_path, {"all_reduce_perf": prints(text)})

    found = judged.nccl("vendor-collective")
    assert found.outcome is FAIL
    assert found.observed == "wrong elements: 3 at 1,048,576 B out of place"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (sweep(GPUS, SIZES, wrong=lambda size: "N/A"), "results were not checked"),
        (sweep(GPUS, SIZES[:-3]), "29 of 32 sizes"),
        (sweep(GPUS, SIZES, footer=False), "it broke off"),
        (sweep(GPUS[:-1], SIZES), "it ran on other GPUs"),
        ("# Reducing maxBytes to 4096 due to memory limitation\n" + sweep(GPUS, SIZES[:10]), "4,096 B only"),
    ],
)
def test_an_unchecked_partial_or_strange_sweep_is_undecided(tmp_path: Path, text: str, said: str) -> None:
    judged = judge(tmp_path, {"all_reduce_perf": prints(text)})

    assert judged.nccl("vendor-collective").outcome is UNDECIDED
    assert said in judged.nccl("vendor-collective").observed


def test_the_mean_decides_nothing_and_one_slow_size_in_one_way_does(tmp_path: Path) -> None:
    mean_is_low = sweep(GPUS, SIZES, mean=10.0)
    one_is_slow = sweep(GPUS, SIZES, mean=475.0, in_place=lambda s: 300.0 if s == LARGEST else 475.0)

    low = judge(tmp_path / "low", {"all_reduce_perf": prints(mean_is_low)})
    slow = judge(tmp_path / "slow", {"all_reduce_perf": prints(one_is_slow)})

    assert verdict(low.findings) is PASS
    assert slow.nccl("vendor-bandwidth", "all_reduce_perf in place").outcome is FAIL
    assert slow.nccl("vendor-bandwidth", "all_reduce_perf out of place").outcome is PASS


def test_no_floor_is_asked_of_a_size_that_cannot_reach_it(tmp_path: Path) -> None:
    """128 MiB on eight H100 reach some 400 GB/s; a floor of 800 for every size fails every node."""
    text = sweep(GPUS, sweep_sizes(8, 1 << 27, 2), busbw=lambda size: 390.0)

    judged = judge(tmp_path, {"all_reduce_perf": prints(text)}, options={"nccl_bytes_max": 1 << 27})

    assert verdict(judged.findings) is PASS
    assert judged.nccl("vendor-bandwidth", "all_reduce_perf in place").outcome in (None, PASS)


def test_a_gpu_at_a_third_of_its_speed_fails_although_every_test_of_dcgm_passes(tmp_path: Path) -> None:
    slow = Node(model="A100", tflops=lambda gpu, second: 90.0 if gpu == 3 else 270.0)

    judged = judge(tmp_path, {"dcgmi": dcgmi(version_4(GPUS), GPUS)}, node=slow)

    assert judged.gpu(3).outcome is PASS
    assert judged.of("tflops", f"gpu:{uuid(3)}").outcome is FAIL
    assert verdict(judged.findings) is FAIL


def test_gpus_in_use_hidden_or_in_slices_are_left_alone() -> None:
    free = {"uuid": "GPU-a", "name": "x", "pci_bus_id": "1", "processes": []}
    used = {"uuid": "GPU-b", "name": "x", "pci_bus_id": "2", "processes": [42]}

    assert gpus_to_load({"gpus": [free, used]}, {}, intruded=set())[0] == []
    assert gpus_to_load({"gpus": [free]}, {}, intruded={"GPU-a"})[0] == []
    visible, _ = gpus_to_load({"gpus": [free, used]}, {"CUDA_VISIBLE_DEVICES": "GPU-a"}, intruded=set())
    assert [gpu.uuid for gpu in visible] == ["GPU-a"]
    assert largest_message([Gpu(uuid="x", memory_bytes=40 << 30)], 1 << 34) == 1 << 33


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("machine")
    made = Machine(folder=folder, library=build_driver(folder / "driver", 580), age=580, gpus=2)
    made.write()
    return made


def test_the_command_runs_the_tools_after_its_own_load_and_leaves_them_on_ctrl_c(
    machine: Machine, tmp_path: Path
) -> None:
    mark = f"OVERPROOF_SLOW={tmp_path}"
    slow = f"{mark}; export OVERPROOF_SLOW\ntrap 'echo stopped >> {tmp_path}/stopped; exit 1' TERM\n"
    slow += "sleep 300 & wait"
    path = install(
        tmp_path / "bin",
        {
            "dcgmi": dcgmi(version_4(GPUS[:2], tests=()), GPUS[:2]),
            "all_reduce_perf": prints(sweep(GPUS[:2], sweep_sizes(8, 1 << 20, 2))),
            "sendrecv_perf": slow,
        },
    )
    (tmp_path / "plan.yaml").write_text(
        "device: cpu\ncpu_devices: 1\nonly: [vendor]\nvendor: {dcgm_level: 1, nccl_bytes_max: 1048576}\n"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "overproof", "burnin", "run", "--plan", "plan.yaml", "--json"],
        cwd=tmp_path,
        env=os.environ | machine.environment() | {"PATH": f"{path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
    ) as command:
        assert wait_until(lambda: processes_with(mark) != [], timeout_s=60)
        command.send_signal(2)
        command.communicate(timeout=60)

    assert command.returncode == 130
    assert processes_with(mark) == []
    assert (tmp_path / "stopped").read_text() == "stopped\n"  # asked to, before it was made to
    run = next((tmp_path / "runs").glob("*-burnin-*"))
    findings = [json.loads(line) for line in (run / "findings.ndjson").read_text().splitlines()]
    outcomes = {(f["rule"], f["subject"].partition("/")[2]): f["outcome"] for f in findings}
    assert outcomes["vendor-collective", "all_reduce_perf"] == "pass"
    assert outcomes["vendor-tool", "sendrecv_perf"] == "inconclusive"
    assert outcomes["foreign-process", ""] == "pass"
    assert {f["outcome"] for f in findings if f["rule"] == "vendor-diagnostic"} == {"pass"}


def test_the_stage_is_no_part_of_a_profile() -> None:
    for profile in PROFILES:
        order = PlanSpec.model_validate({"profile": profile}).to_order(seed=1)
        assert {stage.name for stage in order.stages}.isdisjoint(OPTIONAL_STAGES)
    asked = PlanSpec(vendor=VendorSpec()).to_order(seed=1)
    assert [stage.name for stage in asked.stages][-2:] == ["vendor", "aftermath"]
