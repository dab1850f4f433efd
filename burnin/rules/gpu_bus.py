"""Rules on what connects a GPU: its PCIe link and errors, its NVLinks, the fabric that they form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from burnin.evidence import numbers
from burnin.rules.gpu_readings import GpuReadings, sensor_finding
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

# Replays per minute and lane that DCGM accepts, by generation of the link (health watches, read 2026-07).
REPLAYS_PER_MINUTE_AND_LANE = {3: 0.48, 4: 0.96, 5: 1.92, 6: 3.84}
CRC_PER_SECOND_MAX = 100.0  # DCGM's health watch
RESEAT = "reseat the GPU or its riser, then run it again"
LINK_STEP = "reset the GPUs of this node; if it returns, check bridge, baseboard or switch tray"
FABRIC_COMPLETED, FABRIC_CORRECT, FABRIC_CONFIGURATION_SHIFT = 3, 1, 8
FABRIC_FAULTS = {
    0: "bandwidth degraded",
    2: "route recovery under way",
    4: "route unhealthy",
    6: "access timeout",
}
FABRIC_STATES = {1: "not started", 2: "in progress", FABRIC_COMPLETED: "completed"}


def judge_pcie_link(readings: GpuReadings) -> Finding:
    """Fail a GPU whose link is narrower or slower than it could be while it works; idle links rest."""
    most = {name: readings.identity.get(f"{name}_max") for name in ("pcie_generation", "pcie_width")}
    loaded = readings.loaded_rows
    seen = {name: numbers(loaded, name) for name in most}
    outcome: Outcome | None
    if None in most.values():
        outcome, observed = readings.silence("pcie_width_max")
        outcome = None if outcome is None or not readings.rows else outcome
    elif not loaded:
        outcome, observed = None, "the GPU was not loaded, and an idle link rests"
    elif not all(seen.values()):
        outcome, observed = readings.silence("pcie_width")
    else:
        got = {name: max(values) for name, values in seen.items()}
        is_full = all(got[name] >= float(most[name] or 0) for name in most)
        outcome = Outcome.PASS if is_full else Outcome.FAIL
        observed = f"generation {got['pcie_generation']:.0f} × {got['pcie_width']:.0f} under load"
    expected = f"generation {most['pcie_generation']} × {most['pcie_width']}"
    return sensor_finding("pcie-link", readings, outcome, observed, expected, RESEAT)


def judge_pcie_errors(readings: GpuReadings) -> Finding:
    """Fail a GPU whose link met an error that was not corrected, or replays more than a sound link does."""
    replays = readings.added("pcie_replays")
    hard = {name: readings.added(name) for name in ("pcie_non_fatal", "pcie_fatal")}
    allowed = _replays_max(readings)
    outcome: Outcome | None
    if replays is None:
        outcome, observed = readings.silence("pcie_replays")
    else:
        worst = {name.removeprefix("pcie_"): count for name, count in hard.items() if count}
        outcome = Outcome.FAIL if worst or replays > allowed else Outcome.PASS
        told = "".join(f", {count:.0f} {name} errors" for name, count in worst.items())
        observed = f"{replays:.0f} replays{told}"
    expected = f"no uncorrected error and at most {allowed:.0f} replays in {readings.run_s:.0f} s"
    return sensor_finding("pcie-errors", readings, outcome, observed, expected, RESEAT)


def _replays_max(readings: GpuReadings) -> float:
    """Return how many replays a sound link may have had; part of a minute counts as a whole one."""
    generation = int(readings.identity.get("pcie_generation_max") or 3)
    lanes = int(readings.identity.get("pcie_width_max") or 16)
    per_lane = REPLAYS_PER_MINUTE_AND_LANE.get(generation, REPLAYS_PER_MINUTE_AND_LANE[6])
    return per_lane * lanes * max(readings.run_s / 60, 1.0)


def judge_nvlinks(readings: GpuReadings, *, links_expected: int | None) -> Finding:
    """Fail a GPU with an inactive link, a link that had to recover, too many errors, or unequal speeds.

    ``links_expected`` is None where links are a matter of the site, as bridges between PCIe boards are.
    """
    before, after = readings.links_before, readings.links_after
    outcome: Outcome | None
    if before is None or after is None:
        outcome, observed = readings.silence("nvlinks")
    elif not after and not before and not links_expected:
        outcome, observed = None, "this board has no NVLink"
    else:
        active = sum(1 for link in after if link["is_active"])
        faults = _link_faults(before, after, readings.run_s)
        inactive = [str(link["link"]) for link in after if not link["is_active"]]
        if links_expected is not None and active < links_expected:
            names = f" (inactive: {', '.join(inactive)})" if inactive else ""
            faults.insert(0, f"{active} of {links_expected} links are active{names}")
        outcome = Outcome.FAIL if faults else Outcome.PASS
        observed = "; ".join(faults) or f"{active} links active, {_replayed(before, after)} replays"
    expected = "every link active, none recovered, CRC errors within bounds, one speed"
    return sensor_finding("nvlink", readings, outcome, observed, expected, LINK_STEP)


def _link_faults(before: Sequence[JsonObject], after: Sequence[JsonObject], run_s: float) -> list[str]:
    """Name what went wrong, link by link."""
    first = {link["link"]: link for link in before}
    faults, speeds = [], set()
    for link in after:
        was = first.get(link["link"], {})
        if was.get("is_active") and not link["is_active"]:
            faults.append(f"link {link['link']} went down during the run")
        if link["is_active"] and link.get("speed_mbps"):
            speeds.add(link["speed_mbps"])
        for name, words in (("recoveries", "recoveries"), ("recoveries_failed", "failed recoveries")):
            if (count := _added(was, link, name)) > 0:
                faults.append(f"link {link['link']}: {count:.0f} {words}")
        if (count := _added(was, link, "crc_errors")) > CRC_PER_SECOND_MAX * max(run_s, 1.0):
            faults.append(f"link {link['link']}: {count / max(run_s, 1.0):.0f} CRC errors a second")
    if len(speeds) > 1:
        faults.append(f"links at unequal speeds: {', '.join(f'{speed} MB/s' for speed in sorted(speeds))}")
    return faults


def _added(was: Mapping[str, object], now: Mapping[str, object], name: str) -> float:
    first, last = was.get(name), now.get(name)
    return (
        float(last) - float(first)
        if isinstance(first, (int, float)) and isinstance(last, (int, float))
        else 0.0
    )


def _replayed(before: Sequence[JsonObject], after: Sequence[JsonObject]) -> int:
    first = {link["link"]: link for link in before}
    return round(sum(_added(first.get(link["link"], {}), link, "replays") for link in after))


def judge_fabric(readings: GpuReadings) -> Finding:
    """Fail a GPU that the NVLink fabric has not taken in, or of which it reports a fault."""
    state, health = readings.last("fabric_state"), int(readings.last("fabric_health") or 0)
    outcome: Outcome | None
    if state is None:
        outcome, observed = readings.silence("fabric")
    else:
        faults = [words for shift, words in FABRIC_FAULTS.items() if health >> shift & 0b11 == 1]
        configuration = health >> FABRIC_CONFIGURATION_SHIFT & 0xF
        faults += ["wrong configuration"] if configuration > FABRIC_CORRECT else []
        if readings.last("fabric_status"):
            faults.append(f"its registration ended with error {readings.last('fabric_status'):.0f}")
        is_sound = state == FABRIC_COMPLETED and not faults
        outcome = Outcome.PASS if is_sound else Outcome.FAIL
        observed = ", ".join([f"registration {FABRIC_STATES.get(int(state), f'state {state}')}", *faults])
    step = "see that the fabric manager runs and fits the driver, and read its log; then reset the GPUs"
    return sensor_finding("fabric", readings, outcome, observed, "registration completed, no fault", step)
