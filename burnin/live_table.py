"""What a person sees of each device while a burn-in runs: one line per device, made from its events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from burnin.node.order import LOADED_STAGES, Order
from burnin.rules.gpu_health import HELD_BACK
from probes.event import SAMPLE, Event
from reports.live_metrics import Figure

HEADERS = ("device", "stage", "rate", "W", "°C", "MHz", "held", "errors", "left")
ERROR_KINDS = ("miscompare", "digest.dissent", "gpu.xid", "kernel.xid", "gpu.lost")
END_KINDS = ("worker.stalled", "worker.late", "worker.died", "worker.failed")
_HELD_WORDS = {0x8: "hw", 0x20: "heat", 0x40: "heat", 0x80: "brake"}
assert set(_HELD_WORDS) == set(HELD_BACK)
_POWER_CAP = 0x4


@dataclass(slots=True, kw_only=True)
class _Line:
    label: str
    stage: str = ""
    rate: str = ""
    tflops: float | None = None
    gbps: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    clock_mhz: float | None = None
    held: str = ""
    errors: int = 0
    ended: str = ""  # what ended its worker; empty: it works


class DeviceTable:
    """The lines of all devices; hand it every event and ask for the rows whenever they are to be drawn."""

    def __init__(self, order: Order, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._order = order
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._stage, self._cycle = "", 1
        self._stage_at = clock()
        self._take: Mapping[str, Callable[[Event], None]] = {
            "inventory": self._devices,
            "stage.started": self._started,
            SAMPLE: self._sampled,
            "worker.done": self._done,
            **dict.fromkeys(ERROR_KINDS, self._error),
            **dict.fromkeys(END_KINDS, self._ended),
        }

    def note(self, event: Event) -> None:
        """Take in one event."""
        take = self._take.get(event.kind)
        if take is not None:
            take(event)

    def _devices(self, event: Event) -> None:
        for index, device in enumerate(event.data["devices"]):
            name = str(device["name"])
            label = f"GPU {index}" if name.startswith("GPU-") else name
            self._lines[name] = _Line(label=label, stage=self._stage)

    def _started(self, event: Event) -> None:
        self._stage, self._stage_at = str(event.data["stage"]), self._clock()
        self._cycle = int(event.data.get("cycle") or self._cycle)
        for line in self._lines.values():
            line.stage, line.rate, line.tflops, line.gbps = self._stage, "", None, None

    def _sampled(self, event: Event) -> None:
        data = event.data
        line = self._lines.get(str(data.get("device") or data.get("gpu")))
        if line is None:
            return
        if event.source == "gpu":
            line.power_w, line.temperature_c = (
                _number(data.get("power_w")),
                _number(data.get("temperature_c")),
            )
            line.clock_mhz, line.held = _number(data.get("sm_clock_mhz")), _held(data.get("event_reasons"))
        elif (tflops := _number(data.get("tflops"))) is not None:
            line.tflops, line.rate = tflops, f"{_figure(tflops)} TFLOPS"
        elif (gbps := _number(data.get("gbps"))) is not None:
            line.gbps, line.rate = gbps, f"{_figure(gbps)} GB/s"

    def _done(self, event: Event) -> None:
        line = self._lines.get(str(event.data["device"]))
        if line is not None:
            line.rate, line.tflops, line.gbps = "", None, None

    def _error(self, event: Event) -> None:
        line = self._lines.get(str(event.data.get("device") or event.data.get("gpu")))
        if line is not None:
            line.errors += 1

    def _ended(self, event: Event) -> None:
        line = self._lines.get(str(event.data["device"]))
        if line is not None:
            line.errors, line.ended = line.errors + 1, event.kind.removeprefix("worker.")

    def left_s(self) -> float:
        """Return the seconds of planned load that are still to come; start and end come on top."""
        names = [stage.name for stage in self._order.stages]
        current = names.index(self._stage) if self._stage in names else -1
        each_s = sum(stage.length_s for stage in self._order.stages if stage.name in LOADED_STAGES)
        later = sum(stage.length_s for stage in self._order.stages[current + 1 :])
        later += each_s * (self._order.cycles - self._cycle)
        if current < 0:
            return later
        elapsed_s = self._clock() - self._stage_at
        return later + max(self._order.stages[current].length_s - elapsed_s, 0.0)

    def stage_detail(self) -> str:
        """Return how far the stage is, and the rate that its devices have in the median."""
        stage = self._order.stage(self._stage)
        if stage is None or not stage.length_s:
            return ""
        elapsed_s = min(self._clock() - self._stage_at, stage.length_s)
        rates = [line.tflops for line in self._lines.values() if line.tflops is not None]
        rate = f", {_figure(median(rates))} TFLOPS each" if rates else ""
        cycle = f"cycle {self._cycle} of {self._order.cycles}: " if self._order.cycles > 1 else ""
        return f"{cycle}{elapsed_s:.0f} of {stage.length_s:.0f} s{rate}"

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row per device, in the order of ``HEADERS``."""
        left = _left(self.left_s())
        return [
            (
                line.label,
                line.ended or line.stage,
                "" if line.ended else line.rate,
                _text(line.power_w),
                _text(line.temperature_c),
                _text(line.clock_mhz),
                line.held,
                str(line.errors) if line.errors else "",
                "" if line.ended else left,
            )
            for line in list(self._lines.values())  # drawn by another thread than the one that adds to it
        ]

    def figures(self) -> Iterator[Figure]:
        """Yield the same for Prometheus; what a device has no sensor for is left out."""
        yield Figure("overproof_burnin_left_seconds", self.left_s())
        for line in list(self._lines.values()):
            device = {"device": line.label}
            yield Figure("overproof_burnin_stage", 1, device | {"stage": line.ended or line.stage})
            yield Figure("overproof_burnin_errors_total", line.errors, device)
            if line.held:
                yield Figure("overproof_burnin_held_back", 1, device | {"reason": line.held})
            for name, value, one in (
                ("overproof_burnin_compute_flops", line.tflops, 1e12),
                ("overproof_burnin_copy_bytes_per_second", line.gbps, 1e9),
                ("overproof_burnin_power_watts", line.power_w, 1.0),
                ("overproof_burnin_temperature_celsius", line.temperature_c, 1.0),
                ("overproof_burnin_sm_clock_hertz", line.clock_mhz, 1e6),
            ):
                if value is not None:
                    yield Figure(name, value * one, device)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _held(reasons: object) -> str:
    """Return what holds the clocks back, the worst first; a power cap is normal at full load."""
    if not isinstance(reasons, int):
        return ""
    found = [word for bit, word in _HELD_WORDS.items() if reasons & bit]
    return found[0] if found else "cap" if reasons & _POWER_CAP else ""


def _left(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
