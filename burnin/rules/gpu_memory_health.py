"""Rules on a GPU's memories beside the ECC counters: repairs of HBM rows, on-chip SRAM, ECC switched off."""

from __future__ import annotations

from burnin.evidence import numbers
from burnin.rules.gpu_readings import GpuReadings, sensor_finding
from probes.finding import Finding
from probes.outcome import Outcome

RMA = "take this GPU out of service and open an RMA case with the vendor"
RESET = "reset the GPU so that its rows are remapped, then run it again"
MARGIN_NOTED_C = 5.0  # so near a limit a warmer day is too much
SRAM_EVER_NOTED = 4  # uncorrectable errors in a life from which an RMA is worth a thought (ml-engineering)


def judge_row_remaps(readings: GpuReadings) -> Finding:
    """Fail a GPU that could not repair a row, waits for a repair, or had to make one during the run."""
    failure, pending = readings.last("row_remap_failure"), readings.last("row_remap_pending")
    added = readings.added("rows_remapped_uncorrected")
    outcome: Outcome | None = Outcome.PASS
    step = ""
    if failure is None or pending is None or added is None:
        outcome, observed = readings.silence("row_remap_failure")
    elif failure:
        outcome, observed, step = Outcome.FAIL, "a row could not be remapped: its bank has no spare left", RMA
    elif pending:
        outcome, observed, step = Outcome.FAIL, "a remapping is pending", RESET
    elif added > 0:
        outcome, observed, step = Outcome.FAIL, f"{added:.0f} rows remapped during the run", RESET
    else:
        observed = f"{readings.last('rows_remapped_uncorrected'):.0f} rows remapped in its life, none now"
    spent, few = readings.last("banks_without_spare_rows"), readings.last("banks_with_few_spare_rows")
    if spent or few:
        observed += f"; {spent or 0:.0f} banks have no spare rows left, {few or 0:.0f} have few: watch it"
    return sensor_finding(
        "row-remap", readings, outcome, observed, "no row repaired, waiting or beyond repair", step
    )


def judge_sram(readings: GpuReadings) -> Finding:
    """Fail a GPU whose on-chip memories met an uncorrectable error, or more than the vendor accepts."""
    exceeded, added = readings.last("sram_threshold_exceeded"), readings.added("sram_uncorrected")
    ever = readings.last("sram_uncorrected_ever")
    outcome: Outcome | None = Outcome.PASS
    step = ""
    if exceeded is None or added is None:
        outcome, observed = readings.silence("sram")
    elif exceeded:
        outcome, observed, step = Outcome.FAIL, "more errors than the vendor's threshold", RMA
    elif added > 0:
        outcome, observed = Outcome.FAIL, f"{added:.0f} uncorrectable errors more than before"
        step = "reset the GPU, then run it again; replace it if errors return"
    else:
        observed = f"{ever or 0:.0f} uncorrectable errors in its life, none now"
        observed += ": watch it" if (ever or 0) > SRAM_EVER_NOTED else ""
    return sensor_finding("sram", readings, outcome, observed, "no uncorrectable error on the chip", step)


def judge_inforom(readings: GpuReadings) -> Finding:
    """Fail a GPU whose InfoROM is corrupt: serial, ECC history and power limits are kept there."""
    corrupt = readings.last("inforom_corrupt")
    outcome: Outcome | None = Outcome.PASS
    if corrupt or readings.corrupt:
        calls = f", told by {', '.join(readings.corrupt)}" if readings.corrupt else ""
        outcome, observed = Outcome.FAIL, f"corrupt{calls}"
    elif corrupt is None:
        outcome, observed = readings.silence("inforom_corrupt")
    else:
        observed = "its checksums are right"
    step = "power-cycle the node; if it stays corrupt, " + RMA
    return sensor_finding(
        "inforom", readings, outcome, observed, "the checksums of the InfoROM are right", step
    )


def judge_ecc_mode(readings: GpuReadings) -> Finding:
    """Fail a GPU whose error correction is switched off: its counters say nothing then."""
    mode = readings.identity.get("ecc_mode")
    outcome: Outcome | None
    if mode is None:
        outcome, observed = readings.silence("ecc_mode")
    else:
        outcome, observed = (Outcome.PASS, "on") if mode else (Outcome.FAIL, "off")
    step = "switch it on (nvidia-smi -e 1), reboot, then run it again"
    return sensor_finding("ecc-mode", readings, outcome, observed, "error correction is on", step)


def judge_hbm_heat(readings: GpuReadings) -> Finding:
    """Fail a GPU whose memory was hotter than it may be."""
    limit_c, seen = readings.identity.get("memory_max_c"), numbers(readings.rows, "memory_temperature_c")
    outcome: Outcome | None
    if limit_c is None or (not seen and "memory_temperature_c" in readings.lacking):
        outcome, observed = None, "this driver or board states no temperature of the memory, or no limit"
    elif not seen:
        outcome, observed = Outcome.INCONCLUSIVE, "no temperature of the memory was read"
    else:
        outcome = Outcome.FAIL if max(seen) > float(limit_c) else Outcome.PASS
        observed = f"at most {max(seen):.0f} °C in {len(seen)} readings"
        observed += ": watch it" if float(limit_c) - MARGIN_NOTED_C <= max(seen) <= float(limit_c) else ""
    step = "check airflow or cold plate of this GPU, then run it again"
    expected = "the memory's limit" + (f", {float(limit_c):.0f} °C, is kept" if limit_c is not None else "")
    return sensor_finding("memory-heat", readings, outcome, observed, expected, step)
