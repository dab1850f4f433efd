"""Sensors from the driver's library to the finding: the real sampler and pynvml, a twin of the library."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from probes.child import wait_until
from probes.finding import Finding
from probes.outcome import Outcome
from tests.burnin.sampled import begin, having, sample
from tests.twins.machine import DRIVERS, FIRST_BUS, MODELS, Machine, build_driver
from tests.twins.nvml import uuid

pytestmark = pytest.mark.needs("gcc")
GONE = "3,100,5000,-;NVRM: Xid (PCI:0000:{bus:02x}:00): 79, pid='<unknown>', GPU has fallen off the bus.\n"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {age: build_driver(tmp_path_factory.mktemp(f"driver-{age}"), age) for age in DRIVERS}


@pytest.fixture
def machine(libraries: dict[int, Path], tmp_path: Path) -> Callable[..., Machine]:
    def make(*faults: str, model: str = "H100", age: int = 580, gpus: int = 8) -> Machine:
        folder = tmp_path / f"{model}-{age}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        made = Machine(folder=folder, library=libraries[age], model=model, age=age, gpus=gpus)
        made.write(*faults)
        return made

    return make


def _steps(findings: list[Finding], rule: str) -> str:
    return next(f.next_step for f in findings if f.rule == rule and f.outcome is Outcome.FAIL)


def test_healthy_gpus_of_every_model_with_drivers_of_three_ages_pass(machine: Callable[..., Machine]) -> None:
    machines = [machine(model=model, age=age) for model in MODELS for age in DRIVERS]
    with ThreadPoolExecutor(max_workers=7) as pool:
        judged = list(pool.map(sample, machines))

    for made, findings in zip(machines, judged, strict=True):
        undecided = [f for f in findings if f.outcome not in (None, Outcome.PASS)]
        assert undecided == [], f"{made.model} with driver {made.age}"
        assert having(findings, Outcome.PASS)["required-evidence"] == set(range(8))
        assert having(findings, Outcome.PASS)["throttle"] == set(range(8))


HELD = ["reasons.3 0x24", "sw_thermal_ns.3 0 0 900000000"]
# One fault on GPU 3, the rules that must fail for it, and a word of the next step.
FAULTS = {
    "heat": (["temperature.3 93"], "heat", "fans"),
    "hbm heat": (["memory_temperature.3 99"], "memory-heat", "airflow"),
    "software thermal beside the power cap": (["reasons.3 0x24"], "throttle", "cooling"),
    "hardware thermal beside its umbrella": (["reasons.3 0x48"], "throttle", "cooling"),
    "held back in nanoseconds that no sample sees": (
        ["sw_thermal_ns.3 0 0 500000000"],
        "throttle",
        "cooling",
    ),
    "uncorrectable memory error": (["ecc_uncorrected.3 2 1.2"], "ecc", "reset"),
    "ecc switched off": (["ecc_mode.3 0"], "ecc-mode", "nvidia-smi -e 1"),
    "remapping pending": (["remap_pending.3 1"], "row-remap", "reset"),
    "remapping failed": (["remap_failure.3 1"], "row-remap", "RMA"),
    "row remapped meanwhile": (["remap_uncorrected.3 1 1.2"], "row-remap", "reset"),
    "sram beyond its threshold": (["sram_threshold.3 1"], "sram", "RMA"),
    "half a link": (["pcie_width.3 8"], "pcie-link", "reseat"),
    "an old generation of the link": (["pcie_gen.3 1"], "pcie-link", "reseat"),
    "replays": (["pcie_replay.3 0 0 1000"], "pcie-errors", "reseat"),
    "fatal error of the link": (["pcie_fatal.3 1 1.2"], "pcie-errors", "reseat"),
    "nvlink down": (["nvlink_down.3 4"], "nvlink", "bridge"),
    "nvlink recovered": (["nvlink_recovery.3 1 1.2"], "nvlink", "reset"),
    "nvlink crc": (["nvlink_crc.3 0 0 5000"], "nvlink", "reset"),
    "fabric not completed": (["fabric.3 2"], "fabric", "fabric manager"),
    "fabric degraded": (["fabric_health.3 0x1a9"], "fabric", "fabric manager"),
    "driver wants a reboot": (["recovery_action.3 2"], "recovery-action", "reboot"),
    "power limit lowered": (["limit_mw.3 500000"], "power-limit", "nvidia-smi -pl"),
    "memory clock locked": (["mem_mhz.3 1593"], "memory-clock", "nvidia-smi -rmc"),
    "xid": (["xid 79 1", "xid_gpu 3"], "xid", ""),
    "corrupt inforom": (["inforom_corrupt.3 1"], "inforom", "RMA"),
    "double-bit event": (["event 0x2 1", "event_gpu 3"], "gpu-event", "reset"),
    "gpu unavailable": (["event 0x4000 1", "event_gpu 3"], "gpu-event", "power-cycle"),
}


# Healthy machines, and some of which not everything can be said: age of the driver, lines of the scenario.
OTHERS = {
    "power cap": (580, ["reasons 4", "power_ns 0 0 900000000"]),
    "570 at 251": (570, ["clock_fields 251", *HELD]),
    "580 at 269": (580, ["clock_fields 269", *HELD]),
    "580 at 251": (580, ["clock_fields 251", *HELD]),
    "lost": (580, ["lost.3 1 1.0"]),
    "refused": (580, ["deny_remap.3 4"]),
    "held": (580, ["memory_used_mib.3 20480"]),
    "other version": (570, ["deny_fabric 25"]),
    "slices": (580, ["mig.3 1"]),
    "corrupt version": (580, ["deny_inforom.3 14"]),
    "contained event": (580, ["event 0x1 1", "event_gpu 3"]),
    "few events": (580, ["events 0x8", "event 0x2 1", "event_gpu 3"]),
    "hot among cool": (580, ["temperature.3 80", "margin.3 4", "memory_temperature.3 92"]),
    "no margin": (580, ["margin 0"]),
    "idle": (580, ["util 0", "pcie_gen 1", "mem_mhz 405", "reasons 1"]),
}
Judged = dict[str, list[Finding]]


@pytest.fixture(scope="module")
def judged(libraries: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Sample one machine for each case, many at a time: most of it is waiting."""
    cases = {name: (580, faults) for name, (faults, _, _) in FAULTS.items()} | OTHERS
    machines = []
    for age, faults in cases.values():
        folder = tmp_path_factory.mktemp("machine")
        machines.append(Machine(folder=folder, library=libraries[age], age=age))
        machines[-1].write(*faults)
    with ThreadPoolExecutor(max_workers=10) as pool:
        return dict(zip(cases, pool.map(sample, machines), strict=True))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_one_gpu_fails_its_rule_for_that_gpu_and_no_rule_for_another(
    name: str, judged: Judged
) -> None:
    _, rule, word = FAULTS[name]

    assert having(judged[name], Outcome.FAIL) == {rule: {3}}
    assert word in _steps(judged[name], rule)


def test_a_power_cap_with_its_nanoseconds_is_no_fault(judged: Judged) -> None:
    findings = judged["power cap"]

    assert having(findings, Outcome.FAIL) == having(findings, Outcome.INCONCLUSIVE) == {}


@pytest.mark.parametrize(("age", "place"), [(570, 251), (580, 269), (580, 251)])
def test_time_held_back_is_found_wherever_the_driver_keeps_it(age: int, place: int, judged: Judged) -> None:
    (failed,) = [f for f in judged[f"{age} at {place}"] if f.outcome is Outcome.FAIL]

    assert f"software thermal, by fields {place} to {place + 2}" in failed.observed
    assert failed.subject == f"gpu:{uuid(3)}"


def test_a_gpu_lost_in_mid_run_is_named_and_its_siblings_pass(judged: Judged) -> None:
    failed, undecided = (having(judged["lost"], o) for o in (Outcome.FAIL, Outcome.INCONCLUSIVE))

    assert failed["gpu-lost"] == {3}
    assert set().union(*failed.values(), *undecided.values()) == {3}


def test_a_reading_that_this_driver_has_and_that_is_refused_leaves_the_gpu_undecided(judged: Judged) -> None:
    (finding,) = [f for f in judged["refused"] if f.outcome is Outcome.INCONCLUSIVE]

    assert having(judged["refused"], Outcome.INCONCLUSIVE) == {"required-evidence": {3}}
    assert finding.evidence["missing"] == ["row_remap_failure", "row_remap_pending"]
    assert "Insufficient Permissions" in finding.observed


def test_an_inforom_that_one_call_calls_corrupt_fails_whatever_the_checksums_say(judged: Judged) -> None:
    (failed,) = [f for f in judged["corrupt version"] if f.outcome is Outcome.FAIL]

    assert (failed.rule, failed.subject) == ("inforom", f"gpu:{uuid(3)}")
    assert "inforom_image" in failed.observed


def test_a_single_bit_event_is_said_and_an_event_that_a_driver_lacks_is_not_waited_for(
    judged: Judged,
) -> None:
    for name in ("contained event", "few events"):
        assert having(judged[name], Outcome.FAIL) == having(judged[name], Outcome.INCONCLUSIVE) == {}, name
    told = {
        f.observed for f in judged["contained event"] if f.rule == "gpu-event" and "single-bit" in f.observed
    }
    assert len(told) == 1
    assert {f.outcome for f in judged["few events"] if f.rule == "gpu-event"} == {None}


def test_a_small_margin_and_a_gpu_hotter_than_its_node_are_shown_and_no_fault(judged: Judged) -> None:
    notes = {f.rule: f.observed for f in judged["hot among cool"] if "watch it" in f.observed}

    assert having(judged["hot among cool"], Outcome.FAIL) == {}
    assert set(notes) == {"heat", "memory-heat"}
    assert "margin was down to 4 °C" in notes["heat"]
    assert "25 °C above the median" in notes["heat"]
    assert not [f for f in judged["no margin"] if "watch it" in f.observed]


def test_memory_that_somebody_holds_leaves_the_gpu_undecided(judged: Judged) -> None:
    assert having(judged["held"], Outcome.INCONCLUSIVE) == {"memory-in-use": {3}}


def test_a_structure_of_another_version_is_not_applicable_and_no_silence(judged: Judged) -> None:
    findings = judged["other version"]

    assert having(findings, Outcome.FAIL) == having(findings, Outcome.INCONCLUSIVE) == {}
    assert {f.outcome for f in findings if f.rule == "fabric"} == {None}


def test_a_gpu_in_slices_is_undecided(judged: Judged) -> None:
    steps = {f.next_step for f in judged["slices"] if f.rule == "mig" and f.next_step}

    assert having(judged["slices"], Outcome.INCONCLUSIVE) == {"mig": {3}}
    assert steps == {"switch MIG off (nvidia-smi -mig 0), reset the GPU, then run it again"}


def test_a_link_that_rests_under_no_load_is_no_fault(judged: Judged) -> None:
    assert having(judged["idle"], Outcome.FAIL) == {}
    assert {f.rule for f in judged["idle"] if f.outcome is None} >= {"pcie-link", "memory-clock"}


def test_a_call_that_never_returns_leaves_that_gpu_undecided_and_the_others_judged(
    machine: Callable[..., Machine],
) -> None:
    with begin(machine("blocks.3 1 1.0", "blocks.3 0 9.0")) as sampled:
        assert wait_until(lambda: sampled.has_said("sensor.hung", gpu=uuid(3)), timeout_s=15)
        findings = sampled.finish(wait_s=10)

    assert having(findings, Outcome.FAIL) == {}
    assert having(findings, Outcome.INCONCLUSIVE)["sensors"] == {3}
    assert set().union(*having(findings, Outcome.INCONCLUSIVE).values()) == {3}


def test_an_xid_in_the_kernel_log_alone_fails_the_gpu_at_that_address(
    machine: Callable[..., Machine], tmp_path: Path
) -> None:
    log = tmp_path / "root" / "dev" / "kmsg"
    log.parent.mkdir(parents=True)
    log.write_text(GONE.format(bus=FIRST_BUS + 1))  # before the run: not ours
    with begin(machine(), root=tmp_path / "root") as sampled:
        with log.open("a") as kernel:
            kernel.write(GONE.format(bus=FIRST_BUS + 3))
        assert wait_until(lambda: sampled.has_said("kernel.xid"), timeout_s=30)
        findings = sampled.finish()

    assert having(findings, Outcome.FAIL) == {"xid": {3}}
    assert having(findings, Outcome.PASS)["kernel-log"] == {-1}
