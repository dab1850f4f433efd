"""What a record holds is the same to the rules whether it is kept in memory or read as it is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnin.evidence import Evidence
from burnin.node.order import Order, StageOrder, order_to_json
from reports.record import create_run
from reports.run import Run, load_run
from reports.table import seal


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A record of two cycles: sensors that know of no cycle, and rates that name theirs."""
    order = Order(
        device="cpu",
        stages=(StageOrder(name="matmul", length_s=1),),
        left_out=(),
        seed=1,
        stall_s=10.0,
        cycles=2,
    )
    writer = create_run(tmp_path, kind="burnin", spec={"order": order_to_json(order)}, seed=1)
    with writer:
        for cycle in (1, 2):
            begin_ns = writer.event("agent", "stage.started", stage="matmul", cycle=cycle).t_ns
            for second in range(3):
                for gpu in ("GPU-a", "GPU-b"):
                    t_ns = begin_ns + second
                    row = {"t_ns": t_ns, "gpu": gpu, "power_w": 100.0 * cycle + second}
                    writer.sample("gpu", row)
                    writer.sample("matmul", {"t_ns": t_ns, "device": gpu, "cycle": cycle, "tflops": 1.0})
            writer.event("agent", "stage.finished", stage="matmul", cycle=cycle)
    seal(writer.path)
    return load_run(writer.path)


@pytest.mark.parametrize(("name", "key"), [("gpu", "gpu"), ("matmul", "device")])
def test_a_long_series_that_is_read_as_needed_gives_the_same_rows_as_one_that_is_kept(
    run: Run, name: str, key: str
) -> None:
    kept, read = Evidence(run), Evidence(run, rows_kept_max=0)

    for ours, theirs in zip([kept, *kept.in_cycles()], [read, *read.in_cycles()], strict=True):
        for wanted in ({}, {key: "GPU-a"}, {key: "GPU-none"}, {"no_such_column": "x"}, {key: None}):
            assert ours.series(name, **wanted) == theirs.series(name, **wanted)
    assert len(kept.series(name, **{key: "GPU-b"})) == 6
    assert [len(cycle.series(name, **{key: "GPU-b"})) for cycle in read.in_cycles()] == [3, 3]
