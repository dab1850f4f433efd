"""Rules on PCIe ports, drives, memory modules and the controller's log."""

from __future__ import annotations

import pytest

from burnin.rules.host_parts import judge_acs, judge_bmc_log, judge_drives, judge_modules
from probes.bmc_log import parse_log
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.platform import BARE_METAL, VIRTUAL_MACHINE


def _port(name: str, *, above: str = "sw", gpus: int = 0, nics: int = 0, **said: object) -> JsonObject:
    cards = {"gpus": [f"{name}-g{n}" for n in range(gpus)], "nics": [f"{name}-n{n}" for n in range(nics)]}
    return {"address": name, "above": above, "is_root": False, "control": 0, "problem": "", **cards, **said}


def test_redirection_below_a_switch_shared_with_an_adapter_fails_on_bare_metal_only() -> None:
    ports = [_port("a", gpus=1, control=0x1D), _port("b", nics=1)]

    found = judge_acs("h", ports, {"a-g0": "DMA"}, BARE_METAL)

    assert (found.outcome, "ReqRedir" in found.observed, "1 × DMA" in found.observed) == (
        Outcome.FAIL,
        True,
        True,
    )
    assert judge_acs("h", ports, {}, VIRTUAL_MACHINE).outcome is None


@pytest.mark.parametrize(
    "ports",
    [
        [_port("a", gpus=1, control=0x1D)],  # alone below its switch: nobody to talk to
        [_port("a", nics=1, control=0x1D), _port("b", nics=1, control=0x1D)],  # no GPU
        [_port("a", gpus=1, control=0x1D, is_root=True), _port("b", nics=1, is_root=True)],
    ],
)
def test_redirection_that_costs_no_gpu_anything_is_not_judged(ports: list[JsonObject]) -> None:
    assert judge_acs("h", ports, {}, BARE_METAL).outcome is None


def test_source_validation_alone_passes_and_what_root_alone_may_read_is_said() -> None:
    hidden = [_port("a", gpus=2, control=None, problem="64 bytes are shown"), _port("b", gpus=1)]

    assert judge_acs("h", [_port("a", gpus=1, control=1), _port("b", gpus=1)], {}, BARE_METAL).outcome is (
        Outcome.PASS
    )
    found = judge_acs("h", hidden, {}, BARE_METAL)
    assert (found.outcome, "not readable" in found.observed) == (None, True)


SMART = {"critical_warning": 0, "media_errors": 7, "used_pct": 3}


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (SMART, Outcome.PASS),  # errors of its life before are no fault of this run
        (SMART | {"media_errors": 8}, Outcome.FAIL),
        (SMART | {"critical_warning": 1}, Outcome.FAIL),
        (SMART | {"used_pct": 120}, Outcome.PASS),
        ({"problem": "Input/output error"}, Outcome.FAIL),
        (None, Outcome.FAIL),
    ],
)
def test_a_drive_is_judged_by_its_warnings_and_by_new_errors(
    last: JsonObject | None, outcome: Outcome
) -> None:
    (found,) = judge_drives("h", {"nvme0": SMART}, {} if last is None else {"nvme0": last})

    assert found.outcome is outcome
    assert ("watch it" in found.observed) == (last is not None and last.get("used_pct") == 120)


def test_a_drive_that_root_alone_may_ask_is_not_judged() -> None:
    problem = {"nvme0": {"problem": "Permission denied"}}

    assert [f.outcome for f in judge_drives("h", problem, problem)] == [None]


def _modules(*pairs: tuple[int, int | None]) -> JsonObject:
    rows = [{"slot": f"A{n}", "size_mib": size, "speed_mts": speed} for n, (size, speed) in enumerate(pairs)]
    return {"source": "dmi", "modules": rows, "problem": "Permission denied"}


def test_a_module_of_another_speed_is_named_and_mixed_sizes_are_only_said() -> None:
    slow = judge_modules("h", _modules((32768, 4800), (32768, 4400)), {}, BARE_METAL)
    mixed = judge_modules("h", _modules((32768, 4800), (65536, 4800)), {}, BARE_METAL)

    assert (slow.outcome, slow.next_step) == (Outcome.FAIL, "replace what differs: A1")
    assert (mixed.outcome, "mixed" in mixed.observed) == (Outcome.PASS, True)


def test_a_processor_with_less_memory_is_found_without_root() -> None:
    nodes = {"node0": 512 * 2**30, "node1": 480 * 2**30}

    found = judge_modules("h", _modules(), nodes, BARE_METAL)

    assert (found.outcome, "node1 has 480 GiB" in found.observed) == (Outcome.FAIL, True)
    assert judge_modules("h", _modules(), nodes | {"node1": 505 * 2**30}, BARE_METAL).outcome is Outcome.PASS
    assert judge_modules("h", _modules(), nodes, VIRTUAL_MACHINE).outcome is None


OLD = "   1 | 01/02/2025 | 10:00:00 | Memory #0x53 | Uncorrectable ECC | Asserted\n"
PSU = "   2 | 01/02/2026 | 10:00:00 | Power Supply #0x51 | Failure detected | Asserted\n"
PSU_OVER = "   3 | 01/03/2026 | 10:00:00 | Power Supply #0x51 | Failure detected | Deasserted\n"
CORRECTED = "   4 | 11/21/2026 | 10:00:00 | Memory #0x53 | Correctable ECC | Asserted\n"
FATAL = "   5 | 11/21/2026 | 10:00:00 | Critical Interrupt #0x77 | Bus Fatal Error | Asserted\n"


@pytest.mark.parametrize(
    ("before", "added", "outcome"),
    [
        (OLD, "", Outcome.PASS),  # history
        (OLD, CORRECTED, Outcome.PASS),
        (OLD, FATAL, Outcome.FAIL),
        (OLD + PSU, "", Outcome.FAIL),  # holds still
        (OLD + PSU + PSU_OVER, "", Outcome.PASS),
    ],
)
def test_the_controllers_log_fails_a_host_for_what_is_new_or_holds(
    before: str, added: str, outcome: Outcome
) -> None:
    first, last = ({"entries": parse_log(text), "problem": ""} for text in (before, before + added))

    assert judge_bmc_log("h", first, last).outcome is outcome


def test_a_log_that_answered_and_then_no_longer_does_is_undecided() -> None:
    fine, silent = {"entries": [], "problem": ""}, {"entries": [], "problem": "timed out"}

    assert judge_bmc_log("h", fine, silent).outcome is judge_bmc_log("h", fine, None).outcome
    assert judge_bmc_log("h", fine, silent).outcome is Outcome.INCONCLUSIVE
    assert judge_bmc_log("h", silent, silent).outcome is judge_bmc_log("h", None, None).outcome is None
