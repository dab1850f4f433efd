"""The record of a fleet run, written as conductor and simulator write it, for a test to spoil.

Every host is healthy until a test says otherwise; figures are those of H100 SXM, spread as healthy ones are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from burnin.fleet.fleet_json import fleet_to_json
from burnin.fleet.host import Fleet, Host, Place
from probes.event import to_json_line
from probes.json_types import JsonObject
from reports.record import SERIES_FOLDER, create_run
from reports.run import FINISHED, Run, load_run
from reports.table import seal

T0_NS = 1_760_000_000 * 10**9
MODEL = "NVIDIA H100 80GB HBM3"
# Median and spread (share of the median) of what a healthy GPU of this model reaches.
FIGURES = {
    "tflops bf16": (700.0, 0.015, "TFLOPS"),
    "tflops_per_ghz bf16": (410.0, 0.008, "TFLOPS/GHz"),
    "hbm_gbps": (2540.0, 0.006, "GB/s"),
    "allreduce_busbw_gbps 17179869184 B 8 ranks auto": (475.0, 0.01, "GB/s"),
    "power_w": (690.0, 0.01, "W"),
    "temperature_c": (66.0, 0.03, "°C"),
}
VERSIONS = {
    "kernel": "5.15.0-1042",
    "driver": "580.82.07",
    "nccl": "2.27.3",
    "bios": "1.3.2",
    "torch": "2.8.0",
}
PRODUCT = "power bf16 edge 8192 seed 1; model H100, torch 2.8.0, cuda 12.9, driver 580.82.07"

Value = Callable[[str, int, str, float], float | None]


@dataclass
class FleetRecord:
    """What the record will hold; change it before it is written."""

    hosts: int = 16
    gpus: int = 8
    seed: int = 1
    profile: str = "intake"
    spec: JsonObject = field(default_factory=dict)
    rack_of: Callable[[int], str | None] = lambda index: f"r{index // 8:02d}"
    state: dict[str, tuple[str, str]] = field(default_factory=dict)  # host -> state, detail
    outcome: dict[str, str] = field(default_factory=dict)  # host -> outcome of its own burn-in
    findings: list[JsonObject] = field(default_factory=list)  # rows of host_finding
    value: Value = lambda host, gpu, metric, usual: usual
    digest: Callable[[str, int], str] = lambda host, gpu: "aa"
    versions: Callable[[str], Mapping[str, str]] = lambda host: {}  # on top of VERSIONS
    expected: dict[str, str] = field(default_factory=dict)
    net: list[JsonObject] = field(default_factory=list)
    silent: Sequence[str] = ()  # hosts that never reported
    serial: Callable[[str, int], str] = lambda host, gpu: f"S-{host}-{gpu}"
    started_ns: int = T0_NS
    is_finished: bool = True

    def names(self) -> list[str]:
        """Return the hosts by name."""
        return [f"gpu{index + 1:05d}" for index in range(self.hosts)]

    def write(self, folder: Path) -> Run:
        """Write the record, sealed as a finished run is."""
        spec: JsonObject = {"profile": self.profile, "fleet": self._fleet(), "together": {"network": False}}
        spec |= self.spec
        with create_run(folder, kind="fleet", spec=spec, seed=self.seed) as writer:
            writer.event("controller", "fleet", **self._fleet())
            if self.is_finished:
                writer.event("controller", FINISHED)
            path = writer.path
        for table, rows in self._tables().items():
            if rows:
                lines = "".join(to_json_line({"t_ns": self.started_ns} | row) for row in rows)
                (path / SERIES_FOLDER / f"{table}.ndjson").write_text(lines)
        seal(path)
        return load_run(path)

    def _fleet(self) -> JsonObject:
        hosts = tuple(
            Host(name=name, place=Place(rack=self.rack_of(index))) for index, name in enumerate(self.names())
        )
        return fleet_to_json(Fleet(name="test", hosts=hosts, expected_versions=self.expected))

    def _place(self, index: int) -> JsonObject:
        rack = self.rack_of(index)
        return {"rack": rack, "pdu": None, "hall": None, "switch": None, "nvlink_domain": None}

    def _tables(self) -> dict[str, list[JsonObject]]:
        tables: dict[str, list[JsonObject]] = {
            "host": [],
            "gpu_result": [],
            "digest": [],
            "fingerprint": [],
            "host_finding": list(self.findings),
            "net": list(self.net),
        }
        chance = random.Random(self.seed)
        for index, host in enumerate(self.names()):
            if host in self.silent:
                continue
            state, detail = self.state.get(host, ("finished", ""))
            outcome = self.outcome.get(host, "pass" if state == "finished" else "inconclusive")
            row = {"host": host, "state": state, "outcome": outcome, "run": f"hosts/{host}", "detail": detail}
            tables["host"].append(row | {"seconds": 1800.0, "clock_offset_s": 0.001} | self._place(index))
            if state == "finished":
                self._add_host(host, tables, chance)
        return tables

    def _add_host(self, host: str, tables: dict[str, list[JsonObject]], chance: random.Random) -> None:
        for key, value in (VERSIONS | dict(self.versions(host))).items():
            tables["fingerprint"].append({"host": host, "part": "", "key": key, "value": value})
        for index in range(self.gpus):
            gpu = f"GPU-{host}-{index}"
            about = {"host": host, "gpu": gpu}
            for metric, (median, spread, unit) in FIGURES.items():
                figure = self.value(host, index, metric, chance.gauss(median, spread * median))
                if figure is not None:
                    row = {"serial": self.serial(host, index), "model": MODEL, "metric": metric}
                    tables["gpu_result"].append(about | row | {"value": figure, "unit": unit})
            tables["digest"].append(about | {"product": PRODUCT, "digest": self.digest(host, index)})
            slot = {"host": host, "part": gpu, "key": "slot", "value": f"0000:{index:02x}:00.0"}
            vbios = {"host": host, "part": gpu, "key": "vbios", "value": "96.00.89.00.01"}
            tables["fingerprint"] += [slot, vbios]


def fails(host: str, rule: str = "ecc", subject: str | None = None, outcome: str = "fail") -> JsonObject:
    """Return a finding of a host's own burn-in."""
    return {
        "host": host,
        "rule": rule,
        "subject": subject or f"gpu:GPU-{host}-0",
        "outcome": outcome,
        "observed": f"{rule} went wrong",
        "expected": "that it does not",
        "next_step": "replace it",
        "is_explained": False,
    }
