"""What each simulated host adds to the fleet's tables: noise like that of real ones, traces of its faults."""

from __future__ import annotations

import hashlib
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence

from burnin.expectation import Expectation, expectation_for
from burnin.fleet.host import Host
from burnin.fleet.simulation.fault import CORRUPTS, DEAD, SLOW_GPU, Fault
from probes.json_types import JsonObject

SILICON_SPREAD = 0.02  # one standard deviation between GPUs of one model
HOST_FLOOR = 0.9  # a GPU slower than this share of its siblings is found by its own host's burn-in
VERSIONS = {"kernel": "6.8.0-58-generic", "driver": "570.133.20", "nccl": "2.26.2", "bios": "2.4.1"}
VBIOS = "96.00.AB.00.01"
_POWER_W, _TEMPERATURE_C, _USUAL_TFLOPS, _USUAL_HBM_GBPS = 700.0, 62.0, 700.0, 2500.0
PRODUCT = "power bf16 edge 8192 seed 1; simulated"


def host_rows(host: Host, faults: Sequence[Fault], *, seed: int) -> dict[str, list[JsonObject]]:
    """Return the rows of each table, without time and host."""
    own = {fault.kind: fault for fault in faults if fault.hosts and fault.hosts[0] == host.name}
    if DEAD in own:
        return {}
    rng = random.Random(f"{seed} {host.name}")
    model = host.expected.model or ""
    expected = expectation_for(model)
    gpus = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(host.expected.gpus or 0)]
    names = [f"GPU-{name}" for name in gpus]
    tables: dict[str, list[JsonObject]] = {"gpu_result": [], "digest": [], "fingerprint": []}
    for number, gpu in enumerate(names):
        speed = own[SLOW_GPU].speed if _is_at(own, SLOW_GPU, number) else 1.0
        about = {"gpu": gpu, "serial": f"{rng.randrange(10**12):012d}", "model": model}
        tables["gpu_result"] += [about | figure for figure in _figures(expected, speed, rng)]
        bits = "dissent" if _is_at(own, CORRUPTS, number) else "same"
        digest = hashlib.sha256(
            f"{seed} {bits} {host.name if bits == 'dissent' else ''}".encode()
        ).hexdigest()
        tables["digest"].append({"gpu": gpu, "product": PRODUCT, "digest": digest[:32]})
        tables["fingerprint"].append({"part": gpu, "key": "vbios", "value": VBIOS})
    tables["fingerprint"] += [{"part": "", "key": key, "value": value} for key, value in VERSIONS.items()]
    tables["host_finding"] = list(_findings(own, names))
    return tables


def _is_at(own: Mapping[str, Fault], kind: str, number: int) -> bool:
    """Say whether a fault sits in this GPU of its host; rail r is fed by GPU r."""
    return kind in own and (own[kind].rail or 0) == number


def _figures(expected: Expectation | None, speed: float, rng: random.Random) -> Iterator[JsonObject]:
    silicon = rng.gauss(1.0, SILICON_SPREAD) * speed
    typical = expected.tflops_typical.get("bf16") if expected else None
    tflops = (typical.value if typical else _USUAL_TFLOPS) * silicon
    known = expected.figures if expected else {}
    hbm = known["hbm_tbps_typical"].value * 1000 if "hbm_tbps_typical" in known else _USUAL_HBM_GBPS
    power = known["power_limit_w"].value if "power_limit_w" in known else _POWER_W
    yield {"metric": "tflops bf16", "value": tflops, "unit": "TFLOPS"}
    yield {"metric": "tflops_held", "value": tflops * rng.gauss(0.93, 0.004), "unit": "TFLOPS"}
    yield {"metric": "hbm_gbps", "value": hbm * rng.gauss(1.0, 0.005), "unit": "GB/s"}
    yield {"metric": "power_w", "value": power * rng.gauss(0.985, 0.006), "unit": "W"}
    yield {"metric": "temperature_c", "value": round(rng.gauss(_TEMPERATURE_C, 3.0)), "unit": "°C"}


def _findings(own: Mapping[str, Fault], gpus: Sequence[str]) -> Iterator[JsonObject]:
    """Yield what the host's own burn-in would have found."""
    if SLOW_GPU in own and own[SLOW_GPU].speed < HOST_FLOOR and gpus:
        fault = own[SLOW_GPU]
        yield {
            "rule": "speed",
            "subject": f"gpu:{gpus[(fault.rail or 0) % len(gpus)]}",
            "outcome": "fail",
            "observed": f"reaches {fault.speed:.0%} of the median of its siblings",
            "expected": f"at least {HOST_FLOOR:.0%}",
            "next_step": "look at its clocks, temperature and power limit; if they are normal, replace it",
            "is_explained": False,
        }
    if CORRUPTS in own and gpus:
        yield {
            "rule": "digest",
            "subject": f"gpu:{gpus[(own[CORRUPTS].rail or 0) % len(gpus)]}",
            "outcome": "fail",
            "observed": "equal products gave other bits than on all its siblings",
            "expected": "equal products give equal bits",
            "next_step": "take the GPU out of service and replace it",
            "is_explained": False,
        }
