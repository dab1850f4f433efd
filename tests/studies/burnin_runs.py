"""The second part of the study: the real command, again and again, with a fault that befalls its processes.

Each trial is one ``overproof burnin run`` on the cores of this machine, beside a twin of NVML with eight
GPUs. ``make study-burnin`` puts its table into docs/studies/burnin.md, after that of the first part.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from burnin.xid_table import shipped_xids
from probes.child import wait_until
from tests.studies.burnin import REPORT, RUNS_HEADING, write_part
from tests.twins.machine import DRIVERS, FIRST_BUS, MODELS, Machine, build_driver
from tests.twins.nvml import uuid

GPUS = 8
MATMUL = "only: [matmul]\nmatmul: {length_s: 3, formats: [fp32, bf16]}\n"
POWER = "only: [power]\npower: {length_s: 2}\ncpu_devices: 3\n"  # of two, none is a lone dissenter
LOAD_S = 4.0  # of a trial, at least: a fault from outside comes at a random time of these
RUN_WITHIN_S = 150.0
Env = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of the command while it is going on."""

    folder: Path
    machine: Machine
    rng: random.Random
    number: int  # of the device or GPU that the fault befalls

    def events(self) -> list[dict[str, Any]]:
        """Return what is in its record so far."""
        lines = [line for path in self.folder.glob("runs/2*/events.ndjson") for line in path.open()]
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def worker_pid(self) -> int:
        """Return the process of the worker whose device is to be befallen."""
        ready = [e["data"] for e in self.events() if e["kind"] == "worker.ready"]
        return next(int(data["pid"]) for data in ready if data["device"] == f"cpu:{self.number}")


def _stop_worker(trial: Trial) -> None:
    os.kill(trial.worker_pid(), signal.SIGSTOP)


def _throttle(trial: Trial) -> None:
    """Hold the clocks of one GPU down for some seconds, as heat or a power brake does."""
    gpu = trial.number
    held = trial.rng.choice([f"reasons.{gpu} 0x48", f"reasons.{gpu} 0x24", f"reasons.{gpu} 0x80"])
    trial.machine.write(held, f"sm_mhz.{gpu} 900")
    time.sleep(trial.rng.uniform(1.5, 3.0))
    trial.machine.write()


def _lose(trial: Trial) -> None:
    trial.machine.write(f"lost.{trial.number} 1")


def _log_xid(trial: Trial) -> None:
    """Append to the file that stands for the kernel's log; NVML never hears of it."""
    code = trial.rng.choice([xid for xid, spec in shipped_xids().xids.items() if spec.verdict == "fail"])
    where = f"PCI:0000:{FIRST_BUS + trial.number:02x}:00"
    with (trial.folder / "root" / "dev" / "kmsg").open("a") as log:
        log.write(f"3,100,5000,-;NVRM: Xid ({where}): {code}, pid='<unknown>', seeded by a test.\n")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row: what befalls a run, and what of that is real."""

    name: str
    is_real: str
    seeded: tuple[str, ...] = ()  # by the worker itself, in turns: STAGE:KIND
    befall: Callable[[Trial], None] | None = None  # from outside, at a random time
    is_gpu: bool = False
    is_planted: bool = False  # the host's sensors read a file tree of ours


IN_BUFFER = "the worker's own buffer is spoiled"
TWIN = "the driver's library is a twin, from pynvml on all is real"
FAULTS = (
    Fault(
        name="single bit flip in one output element, at a random time",
        seeded=("matmul:late_flip",),
        is_real=f"{IN_BUFFER} once, time and place by the seed",
    ),
    Fault(
        name="the same fault in every product",
        seeded=("matmul:every_product", "power:every_product"),
        is_real=f"{IN_BUFFER} after each product",
    ),
    Fault(
        name="a corrupted input",
        seeded=("matmul:input_flip", "power:input_flip"),
        is_real=f"{IN_BUFFER} before the first product",
    ),
    Fault(name="NaN in a product", seeded=("matmul:nan",), is_real=f"{IN_BUFFER}; always the fourth product"),
    Fault(
        name="a stall", befall=_stop_worker, is_real="all: SIGSTOP from outside, worker and time by the seed"
    ),
    Fault(
        name="a slow device",
        seeded=("matmul:slow",),
        is_real="the worker does each product five times; 15 % cannot be told on shared cores",
    ),
    Fault(name="a throttling GPU", befall=_throttle, is_gpu=True, is_real=TWIN),
    Fault(name="a lost GPU", befall=_lose, is_gpu=True, is_real=TWIN),
    Fault(
        name="an XID only in the kernel log",
        befall=_log_xid,
        is_gpu=True,
        is_planted=True,
        is_real="the line stands in a planted file; its reader is the real one",
    ),
)


@dataclass(frozen=True, kw_only=True)
class End:
    """What a run came to."""

    exit_code: int
    failed: frozenset[str]  # subjects
    undecided: tuple[str, ...]
    has_happened: bool  # the fault came before the load was over

    @property
    def is_pass(self) -> bool:
        return self.exit_code == 0 and not self.failed and not self.undecided


@dataclass(kw_only=True)
class Tally:
    """What became of the runs of one row."""

    name: str
    is_real: str
    runs: int = 0
    void: int = 0  # the fault's time had not come when the load ended
    found: int = 0
    right: int = 0
    wrong: int = 0
    passed: int = 0
    told: list[str] = field(default_factory=list)  # what was not as it should be

    def add(self, end: End, guilty: str | None) -> None:
        """Count one run; ``guilty`` is None where nothing was seeded."""
        self.runs += 1
        self.passed += end.is_pass
        self.void += not end.has_happened
        if end.has_happened:
            self.found += end.exit_code == 1
            self.right += guilty in end.failed
        others = sorted(end.failed - {guilty})
        self.wrong += bool(others)
        is_missed = guilty is not None and end.has_happened and guilty not in end.failed
        if others or is_missed or (guilty is None and not end.is_pass):
            said = "; ".join([*(f"FAIL {subject}" for subject in others), *end.undecided[:3]])
            self.told.append(f"{self.name}: exit code {end.exit_code}; {said}")

    @property
    def holds(self) -> bool:
        return self.right == self.runs - self.void and not self.wrong


def run_one(fault: Fault | None, seed: int, libraries: Mapping[int, Path]) -> tuple[End, str | None]:
    """Run the command once; return what it came to, and the subject that the fault befell."""
    rng = random.Random(f"{fault and fault.name}/{seed}")
    folder = Path(tempfile.mkdtemp(prefix="overproof-study-"))
    models = list(MODELS)
    age = list(DRIVERS)[seed // len(models) % len(DRIVERS)]
    machine = Machine(folder=folder, library=libraries[age], model=models[seed % len(models)], age=age)
    machine.write()
    seeded = fault.seeded[seed % len(fault.seeded)] if fault and fault.seeded else ""
    is_power = seeded.startswith("power") or (fault is None and seed % 5 == 4)
    devices = GPUS if fault and fault.is_gpu else 3 if is_power else 2
    trial = Trial(folder=folder, machine=machine, rng=rng, number=rng.randrange(devices))
    try:
        end = _run(fault, trial, seeded, POWER if is_power else MATMUL, seed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if fault is None:
        return end, None
    return end, f"gpu:{uuid(trial.number)}" if fault.is_gpu else f"device:cpu:{trial.number}"


def _run(fault: Fault | None, trial: Trial, seeded: str, plan: str, seed: int) -> End:
    (trial.folder / "plan.yaml").write_text(f"device: cpu\nstall_s: 6\n{plan}")
    environment = os.environ | trial.machine.environment()
    if fault and fault.is_planted:
        (trial.folder / "root" / "dev").mkdir(parents=True)
        (trial.folder / "root" / "dev" / "kmsg").touch()
        environment["OVERPROOF_HOST_ROOT"] = str(trial.folder / "root")
    command = [sys.executable, "-P", "-m", "overproof", "burnin", "run", "--plan", "plan.yaml", "--json"]
    command += ["--seed", str(seed + 1)]
    command += ["--seed-fault", f"{seeded}@cpu:{trial.number}"] if seeded else []
    with subprocess.Popen(
        command, cwd=trial.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            if fault and fault.befall:
                _befall(fault.befall, trial)
            said, errors = process.communicate(timeout=RUN_WITHIN_S)
        finally:
            process.kill()  # if it has not ended; all its children then end themselves
    if not said:
        raise RuntimeError(f"the run said nothing: {errors}")
    return _end(json.loads(said), process.returncode, seeded, trial)


def _befall(befall: Callable[[Trial], None], trial: Trial) -> None:
    def is_loaded() -> bool:
        return any(e["kind"] == "stage.started" and e["data"]["stage"] == "matmul" for e in trial.events())

    if not wait_until(is_loaded, timeout_s=90, interval_s=0.1):
        raise RuntimeError("the load did not begin")
    time.sleep(trial.rng.uniform(0, LOAD_S))
    befall(trial)


def _end(document: Mapping[str, Any], exit_code: int, seeded: str, trial: Trial) -> End:
    undecided = [f for f in document["findings"] if f["outcome"] == "inconclusive"]
    late = "late_flip" in seeded
    return End(
        exit_code=exit_code,
        failed=frozenset(f["subject"] for f in document["findings"] if f["outcome"] == "fail"),
        undecided=tuple(f"{f['rule']} of {f['subject']}: {f['observed']}" for f in undecided),
        has_happened=not late or any(e["kind"] == "fault.seeded" for e in trial.events()),
    )


def study(seeds: int, *, jobs: int, healthy: int) -> list[Tally]:
    """Run every fault with every seed, and healthy runs among them; the last tally is theirs."""
    tallies = {fault.name: Tally(name=fault.name, is_real=fault.is_real) for fault in FAULTS}
    sound = Tally(name="healthy run", is_real="")
    plan: list[tuple[Fault | None, int]] = [(fault, seed) for seed in range(seeds) for fault in FAULTS]
    plan += [(None, seed) for seed in range(healthy)]
    random.Random(1).shuffle(plan)
    started, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="overproof-study-drivers-"))
    libraries = {age: build_driver(folder / str(age), age) for age in DRIVERS}
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        ends = pool.map(lambda each: run_one(each[0], each[1], libraries), plan)
        for (fault, seed), (end, guilty) in zip(plan, ends, strict=True):
            (tallies[fault.name] if fault else sound).add(end, guilty)
            name = fault.name if fault else "healthy"
            said = f"{name}, seed {seed}: exit code {end.exit_code}, FAIL {sorted(end.failed)}"
            sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {said}\n")
    shutil.rmtree(folder)
    return [*tallies.values(), sound]


def render(tallies: Sequence[Tally], *, command: str, took_s: float, jobs: int) -> str:
    """Return this part of the study as Markdown."""
    *faults, sound = tallies
    today = datetime.datetime.now(tz=datetime.UTC).date()
    void = sum(t.void for t in faults)
    told = [f"- {line}" for tally in tallies for line in tally.told]
    lines = [
        RUNS_HEADING,
        "",
        f"`{command}`, {today}, {took_s / 60:.0f} minutes,",
        f"{jobs} runs at a time on {os.cpu_count()} virtual cores that other programs used as well,",
        f"Python {platform.python_version()}, {platform.machine()}.",
        "",
        "Each trial is the real command: launcher, agent, workers, sampler and judging as processes of their",
        "own. Two or three shares of the processor stand in for the devices; beside them the sampler reads",
        "eight GPUs of a twin of NVML, model and driver in turns. The load is of seconds, in the stages",
        "matmul or power alone. No GPU took part, so nothing here says how a fault of silicon looks.",
        "",
        "| what befalls the run | runs | FAIL | right subject | healthy one accused | what of it is real |",
        "|---|---|---|---|---|---|",
        *(f"| {t.name} | {t.runs} | {t.found} | {t.right} | {t.wrong} | {t.is_real} |" for t in faults),
        "",
        f"Healthy runs: {sound.passed} of {sound.runs} PASS, {sound.wrong} with a FAIL.",
    ]
    if void:
        lines += ["", f"In {void} of the runs the load ended before the fault's time had come; not counted."]
    if told:
        lines += ["", "What was not as it should be:", "", *told]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run this part of the study, put its table into the report, and say whether it holds."""
    parser = argparse.ArgumentParser(description="Whole burn-ins with faults that befall their processes.")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each fault")
    parser.add_argument("--healthy", type=int, help="runs without a fault; as many as with one, if not given")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--out", type=Path, default=REPORT, help="file that receives the table")
    arguments = parser.parse_args()
    started = time.monotonic()
    healthy = len(FAULTS) * arguments.seeds if arguments.healthy is None else arguments.healthy
    tallies = study(arguments.seeds, jobs=arguments.jobs, healthy=healthy)
    command = f"python -m tests.studies.burnin_runs --seeds {arguments.seeds} --jobs {arguments.jobs}"
    command += "" if arguments.healthy is None else f" --healthy {arguments.healthy}"
    text = render(tallies, command=command, took_s=time.monotonic() - started, jobs=arguments.jobs)
    write_part(arguments.out, runs=text)
    *faults, sound = tallies
    holds = all(t.holds for t in faults) and sound.passed == sound.runs
    sys.stderr.write(f"{'holds' if holds else 'does not hold'}\n")
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
