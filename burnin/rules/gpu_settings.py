"""Rules on how a GPU is set up, and on what the driver itself recommends to do with it."""

from __future__ import annotations

from dataclasses import replace

from burnin.evidence import numbers
from burnin.rules.gpu_readings import GpuReadings, sensor_finding
from probes.finding import Finding
from probes.outcome import Outcome

# NVML's recovery actions: what the driver wants done, in our words.
RECOVERY = {
    1: ("GPU reset", "reset the GPU, then run it again"),
    2: ("node reboot", "reboot the node, then run it again"),
    3: ("drain peer-to-peer traffic", "drain the node, reset its GPUs, then run it again"),
    4: ("drain and reset", "drain the node, reset the GPU, then run it again"),
    5: ("recover the IMEX domain", "restart the IMEX service on all nodes of its domain"),
    6: ("bus reset", "reboot the node, then run it again"),
    7: ("system reboot", "power-cycle the node, then run it again"),
}
LIMIT_SLACK_W = 1.0
MEMORY_IN_USE_SHARE_MAX = 0.05  # an idle driver keeps about 0.5 to 2 % of the memory


def judge_recovery_action(readings: GpuReadings) -> Finding:
    """Fail a GPU that the driver itself wants reset, drained or rebooted."""
    action = readings.last("recovery_action")
    outcome: Outcome | None
    step = ""
    if action is None:
        outcome, observed = readings.silence("recovery_action")
    elif action:
        words, step = RECOVERY.get(int(action), (f"action {action}", "reboot the node, then run it again"))
        outcome, observed = Outcome.FAIL, f"the driver recommends: {words}"
    else:
        outcome, observed = Outcome.PASS, "the driver recommends nothing"
    return sensor_finding("recovery-action", readings, outcome, observed, "none is recommended", step)


def judge_power_limit(readings: GpuReadings) -> Finding:
    """Fail a GPU whose power limit somebody has lowered: its figures would be those of a lesser one."""
    enforced = readings.last("power_limit_w") or readings.identity.get("power_limit_w")
    default = readings.identity.get("power_default_limit_w")
    outcome: Outcome | None
    if enforced is None or default is None:
        name = "power_limit_w" if enforced is None else "power_default_limit_w"
        outcome, observed = readings.silence(name)
    else:
        outcome = Outcome.FAIL if float(enforced) < float(default) - LIMIT_SLACK_W else Outcome.PASS
        observed = f"{float(enforced):.0f} W enforced"
    expected = f"the default of {float(default):.0f} W" if default is not None else "the default"
    step = "find what lowered it (nvidia-smi -pl, a power manager), restore the default, then run it again"
    return sensor_finding("power-limit", readings, outcome, observed, expected, step)


def judge_memory_clock(readings: GpuReadings) -> Finding:
    """Fail a GPU whose memory clock stays below its maximum while it works."""
    most, seen = (
        readings.identity.get("memory_clock_max_mhz"),
        numbers(readings.loaded_rows, "memory_clock_mhz"),
    )
    outcome: Outcome | None
    if not readings.loaded_rows:
        outcome, observed = None, "the GPU was not loaded, and an idle clock rests"
    elif most is None or not seen:
        outcome, observed = readings.silence("memory_clock_max_mhz" if most is None else "memory_clock_mhz")
    else:
        usual = sorted(seen)[len(seen) // 2]
        outcome = Outcome.FAIL if usual < float(most) else Outcome.PASS
        observed = f"{usual:.0f} MHz in the median under load"
    step = "unlock the memory clock (nvidia-smi -rmc), then run it again"
    return sensor_finding("memory-clock", readings, outcome, observed, f"{most} MHz", step)


def judge_memory_in_use(readings: GpuReadings) -> Finding:
    """Leave a GPU undecided whose memory somebody holds that no list of processes shows."""
    used, total = readings.identity.get("memory_used_bytes"), readings.identity.get("memory_bytes")
    outcome: Outcome | None
    if used is None or not total:
        outcome, observed = readings.silence("memory_used_bytes")
    else:
        share = float(used) / float(total)
        outcome = Outcome.INCONCLUSIVE if share > MEMORY_IN_USE_SHARE_MAX else Outcome.PASS
        observed = f"{float(used) / 2**20:.0f} MiB in use before we touched it, {share:.1%} of all"
    expected = f"at most {MEMORY_IN_USE_SHARE_MAX:.0%}, what the driver takes for itself"
    finding = sensor_finding("memory-in-use", readings, outcome, observed, expected, "")
    step = "end whoever holds it (fuser -v /dev/nvidia*), reset the GPU, then run it again"
    return replace(finding, next_step=step) if outcome is Outcome.INCONCLUSIVE else finding


def judge_mig(readings: GpuReadings) -> Finding:
    """Leave a GPU undecided that is cut into instances: no test reaches all of it."""
    mode = readings.identity.get("mig_mode")
    outcome: Outcome | None
    if mode is None:
        outcome, observed = None, "this driver or board has no MIG"
    else:
        outcome, observed = (Outcome.INCONCLUSIVE, "on") if mode else (Outcome.PASS, "off")
    finding = sensor_finding(
        "mig", readings, outcome, observed, "MIG is off, so that all of the GPU is tested", ""
    )
    step = "switch MIG off (nvidia-smi -mig 0), reset the GPU, then run it again"
    return replace(finding, next_step=step) if outcome is Outcome.INCONCLUSIVE else finding
