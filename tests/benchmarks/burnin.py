"""What checking costs while the power stage holds the load, beside a bare loop of the same product.

By CPU time, window for window in turns, so that what else runs on the machine disturbs both alike.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator

from tests.benchmarks.figure import Figure

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns once where there is no numpy
    import torch

from burnin.node.power import Rig, run_window, set_up
from burnin.node.throughput import EDGE
from tests.burnin.bench_fake import bench_with

_PAIRS = 15
_WINDOW_S = 1.0


def figures() -> Iterator[Figure]:
    """Yield the share of the time that checking takes, and the rate beside that of torch alone."""
    torch.set_num_threads(1)
    bench, speaker = bench_with()
    rig = set_up(bench)
    run_window(bench, rig, "ramp", window_s=_WINDOW_S)
    pairs = []
    for _ in range(_PAIRS):
        bare = _bare_tflops(rig)
        run_window(bench, rig, "hold", window_s=_WINDOW_S)
        pairs.append((speaker.rows[-1][1]["busy_tflops"], bare))
    ours, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
    share = statistics.median(own / bare for own, bare in pairs)
    shape = f"{EDGE['cpu']} cubed, fp32, 1 thread"
    beside = f"bare torch.mm loop {theirs * 1000:.1f} GFLOPS"
    yield Figure(
        name=f"power stage, {shape}", median=ours * 1000, unit="GFLOPS", repeats=_PAIRS, beside=beside
    )
    yield Figure(name="share of the bare loop's rate", median=100 * share, unit="%", repeats=_PAIRS)
    yield Figure(
        name=f"digest of every {rig.digest_every}th product, of the products' time",
        median=100 * rig.check_share,
        unit="%",
        repeats=1,
    )


def _bare_tflops(rig: Rig) -> float:
    """Multiply in a loop of nothing else."""
    until, started, done = time.monotonic() + _WINDOW_S, time.process_time(), 0
    while time.monotonic() < until:
        torch.mm(rig.a, rig.b)
        done += 1
    return 2.0 * EDGE["cpu"] ** 3 * done / (time.process_time() - started) / 1e12
