"""The live table: each device with what it does, in 80 columns, made from events in any order."""

from __future__ import annotations

import io

from rich.console import Console

from burnin.live_table import HEADERS, DeviceTable
from burnin.node.order import Order, StageOrder
from probes.event import SAMPLE, Event
from reports.exporter import render_page
from reports.live import Progress
from tests.twins.nvml import uuid

ORDER = Order(
    device="cuda",
    stages=tuple(
        StageOrder(name=n, length_s=s) for n, s in (("preflight", 0), ("matmul", 60), ("power", 120))
    ),
    left_out=(),
    seed=1,
    stall_s=10,
)


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _note(table: DeviceTable, kind: str, source: str = "agent", **data: object) -> None:
    table.note(Event(t_ns=0, host="h", source=source, kind=kind, data=data))


def _table(clock: FakeClock, gpus: int = 8) -> DeviceTable:
    table = DeviceTable(ORDER, clock=clock)
    _note(table, "inventory", device_kind="cuda", devices=[{"name": uuid(i)} for i in range(gpus)])
    _note(table, "stage.started", stage="matmul", length_s=60.0)
    return table


def test_a_row_shows_what_a_gpu_does_and_what_holds_it_back() -> None:
    clock = FakeClock()
    table = _table(clock, gpus=1)
    clock.now_s = 20
    _note(table, SAMPLE, "matmul", device=uuid(0), tflops=712.4)
    sensors = {"power_w": 698.6, "temperature_c": 71, "sm_clock_mhz": 1605.0, "event_reasons": 0x44}
    _note(table, SAMPLE, "gpu", gpu=uuid(0), **sensors)
    _note(table, "gpu.xid", gpu=uuid(0), xid=31)
    _note(table, "miscompare", device=uuid(0), stage="matmul")

    assert table.rows() == [
        ("GPU 0", "matmul", "712 TFLOPS", "699", "71", "1605", "heat", "2", "3 min"),
    ]
    assert table.stage_detail() == "20 of 60 s, 712 TFLOPS each"


def test_a_device_whose_worker_ended_shows_why_and_no_rate() -> None:
    table = _table(FakeClock(), gpus=2)
    _note(table, SAMPLE, "matmul", device=uuid(1), tflops=700.0)
    _note(table, "worker.stalled", device=uuid(1), stage="matmul")
    _note(table, "stage.started", stage="power", length_s=120.0)

    assert table.rows()[0][1] == "power"
    assert table.rows()[1] == ("GPU 1", "stalled", "", "", "", "", "", "1", "")


def test_events_about_devices_that_are_not_under_test_change_nothing() -> None:
    table = DeviceTable(ORDER, clock=FakeClock())
    _note(table, SAMPLE, "gpu", gpu=uuid(5), power_w=90.0)
    _note(table, "worker.done", device="sampler", stage="matmul")
    _note(table, "gpu.lost", gpu=uuid(5))

    assert table.rows() == []


def test_the_time_left_is_that_of_the_stages_to_come() -> None:
    clock = FakeClock()
    table = _table(clock)

    assert table.left_s() == 180
    clock.now_s = 100
    assert table.left_s() == 120
    _note(table, "stage.started", stage="power", length_s=120.0)
    clock.now_s = 160
    assert table.left_s() == 60


def test_eight_gpus_fit_into_80_columns_and_24_lines() -> None:
    table = _table(FakeClock())
    for index in range(8):
        sensors = {"power_w": 1198.6, "temperature_c": 71, "sm_clock_mhz": 1605.0, "event_reasons": 0x80}
        _note(table, SAMPLE, "gpu", gpu=uuid(index), **sensors)
        _note(table, SAMPLE, "matmul", device=uuid(index), tflops=1712.4)
        for _ in range(1200):
            _note(table, "miscompare", device=uuid(index))
    progress = Progress("burn-in", quiet=True)
    for stage in ("preflight", "memory", "matmul", "bandwidth", "links", "allreduce", "power", "aftermath"):
        progress.step(stage, "waiting")
    progress.show_table(HEADERS, table.rows)
    console = Console(file=io.StringIO(), width=80, force_terminal=False)

    console.print(*progress.draw(height=23), sep="\n")

    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(len(line) for line in lines) <= 80
    assert len(lines) < 24
    assert "…" not in "".join(lines)
    assert sum("1712 TFLOPS" in line and "1200" in line and "brake" in line for line in lines) == 8


def test_prometheus_is_told_the_same_in_base_units_and_nothing_that_no_sensor_says() -> None:
    table = _table(FakeClock(), gpus=2)
    _note(table, SAMPLE, "matmul", device=uuid(0), tflops=712.5)
    sensors = {"power_w": 698.5, "temperature_c": 71, "sm_clock_mhz": 1605.0, "event_reasons": 0x44}
    _note(table, SAMPLE, "gpu", gpu=uuid(0), **sensors)
    _note(table, "worker.died", device=uuid(1), stage="matmul")
    page = render_page(table.figures()).decode().splitlines()

    assert sorted(line for line in page if not line.startswith("#")) == [
        'overproof_burnin_compute_flops{device="GPU 0"} 7.125e+14',
        'overproof_burnin_errors_total{device="GPU 0"} 0.0',
        'overproof_burnin_errors_total{device="GPU 1"} 1.0',
        'overproof_burnin_held_back{device="GPU 0",reason="heat"} 1.0',
        "overproof_burnin_left_seconds 180.0",
        'overproof_burnin_power_watts{device="GPU 0"} 698.5',
        'overproof_burnin_sm_clock_hertz{device="GPU 0"} 1.605e+09',
        'overproof_burnin_stage{device="GPU 0",stage="matmul"} 1.0',
        'overproof_burnin_stage{device="GPU 1",stage="died"} 1.0',
        'overproof_burnin_temperature_celsius{device="GPU 0"} 71.0',
    ]


def test_a_rate_that_is_no_longer_measured_is_not_served_any_more() -> None:
    table = _table(FakeClock(), gpus=1)
    _note(table, SAMPLE, "bandwidth", device=uuid(0), gbps=2.0)
    before = render_page(table.figures())
    _note(table, "worker.done", device=uuid(0), stage="bandwidth")

    assert b'overproof_burnin_copy_bytes_per_second{device="GPU 0"} 2e+09' in before
    assert b"overproof_burnin_copy_bytes_per_second" not in render_page(table.figures())


def test_devices_that_are_found_in_the_middle_of_a_stage_are_in_it() -> None:
    table = DeviceTable(ORDER, clock=FakeClock())
    _note(table, "stage.started", stage="preflight", length_s=0.0)
    _note(table, "inventory", device_kind="cuda", devices=[{"name": uuid(0)}])

    assert table.rows()[0][:2] == ("GPU 0", "preflight")
