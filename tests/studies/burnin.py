"""The study of the burn-in: seeded faults, each many times, and healthy nodes of every model and driver age.

Each trial is the record of a node of eight GPUs with the noise of real ones: its sensors are read by the real
sampler from the twin of NVML, arithmetic faults go through the real products and comparisons on this machine,
and the verdict is that of all rules. ``make study-burnin`` writes docs/studies/burnin.md.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from burnin.judging import judge_run
from burnin.node.stall import Sign, find_stalled
from burnin.xid_table import shipped_xids
from probes.finding import Finding, verdict
from probes.json_types import JsonObject
from probes.outcome import Outcome
from tests.burnin.node_record import LOAD_S, Node
from tests.twins.machine import DRIVERS, MODELS
from tests.twins.nvml import uuid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns once where there is no numpy
    import torch

REPORT = Path(__file__).parents[2] / "docs" / "studies" / "burnin.md"
RUNS_HEADING = "## Whole runs"  # of the second part, tests/studies/burnin_runs.py
GPUS = 8
SILICON_SPREAD = 0.02  # one standard deviation of GPUs of one model; facts speak of 5 % and more in all
SECOND_SPREAD = 0.005
SLOW_BY = 0.15
EDGE = 128  # of the products that are really computed
HEALTHY_MIN = 200
Spoil = Callable[[Node, int, random.Random], None]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of the trials of one row."""

    name: str
    trials: int
    right: int  # failed, and the guilty subject is named; for healthy nodes: passed
    wrong: int  # a FAIL against a healthy subject
    reach: str


def healthy(rng: random.Random, **changes: object) -> Node:
    """Return a node whose GPUs differ as real ones do."""
    silicon = [rng.gauss(1.0, SILICON_SPREAD) for _ in range(GPUS)]
    noise = {(gpu, second): rng.gauss(1.0, SECOND_SPREAD) for gpu in range(GPUS) for second in range(60)}
    model = str(changes.get("model", "H100"))
    changes.setdefault("busbw_gbps", _BUSBW_GBPS.get(model, 475.0))
    rate = _TYPICAL.get(model, 700.0)
    return Node(
        with_power=True,
        tflops=lambda gpu, second: rate * silicon[gpu] * noise[gpu, second],
        **changes,  # type: ignore[arg-type]
    )


# TFLOPS in bf16 of 8192 cubed where somebody has measured it; of the others any figure will do.
_TYPICAL = {"A100": 262.0, "H100": 720.0, "H200": 740.0, "B200": 1650.0, "GB200": 1600.0, "GB300": 1600.0}


# Bus bandwidth of an all-reduce of 16 GiB among eight, where it was measured.
_BUSBW_GBPS = {"A100": 235.0, "H100": 475.0, "H200": 482.0, "B200": 840.0}


def _product(rng: random.Random, spoil: str) -> JsonObject | None:
    """Multiply integers on this machine, spoil operand or product, and return what the comparison says."""
    from burnin.node.exact import compare, make_operands
    from burnin.node.number_format import FORMATS
    from burnin.node.product import flip_bit, multiply

    name = rng.choice(["fp32", "bf16", "fp64"])
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    operands = make_operands(FORMATS[name], edge=EDGE, generator=generator, device=torch.device("cpu"))
    product = multiply(operands.a, operands.b)
    address = rng.randrange(EDGE * EDGE)
    if spoil == "flip":
        flip_bit(product, address=address, bit=rng.randrange(product.element_size() * 8))
    elif spoil == "nan":
        product.view(-1)[address] = float("nan")
    found = compare(product, operands.reference)
    if found is None:
        return None
    return {
        "format": name,
        "elements": found.count,
        "addresses": found.addresses,
        "patterns": found.patterns,
        "period": found.period,
        "row_length": EDGE,
    }


def _miscompare(node: Node, gpu: int, rng: random.Random, spoil: str, products: Sequence[int]) -> None:
    for number in products:
        seen = _product(rng, spoil)
        if seen is not None:
            data = {"stage": "matmul", "device": uuid(gpu), "product": number} | seen
            node.events.append((5 + rng.random() * LOAD_S * 0.3, "miscompare", data))


def _bit_flip(node: Node, gpu: int, rng: random.Random) -> None:
    _miscompare(node, gpu, rng, "flip", [rng.randrange(500)])


def _every_product(node: Node, gpu: int, rng: random.Random) -> None:
    _miscompare(node, gpu, rng, "flip", range(4))


def _nan(node: Node, gpu: int, rng: random.Random) -> None:
    _miscompare(node, gpu, rng, "nan", [rng.randrange(500)])


def _corrupted_input(node: Node, gpu: int, rng: random.Random) -> None:
    """Flip one bit of an operand of the power stage; the real digest says whether it is seen."""
    from burnin.node.digest import digest, digest_text, make_weights
    from burnin.node.product import flip_bit

    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    operand = torch.randn(EDGE, EDGE, generator=generator).to(torch.bfloat16)
    weights = make_weights(EDGE, torch.device("cpu"))
    before = digest_text(digest(operand, weights))
    flip_bit(operand, address=rng.randrange(EDGE * EDGE), bit=rng.randrange(16))
    if digest_text(digest(operand, weights)) == before:
        return
    data = {"stage": "power", "device": uuid(gpu), "when": "before", "differing": ["a"], "elements": 1 << 27}
    node.events.append((LOAD_S + 7.35, "operands.result", data))
    # What it multiplies from then on differs from what the siblings have.
    node.digest = lambda index: "bb" if index == gpu else "aa"


def _stall(node: Node, gpu: int, rng: random.Random) -> None:
    """Let the real watch decide that one of eight makes no step any more."""
    at_s = 5 + rng.random() * 8
    signs = [Sign(device=uuid(index)) for index in range(GPUS)]
    for index, sign in enumerate(signs):
        sign.is_busy = True
        sign.heard_at = 30.0
        sign.stepped_at = at_s if index == gpu else 30.0 - rng.random()
    for device in find_stalled(signs, stall_s=10.0, now_s=30.0):
        data = {"device": device, "stage": "matmul", "stall_s": 10.0, "is_waiting": False}
        node.events.append((at_s + 10, "worker.stalled", data))
    rate = node.tflops
    node.tflops = lambda index, second: None if index == gpu and second > at_s else rate(index, second)
    ended = (
        "exact.result",
        "throughput.result",
        "worker.done",
        "allreduce.result",
        "operands.result",
        "loaded",
    )
    node.without = lambda kind, data: kind in ended and data.get("device") == uuid(gpu)


def _slow(node: Node, gpu: int, rng: random.Random) -> None:
    rate = node.tflops
    node.tflops = lambda index, second: (rate(index, second) or 0.0) * (1 - SLOW_BY * (index == gpu))


def _throttle(node: Node, gpu: int, rng: random.Random) -> None:
    begin, length = rng.randrange(6, 18), rng.randrange(4, 10)
    bit, column = rng.choice(
        [(0x40, "held_hw_thermal_pct"), (0x20, "held_sw_thermal_pct"), (0x80, "held_power_brake_pct")]
    )
    held: JsonObject = {"event_reasons": bit | 0x4, column: 100.0, "sm_clock_mhz": 1200.0}
    node.gpu_row = lambda index, second: held if index == gpu and begin <= second < begin + length else {}


def _lost(node: Node, gpu: int, rng: random.Random) -> None:
    at_s = 6 + rng.random() * 12
    error: JsonObject = {"gpu": uuid(gpu), "sensor": "power_w", "error": "GPU is lost"}
    node.events += [(at_s, "gpu.lost", error), (at_s, "sensor.failed", error)]
    node.events.append((at_s + 0.5, "gpu.xid", {"gpu": uuid(gpu), "xid": 79}))
    failed = {"device": uuid(gpu), "error": "CUDA error: unspecified launch failure"}
    node.events.append((at_s + 1, "worker.failed", failed))
    rate = node.tflops
    node.tflops = lambda index, second: None if index == gpu and second > at_s else rate(index, second)
    silent: JsonObject = dict.fromkeys(("power_w", "temperature_c", "sm_clock_mhz", "event_reasons"))
    node.gpu_row = lambda index, second: silent if index == gpu and second > at_s else {}
    ended = ("throughput.result", "worker.done", "allreduce.result", "operands.result", "loaded")
    node.without = lambda kind, data: (
        (kind in ended and data.get("device") == uuid(gpu))
        or (kind == "gpu.snapshot" and data["gpu"] == uuid(gpu) and data["when"] == "after")
    )


def _kernel_xid(node: Node, gpu: int, rng: random.Random) -> None:
    codes = [xid for xid, spec in shipped_xids().xids.items() if spec.verdict == "fail"]
    data = {"gpu": uuid(gpu), "xid": rng.choice(codes), "text": "NVRM: Xid"}
    node.events.append((5 + rng.random() * LOAD_S, "kernel.xid", data))


PRODUCTS = "real products and comparison, all rules"
RULES = "all rules"
FAULTS: dict[str, tuple[Spoil, str]] = {
    "single bit flip in one output element": (_bit_flip, PRODUCTS),
    "the same fault in every product": (_every_product, PRODUCTS),
    "a corrupted input": (_corrupted_input, "real digest of the operand, all rules"),
    "NaN in a product": (_nan, PRODUCTS),
    "a stall": (_stall, "real watch over eight workers, all rules"),
    "a slow GPU (15 %) among eight": (_slow, RULES),
    "a throttling GPU": (_throttle, RULES),
    "a lost GPU": (_lost, RULES),
    "an XID only in the kernel log": (_kernel_xid, RULES),
}


def judge_trial(node: Node) -> list[Finding]:
    """Write the record of a node, judge it, and remove it."""
    folder = Path(
        tempfile.mkdtemp(prefix="overproof-study-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    )
    try:
        return judge_run(node.write(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def study_fault(name: str, seeds: Sequence[int]) -> Tally:
    """Seed one fault with each seed and count what was named."""
    spoil, reach = FAULTS[name]
    right = wrong = 0
    for seed in seeds:
        rng = random.Random(f"{name}/{seed}")
        gpu, node = rng.randrange(GPUS), healthy(rng)
        spoil(node, gpu, rng)
        failed = {f.subject for f in judge_trial(node) if f.outcome is Outcome.FAIL}
        right += any(uuid(gpu) in subject for subject in failed)
        wrong += any(uuid(gpu) not in subject for subject in failed)
    return Tally(name=name, trials=len(seeds), right=right, wrong=wrong, reach=reach)


def study_healthy(seeds_each: int) -> list[Tally]:
    """Judge healthy nodes of every model with drivers of every age."""
    tallies = []
    for model in MODELS:
        for age in DRIVERS:
            right = wrong = 0
            for seed in range(seeds_each):
                findings = judge_trial(healthy(random.Random(f"{model}/{age}/{seed}"), model=model, age=age))
                right += verdict(findings) is Outcome.PASS
                wrong += any(f.outcome is Outcome.FAIL for f in findings)
            name = f"{model}, driver {DRIVERS[age].version}"
            tallies.append(Tally(name=name, trials=seeds_each, right=right, wrong=wrong, reach=RULES))
    return tallies


def render(faults: Sequence[Tally], nodes: Sequence[Tally], *, command: str, took_s: float) -> str:
    """Return the study as Markdown."""
    passed, trials = sum(t.right for t in nodes), sum(t.trials for t in nodes)
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        "# Study of the burn-in",
        "",
        f"`{command}`, {today}, {took_s / 60:.0f} minutes, Python {platform.python_version()},",
        f"{platform.machine()}.",
        "",
        "Each trial is the record of a node of eight GPUs: its sensors are read by the real sampler from the",
        "twin of NVML; rates have the spread of silicon (2 % between GPUs, 0.5 % from second to second, one",
        "standard deviation each); the verdict is that of all rules. No GPU took part.",
        "",
        "What it does not show: in the first four rows products (128 × 128) or operands are really",
        "spoiled and compared, and what was seen is put into the record; stall, slow, throttling, lost",
        "and XID stand in it as agent and sampler would have written them. None happened to a running",
        "process. The trials of one model and driver share one reading of the twin, and the spread is",
        "assumed, not measured.",
        "",
        "| seeded fault | trials | right subject named | FAIL against a healthy subject | through |",
        "|---|---|---|---|---|",
        *(f"| {t.name} | {t.trials} | {t.right} | {t.wrong} | {t.reach} |" for t in faults),
        "",
        f"Healthy nodes: {passed} of {trials} PASS ({passed / trials:.1%}).",
        "",
        "| healthy node | trials | PASS | with a FAIL |",
        "|---|---|---|---|",
        *(f"| {t.name} | {t.trials} | {t.right} | {t.wrong} |" for t in nodes),
    ]
    return "\n".join(lines) + "\n"


def write_part(report: Path, *, records: str | None = None, runs: str | None = None) -> None:
    """Replace one part of the report: this study of records, or that of whole runs behind it."""
    before = report.read_text() if report.exists() else ""
    head, _, tail = before.partition(RUNS_HEADING)
    head = head if records is None else records
    tail = (f"{RUNS_HEADING}{tail}" if tail else "") if runs is None else runs
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("\n\n".join(part.strip("\n") for part in (head, tail) if part) + "\n")


def main() -> int:
    """Run the study, write its table, and say whether it holds."""
    parser = argparse.ArgumentParser(
        description="Seeded faults and healthy nodes through the rules of the burn-in."
    )
    parser.add_argument("--seeds", type=int, default=100, help="trials of each fault")
    parser.add_argument("--out", type=Path, default=REPORT, help="file that receives the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    faults = []
    for name in FAULTS:
        faults.append(study_fault(name, range(arguments.seeds)))
        sys.stderr.write(f"{time.monotonic() - started:6.0f} s  {faults[-1]}\n")
    each = -(-max(1, HEALTHY_MIN * arguments.seeds // 100) // (len(MODELS) * len(DRIVERS)))
    nodes = study_healthy(each)
    command = f"python -m tests.studies.burnin --seeds {arguments.seeds}"
    text = render(faults, nodes, command=command, took_s=time.monotonic() - started)
    write_part(arguments.out, records=text)
    passed, trials = sum(t.right for t in nodes), sum(t.trials for t in nodes)
    holds = all(t.right == t.trials and not t.wrong for t in faults) and passed >= 0.99 * trials
    sys.stderr.write(f"{'holds' if holds else 'does not hold'}: {passed} of {trials} healthy nodes PASS\n")
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
