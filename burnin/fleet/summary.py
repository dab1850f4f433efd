"""What one host's judged burn-in adds to the fleet's tables: figures, digests, fingerprints, findings.

The fleet is judged and shown from these rows alone; nobody opens the records of 12,500 hosts for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from burnin.evidence import Evidence, numbers, subject_of
from burnin.node.number_format import PRIMARY
from burnin.node.rounds import ALONE
from burnin.rules.figure_judging import per_clock
from burnin.rules.stage_judging import likeness
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run

# What a device that failed one of these computes is wrong in any case: it has no vote on what is right.
_KNOWN_WRONG = ("exact", "first-product", "operands", "digest", "memory")
_TEXT_MAX = 500
_COPY_METRICS = {"device copy": "hbm_gbps", "host to device": "h2d_gbps", "device to host": "d2h_gbps"}
# Metric of the table, column of the sensor's rows; the highest of these is kept, of the others the median.
_SENSORS = {
    "power_w": "power_w",
    "temperature_c": "temperature_c",
    "memory_temperature_c": "memory_temperature_c",
}
_HIGHEST = ("temperature_c", "memory_temperature_c")
_OF_HOST = ("kernel", "bios", "bios date", "product", "os", "microcode", "serial")
_OF_WORKER = ("torch", "cuda", "nccl")
_OF_GPU = {"vbios": "vbios", "inforom": "inforom_image", "gsp firmware": "gsp_firmware", "slot": "pci_bus_id"}


def summarise(run: Run) -> dict[str, list[JsonObject]]:
    """Return the rows of each table, without time and host, which whoever writes them puts in."""
    evidence = Evidence(run)
    if not evidence.order.stages:
        return {}
    return {
        "gpu_result": [row for device in evidence.devices for row in _results(evidence, device)],
        "digest": list(_digests(evidence, run.findings)),
        "fingerprint": list(_fingerprints(evidence)),
        "host_finding": [_finding_row(f) for f in run.findings if f.counts and f.outcome is not Outcome.PASS],
    }


def _results(evidence: Evidence, device: str) -> Iterator[JsonObject]:
    """Yield each figure of one device; one that was not measured has no row."""
    identity = _identity(evidence, device)
    about = {"gpu": device, "serial": str(identity.get("serial") or ""), "model": _model(evidence, device)}
    for metric, value, unit in _figures(evidence, device):
        yield about | {"metric": metric, "value": value, "unit": unit}


def _figures(evidence: Evidence, device: str) -> Iterator[tuple[str, float, str]]:
    primary = PRIMARY["cpu" if evidence.is_cpu else "cuda"]
    column = "busy_tflops" if evidence.is_cpu else "tflops"
    rates = numbers(evidence.matmul_rows(device), column)
    if rates:
        yield f"tflops {primary}", median(rates), "TFLOPS"
    for name in _other_formats(evidence, device, primary):
        rows = evidence.series("matmul", device=device, phase="together", format=name)
        if found := numbers(rows, column):
            yield f"tflops {name}", median(found), "TFLOPS"
    if ratios := per_clock(evidence, device):
        yield f"tflops_per_ghz {primary}", median(ratios), "TFLOPS/GHz"
    if held := numbers(evidence.series("power", device=device, phase="hold"), column):
        yield "tflops_held", median(held), "TFLOPS"
    yield from _copies(evidence, device)
    yield from _allreduces(evidence, device)
    yield from _sensors(evidence, device)


def _other_formats(evidence: Evidence, device: str, primary: str) -> list[str]:
    tested = {str(name) for data in evidence.told("formats", device=device) for name in data["tested"]}
    return sorted(tested - {primary})


def _copies(evidence: Evidence, device: str) -> Iterator[tuple[str, float, str]]:
    """Yield the rate of each path; while the others rested, where that was measured."""
    for path, metric in _COPY_METRICS.items():
        told = evidence.told("bandwidth.result", device=device, path=path, is_pinned=True)
        alone = [data for data in told if data.get("phase") == ALONE] or told
        if alone:
            yield metric, median(float(data["gbps"]) for data in alone), "GB/s"


def _allreduces(evidence: Evidence, device: str) -> Iterator[tuple[str, float, str]]:
    """Yield the all-reduce of the largest message of each algorithm, its size in the name."""
    largest: dict[str, JsonObject] = {}
    for result in evidence.told("allreduce.result", device=device):
        algorithm = str(result.get("algorithm") or "auto")
        if int(result["size_bytes"]) >= int(largest.get(algorithm, result)["size_bytes"]):
            largest[algorithm] = result
    for algorithm, result in sorted(largest.items()):
        name = f"allreduce_busbw_gbps {int(result['size_bytes'])} B {int(result['ranks'])} ranks {algorithm}"
        yield name, float(result["busbw_gbps"]), "GB/s"


def _sensors(evidence: Evidence, device: str) -> Iterator[tuple[str, float, str]]:
    """Yield what the sensors read while products ran."""
    times = [int(row["t_ns"]) for row in evidence.matmul_rows(device)]
    rows = evidence.series("gpu", gpu=device)
    if not times:
        return
    loaded = [row for row in rows if times[0] <= int(row["t_ns"]) <= times[-1]]
    for metric, column in _SENSORS.items():
        if found := numbers(loaded, column):
            value = max(found) if metric in _HIGHEST else median(found)
            yield metric, value, "W" if metric == "power_w" else "°C"


def _digests(evidence: Evidence, findings: Sequence[Finding]) -> Iterator[JsonObject]:
    """Yield the digest of each product, under a key that tells all that its bits may depend on."""
    wrong = {f.subject for f in findings if f.rule in _KNOWN_WRONG and f.outcome is Outcome.FAIL}
    for device in evidence.devices:
        for kind in ("power.result", "throughput.result"):
            for result in evidence.told(kind, device=device):
                if result.get("digests") and not result["dissents"] and subject_of(device) not in wrong:
                    yield {
                        "gpu": device,
                        "product": _product(evidence, device, kind, result),
                        "digest": str(result["digest"]),
                    }


def _product(evidence: Evidence, device: str, kind: str, result: JsonObject) -> str:
    cycle = int(result.get("cycle") or 1)  # each cycle has data of its own
    stage = kind.partition(".")[0]
    shape = f"{stage} {result.get('format')} edge {result.get('edge')} seed {evidence.order.seed + cycle - 1}"
    return f"{shape}; {likeness(evidence, device)}"


def _fingerprints(evidence: Evidence) -> Iterator[JsonObject]:
    """Yield what this host and its parts run on; a value that was not read has no row."""
    told: JsonObject = next(iter(evidence.told("host.setup")), {})
    found: JsonObject = told.get("fingerprints") or {}
    host: JsonObject = {key: (found.get("host") or {}).get(key) for key in _OF_HOST}
    host["driver"] = evidence.inventory.get("driver")
    ready: JsonObject = next(iter(evidence.told("worker.ready")), {})
    host |= {key: ready.get(key) for key in _OF_WORKER}
    started: JsonObject = next(iter(evidence.told("agent.started")), {})
    host["python"] = started.get("python")
    yield from _rows("", host)
    for gpu in evidence.gpus:
        own = {key: gpu.get(column) for key, column in _OF_GPU.items()}
        yield from _rows(str(gpu["uuid"]), own | {"serial": gpu.get("serial")})
    for nic in found.get("nics") or []:
        kind = f"nic firmware ({nic.get('type') or 'unknown'}, {nic.get('board') or 'unknown'})"
        yield from _rows(str(nic["adapter"]), {kind: nic.get("firmware")})


def _rows(part: str, values: JsonObject) -> Iterator[JsonObject]:
    for key, value in values.items():
        if value not in (None, ""):
            yield {"part": part, "key": key, "value": str(value)[:_TEXT_MAX]}


def _identity(evidence: Evidence, device: str) -> JsonObject:
    return next((gpu for gpu in evidence.gpus if gpu.get("uuid") == device), {})


def _model(evidence: Evidence, device: str) -> str:
    listed = (evidence.choice or {}).get("devices", [])
    return next((str(d["model"]) for d in listed if d["name"] == device), "")


def _finding_row(finding: Finding) -> JsonObject:
    assert finding.outcome is not None
    return {
        "rule": finding.rule,
        "subject": finding.subject,
        "outcome": finding.outcome.value,
        "observed": finding.observed[:_TEXT_MAX],
        "expected": finding.expected[:_TEXT_MAX],
        "next_step": finding.next_step[:_TEXT_MAX],
        "is_explained": "because" in finding.evidence,
    }
