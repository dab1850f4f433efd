"""Lays what the vendor's tools printed out for the rules, and says of each whether it answered at all."""

from __future__ import annotations

from statistics import median

from burnin.evidence import Evidence
from burnin.expectation import Expectation, expectation_for
from burnin.node.dcgm_ids import read_gpu_ids
from burnin.node.order import StageOrder
from burnin.node.tool_run import FINISHED, OUTPUT
from burnin.node.vendor_tools import COLLECTIVES, DIAGNOSTIC, DISCOVERY, STAGE, text_of
from burnin.override import OverrideSpec
from burnin.rules.dcgm_output import DcgmReport, read_dcgm_report
from burnin.rules.nccl_output import read_sweep
from burnin.rules.vendor_dcgm import judge_diagnostic
from burnin.rules.vendor_nccl import WAYS, compare_sizes, judge_busbw, judge_results, lacking_in, sweep_sizes
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

NO_GPU = "NVML lists no GPU"
AUTO = "auto"
_AGAIN = "run the tool by hand on this node, mend what it says, then run this again"


def judge_vendor_tools(evidence: Evidence, override: OverrideSpec) -> list[Finding]:
    """Judge all that the stage was to run; a tool that is not installed does not apply."""
    stage = evidence.order.stage(STAGE)
    if stage is None:
        return []
    host = evidence.run.header.host
    reason = evidence.impossible(STAGE)
    if reason is not None:
        outcome = None if reason == NO_GPU else Outcome.INCONCLUSIVE
        step = "" if outcome is None else "free the GPUs, then run it again"
        return [_tool(host, "all tools", outcome, f"not run: {reason}", step)]
    findings = _judge_dcgm(evidence, stage) if stage.options.get("dcgm_level") else []
    for tool in COLLECTIVES if stage.options.get("nccl_bytes_max") else ():
        findings += _judge_nccl(evidence, tool, override)
    return findings


def _tool(host: str, tool: str, outcome: Outcome | None, observed: str, next_step: str = "") -> Finding:
    return Finding(
        rule="vendor-tool",
        subject=f"host:{host}/{tool}",
        outcome=outcome,
        observed=observed,
        expected="where it is installed it answers in time, whole and in a form that is known",
        evidence={"stage": STAGE},
        next_step=next_step,
    )


def _printed(evidence: Evidence, tool: str) -> str:
    events = evidence.run.events_of(OUTPUT)
    return text_of([event for event in events if event.data.get("tool") == tool])


def _judge_answer(evidence: Evidence, tool: str, *, problem: str = "") -> Finding:
    """Say whether a tool answered; ``problem`` is what keeps its answer from being read."""
    host = evidence.run.header.host
    if evidence.told("tool.absent", tool=tool):
        return _tool(host, tool, None, "not installed: not on PATH")
    pointless = evidence.told("tool.pointless", tool=tool)
    if pointless:
        outcome = Outcome.INCONCLUSIVE if tool == DIAGNOSTIC else None
        return _tool(host, tool, outcome, str(pointless[0]["reason"]), _AGAIN if outcome else "")
    ended = evidence.told(FINISHED, tool=tool)
    if not ended:
        return _tool(host, tool, Outcome.INCONCLUSIVE, "it did not come to an end", _AGAIN)
    failure = _failure(ended[-1]) or problem
    code = f"exit code {ended[-1]['exit_code']}"
    if failure:
        said = str(ended[-1].get("complaints", "")).strip()
        observed = f"{failure}; {code}" + (f"; it complains: {said:.300}" if said else "")
        return _tool(host, tool, Outcome.INCONCLUSIVE, observed, _AGAIN)
    observed = f"answered within {float(ended[-1]['seconds']):.1f} s; {code}, which is no evidence"
    return _tool(host, tool, Outcome.PASS, observed)


def _failure(ended: JsonObject) -> str:
    if ended.get("failure"):
        return str(ended["failure"])
    if ended.get("is_late"):
        return f"no end within {float(ended['seconds']):.0f} s: it was ended"
    return "it printed too much" if ended.get("is_truncated") or ended.get("is_too_big") else ""


def _judge_dcgm(evidence: Evidence, stage: StageOrder) -> list[Finding]:
    found, report, problem = [], None, ""
    is_asked = bool(evidence.told(FINISHED, tool=DISCOVERY))
    uuids = read_gpu_ids(_printed(evidence, DISCOVERY))
    if is_asked:
        found.append(
            _judge_answer(evidence, DISCOVERY, problem="" if uuids else "it lists no GPU with a UUID")
        )
    try:
        report = read_dcgm_report(_printed(evidence, DIAGNOSTIC))
    except ValueError as error:
        problem = str(error)
    answer = _judge_answer(evidence, DIAGNOSTIC, problem=problem)
    found.append(answer)
    if report is not None and answer.outcome is not None:
        findings = judge_diagnostic(
            evidence.run.header.host,
            report,
            uuids=_agreed(uuids, report, evidence.gpus),
            gpus=_loaded_gpus(evidence),
            level=int(stage.options["dcgm_level"]),
        )
        found += findings
    return found


def _agreed(uuids: dict[int, str], report: DcgmReport, gpus: list[JsonObject]) -> dict[int, str]:
    """Return the UUIDs of DCGM's numbers, without those whose serial number says otherwise."""
    by_serial = {str(gpu["serial"]): str(gpu["uuid"]) for gpu in gpus if gpu.get("serial")}
    told = {number: by_serial[serial] for number, serial in report.serials.items() if serial in by_serial}
    return {n: u for n, u in (told | uuids).items() if told.get(n, u) == uuids.get(n, u)}


def _loaded_gpus(evidence: Evidence) -> list[str]:
    told = evidence.told("vendor.gpus")
    return [str(gpu) for gpu in told[0]["gpus"]] if told else []


def _judge_nccl(evidence: Evidence, tool: str, override: OverrideSpec) -> list[Finding]:
    host = evidence.run.header.host
    try:
        sweep = read_sweep(_printed(evidence, tool))
    except ValueError as error:
        return [_judge_answer(evidence, tool, problem=str(error))]
    gpus = _loaded_gpus(evidence)
    addresses = [str(gpu.get("pci_bus_id", "")) for gpu in evidence.gpus if gpu["uuid"] in gpus]
    lacking = lacking_in(sweep, sizes=_sizes(evidence, tool), addresses=addresses)
    found = [_judge_answer(evidence, tool), judge_results(host, tool, sweep, lacking=lacking)]
    if tool != COLLECTIVES[0]:
        return found
    expectation = _expectation(evidence, gpus, override)
    for way in WAYS:
        found.append(
            judge_busbw(
                host,
                sweep,
                way=way,
                gpus=len(gpus),
                floors=expectation.allreduce_floors if expectation else (),
                algorithm=evidence.told("vendor.gpus")[0].get("algorithm"),
                lacking=lacking,
            )
        )
    return found + compare_sizes(host, sweep, _own_busbw(evidence, len(gpus)))


def _sizes(evidence: Evidence, tool: str) -> list[int]:
    """Return the sizes that the command line asked for."""
    told = evidence.told("tool.started", tool=tool)
    command = [str(part) for part in told[-1]["command"]] if told else []
    asked = dict(zip(command[1::2], command[2::2], strict=False))
    return sweep_sizes(int(asked["-b"]), int(asked["-e"]), int(asked["-f"])) if asked else []


def _expectation(evidence: Evidence, gpus: list[str], override: OverrideSpec) -> Expectation | None:
    """Return what these GPUs should deliver together; None: several models, or an unknown one."""
    names = {str(gpu.get("name", "")) for gpu in evidence.gpus if gpu["uuid"] in gpus}
    return expectation_for(names.pop(), override.models) if len(names) == 1 else None


def _own_busbw(evidence: Evidence, gpus: int) -> dict[int, float]:
    """Return our own figure of each size, NCCL having had its choice, in the middle of all ranks."""
    found: dict[int, list[float]] = {}
    for told in evidence.told("allreduce.result", ranks=gpus):
        if str(told.get("algorithm") or AUTO) == AUTO and told.get("busbw_gbps"):
            found.setdefault(int(told["size_bytes"]), []).append(float(told["busbw_gbps"]))
    return {size: median(rates) for size, rates in found.items()}
