"""Rules on what has to be there before any load: the devices, room to work in, nobody else on the GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from burnin.evidence import subject_of
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

# Two workers with torch and the operands of every stage take about 1 GB together (measured 2026-11).
MEMORY_AVAILABLE_BYTES_MIN = 2 * 10**9
_NO_TORCH = "No module named 'torch'"


def judge_devices(
    host: str,
    *,
    choice: JsonObject | None,
    gpu_count: int,
    gpus_expected: int | None,
    ready: int,
    errors: Sequence[str] = (),
) -> Finding:
    """Fail a host that has fewer GPUs than it should, or of which torch sees fewer than NVML.

    A Python without torch says nothing about the hardware: it leaves the host undecided.
    """
    outcome = Outcome.PASS
    step = ""
    if choice is None:
        outcome, observed = Outcome.INCONCLUSIVE, "the run ended before the devices were known"
        step = "run it again"
    elif gpus_expected is not None and gpu_count != gpus_expected:
        outcome, observed = Outcome.FAIL, f"NVML lists {gpu_count} GPUs"
        step = "look for a GPU that fell off the bus (lspci, kernel log); reseat it or drain the node"
    elif choice.get("problem") or not choice["devices"]:
        outcome, observed = Outcome.INCONCLUSIVE, str(choice.get("problem") or "no device to test")
        step = "free the GPUs or mend the driver, then run it again; `--device cpu` tests the cores alone"
    elif ready < len(choice["devices"]) and any(_NO_TORCH in error for error in errors):
        outcome, observed = Outcome.INCONCLUSIVE, "the Python there has no torch"
        step = "install PyTorch for it, or name another interpreter (python: in the fleet file)"
    elif ready < len(choice["devices"]):
        outcome = Outcome.INCONCLUSIVE if choice["device_kind"] == "cpu" else Outcome.FAIL
        observed = f"torch can use {ready} of {len(choice['devices'])} devices"
        step = "look at agent.log of this run"
    else:
        names = ", ".join(str(device["name"]) for device in choice["devices"])
        observed = f"{len(choice['devices'])} × {choice['device_kind']}: {names}"
    return Finding(
        rule="devices",
        subject=f"host:{host}",
        outcome=outcome,
        observed=observed,
        expected=f"{gpus_expected} GPUs"
        if gpus_expected is not None
        else "every device that is there can be used",
        evidence={"stage": "preflight"},
        next_step=step,
    )


def judge_room(host: str, rooms: Sequence[JsonObject]) -> Finding:
    """Leave a host undecided that has too little memory to work in."""
    available = rooms[0].get("memory_available_bytes") if rooms else None
    if available is None:
        outcome, observed = Outcome.INCONCLUSIVE, "free memory was not read"
    else:
        outcome = Outcome.PASS if available >= MEMORY_AVAILABLE_BYTES_MIN else Outcome.INCONCLUSIVE
        load = rooms[0].get("load_1min")
        observed = f"{available / 1e9:.1f} GB available, {rooms[0]['cores']} cores, load of others {load}"
    return Finding(
        rule="room",
        subject=f"host:{host}",
        outcome=outcome,
        observed=observed,
        expected=f"at least {MEMORY_AVAILABLE_BYTES_MIN / 1e9:.0f} GB of memory available",
        unit="B",
        evidence={"stage": "preflight"},
        next_step="" if outcome is Outcome.PASS else "free memory on this host, then run it again",
    )


def judge_company(
    gpu: str,
    *,
    before: Sequence[int],
    during: Sequence[Sequence[int]],
    own: int,
    intruders: Sequence[JsonObject] = (),
) -> Finding:
    """Leave a GPU undecided on which somebody else computed: its figures are not its own.

    ``intruders`` are those for whom the agent ended its load.
    """
    most = max((len(pids) for pids in during), default=0)
    if before:
        outcome, observed = (
            Outcome.INCONCLUSIVE,
            f"in use before the start by pid {', '.join(map(str, before))}",
        )
    elif intruders:
        pids = ", ".join(str(pid) for pid in intruders[0]["pids"])
        outcome = Outcome.INCONCLUSIVE
        observed = f"pid {pids} began to compute on it during {intruders[0]['stage']}; our load was ended"
    elif most > own:
        outcome, observed = Outcome.INCONCLUSIVE, f"{most} processes computed on it, {own} of them ours"
    else:
        outcome, observed = Outcome.PASS, "nobody else computed on it"
    return Finding(
        rule="foreign-process",
        subject=subject_of(gpu),
        outcome=outcome,
        observed=observed,
        expected="no process but ours",
        evidence={"stage": "preflight"},
        next_step="" if outcome is Outcome.PASS else "drain the node, then run it again",
    )


def judge_hidden(choice: JsonObject) -> list[Finding]:
    """Leave each GPU undecided that CUDA_VISIBLE_DEVICES kept us away from: it was not tested."""
    return [
        Finding(
            rule="visible-devices",
            subject=subject_of(str(gpu)),
            outcome=Outcome.INCONCLUSIVE,
            observed=f"not tested: hidden by CUDA_VISIBLE_DEVICES={choice.get('visible')}",
            expected="every GPU of the node is tested",
            evidence={"stage": "preflight"},
            next_step="unset CUDA_VISIBLE_DEVICES, or test the hidden GPUs in a run of their own",
        )
        for gpu in choice.get("hidden") or []
    ]


def judge_host_root(host: str, told: Sequence[JsonObject]) -> list[Finding]:
    """Leave a run undecided whose host sensors read another file tree than the host's own."""
    return [
        Finding(
            rule="host-root",
            subject=f"host:{host}",
            outcome=Outcome.INCONCLUSIVE,
            observed=f"the host's sensors were read from {event['path']}",
            expected="the host's own files",
            next_step="unset OVERPROOF_HOST_ROOT and run it again",
        )
        for event in told[:1]
    ]
