"""The throughput phase: random data at full rate in every number format, one row per window."""

from __future__ import annotations

import time

import torch

from burnin.node.bench import Bench
from burnin.node.number_format import FORMATS, PRIMARY, NumberFormat
from burnin.node.operand import draw_on_host, place_on
from burnin.node.product import multiply, prepare, wait_for_device
from burnin.node.seeding import SLOW_FACTOR

STAGE = "matmul"
EDGE = {"cpu": 1024, "cuda": 8192}
EDGE_SIDE = {"cpu": 512, "cuda": 8192}  # of the other formats; a core takes too long for more
PRIMARY_SHARE = 0.6  # of the phase: it is compared between devices
WINDOW_S = 1.0
WINDOW_S_MIN = 0.2  # a pause of the machine must not fill it
WINDOWS_MIN = 4  # of the primary format, however short the phase: fewer cannot be judged
BATCH_S = 0.1  # products asked for at once, before the device is waited for


def measure_throughput(bench: Bench, names: list[str], *, length_s: float, phase: str) -> None:
    """Multiply at full rate in each format; the primary one has the larger part of the time."""
    primary, started = PRIMARY[bench.kind], time.monotonic()
    side = [name for name in names if name != primary]
    primary_s = length_s * (PRIMARY_SHARE if side else 1.0)
    _measure(bench, FORMATS[primary], EDGE[bench.kind], primary_s, phase, windows_min=WINDOWS_MIN)
    tested = [primary, *side]
    for name in side:
        _measure(
            bench,
            FORMATS[name],
            EDGE_SIDE[bench.kind],
            (length_s - primary_s) / len(side),
            phase,
            windows_min=1,
        )
    bench.speaker.say(
        "throughput.result", stage=STAGE, device=bench.device, phase=phase, format=primary, formats=tested
    )
    bench.say_loaded(STAGE, loaded_s=time.monotonic() - started, checked_elements=0)


def _measure(
    bench: Bench, number_format: NumberFormat, edge: int, length_s: float, phase: str, *, windows_min: int
) -> None:
    until = time.monotonic() + length_s
    prepare(number_format)
    a, b = place_on(draw_on_host(number_format, edge=edge, seed=bench.seed), bench.torch_device)
    bench.pace.step()
    batch = _batch_size(a, b)
    bench.pace.step()
    window_s = min(WINDOW_S, max(length_s / (windows_min + 1), WINDOW_S_MIN))
    windows = 0
    while windows < windows_min or time.monotonic() + window_s <= until:
        _window(bench, number_format.name, phase, (a, b), batch, window_s)
        windows += 1


def _batch_size(a: torch.Tensor, b: torch.Tensor) -> int:
    """Return how many products fit into one batch: after one that warms up, the faster of two."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        wait_for_device(multiply(a, b))
        times.append(time.perf_counter() - started)
    return max(1, int(BATCH_S / min(times[1:])))


def _window(
    bench: Bench,
    name: str,
    phase: str,
    operands: tuple[torch.Tensor, torch.Tensor],
    batch: int,
    window_s: float,
) -> None:
    a, b = operands
    times = SLOW_FACTOR if "slow" in bench.seeded else 1
    started, cpu_started, done = time.perf_counter(), time.process_time(), 0
    until = time.monotonic() + window_s
    while time.monotonic() < until:
        for _ in range(batch):
            for _ in range(times):
                product = multiply(a, b)
            done += 1
        wait_for_device(product)
        bench.pace.step()
    rates = rate_row(
        bench, a.shape[0], done, time.perf_counter() - started, time.process_time() - cpu_started
    )
    bench.speaker.sample(STAGE, device=bench.device, format=name, phase=phase, products=done, **rates)


def rate_row(bench: Bench, edge: int, done: int, wall_s: float, cpu_s: float) -> dict[str, float]:
    """Return the rate by the clock and, on a CPU, by the time that its cores really worked for us.

    On a machine that others use too, only the second says something about the cores.
    """
    flops = 2.0 * edge**3 * done
    row = {"tflops": flops / wall_s / 1e12}
    if bench.kind == "cpu":
        core_s = max(cpu_s, 1e-9) / torch.get_num_threads()
        row |= {"busy_tflops": flops / core_s / 1e12, "busy_pct": 100 * core_s / wall_s}
    return row
