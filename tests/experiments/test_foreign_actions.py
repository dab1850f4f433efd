"""Experiments whose actions are not ours: run unchanged, and judged by what is declared of them.

The fault is a real one: a process action stops the very process that serves the endpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from experiments.declared.judging import judge_ended
from experiments.experiment import load_experiment
from experiments.injecting.injection import undo_pending
from experiments.injecting.ledger import UNDO_FAILED, UNDONE, Entry, read_ledger
from experiments.injecting.permission import allow
from experiments.judging import judge_undo
from probes.child import end_child, process_state, python_module, start_child, wait_until
from probes.errors import ConfigError
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import read_ndjson
from tests.experiments.rows import fault
from tests.experiments.test_gameday import BY_A_BUSY_MACHINE, GONE_TIMEOUT_S, end_of, run_of, until
from tests.processes import Job, processes_with, start_job

pytestmark = pytest.mark.timeout(900)  # days of half a minute, on a machine that others keep busy

TARGET = "staging"
BY_API = "stop it by the API"


@contextlib.contextmanager
def endpoint() -> Iterator[tuple[str, int]]:
    """A service of somebody else's: address and pid."""
    child = start_child(python_module("loadtests.endpoint", "--lifeline"), stderr=subprocess.DEVNULL)
    try:
        assert child.stdout is not None
        yield f"http://127.0.0.1:{json.loads(child.stdout.readline())['port']}", child.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGCONT)
        end_child(child)
        if child.stdout is not None:
            child.stdout.close()


def process(kind: str, name: str, path: str, arguments: list[str], **more: object) -> JsonObject:
    provider = {"type": "process", "path": path, "arguments": arguments, "timeout": 10}
    return {"type": kind, "name": name, "provider": provider} | more


def write_day(folder: Path, url: str, pid: int, *, stopped_s: float = 2.0) -> JsonObject:
    """An experiment of somebody else's, which gained our verdict by its extension."""
    workload = {
        "name": "steady",
        "endpoint": {"url": url, "timeout_s": 5},
        "arrivals": {"kind": "constant", "rate_per_s": 15},
        "duration_s": 60,
        "prompt": {
            "input_tokens": {"kind": "constant", "value": 32},
            "output_tokens": {"kind": "constant", "value": 8},
        },
        "slos": [{"metric": "ttft_ms", "statistic": "p80", "bound": 1000}],
    }
    (folder / "workload.yaml").write_text(yaml.safe_dump(workload))
    slo = {"metric": "ttft_ms", "statistic": "p80", "bound": 1000}
    stopped = ["-q", "^State:.T", f"/proc/{pid}/status"]
    return {
        "title": "The service outlives a stop of its process",
        "description": "Somebody else's experiment.",
        "method": [
            process("action", "stop it", "kill", ["-STOP", str(pid)], pauses={"after": stopped_s}),
            process("probe", "it is stopped", "grep", stopped, tolerance=0),
        ],
        "rollbacks": [process("action", "go on", "kill", ["-CONT", str(pid)])],
        "extensions": [
            {
                "name": "overproof",
                "target": {"name": TARGET},
                "workload": "workload.yaml",
                "steady_s": 3,
                "recovery_s": 12,
                "after_s": 4,
                "requests_min": 20,
                "slos": {
                    "before": [slo],
                    "during": [{"metric": "goodput", "objective": 0.1}],
                    "after": [slo],
                },
                "faults": [
                    {
                        "action": "stop it",
                        "subject": "process:endpoint",
                        "verify": "it is stopped",
                        "undo": "go on",
                        "within_s": 3,
                    }
                ],
            }
        ],
    }


@contextlib.contextmanager
def site(folder: Path, pid: int) -> Iterator[str]:
    """Somebody's platform: its API stops the process, and it heals that once the day has seen it."""

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            os.kill(pid, signal.SIGSTOP)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    leaving = threading.Event()

    def heal() -> None:
        while not leaving.wait(0.2):
            run = run_of(folder)
            seen = run.events_of("fault.verified") if run is not None else []
            if any(event.data["action"] == BY_API for event in seen):
                os.kill(pid, signal.SIGCONT)
                return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threads = [threading.Thread(target=work) for work in (server.serve_forever, heal)]
    for thread in threads:
        thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/stop"
    finally:
        leaving.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join(10)


def with_a_second_fault(document: JsonObject, url: str) -> JsonObject:
    """After the first, one by HTTP, which the platform ends; and an action that breaks nothing."""
    provider = {"type": "http", "url": url, "method": "POST", "timeout": 5}
    (extension,) = document["extensions"]
    seen = {k: v for k, v in document["method"][1].items() if k not in ("name", "type")}
    document["method"] += [
        document["rollbacks"][0],
        process("action", "tell somebody", "true", []),
        {"type": "action", "name": BY_API, "provider": provider},
    ]
    extension["harmless"] = ["tell somebody"]
    extension["faults"].append(
        {
            "action": BY_API,
            "subject": "process:endpoint",
            "verify": seen,
            "ends_by": "platform",
            "within_s": 5,
        }
    )
    return document


def start_day(folder: Path, document: JsonObject, *arguments: str, allowed: bool = True) -> Job:
    (folder / "experiment.yaml").write_text(yaml.safe_dump(document))
    if allowed:
        place = folder / "runs/targets" / TARGET
        place.mkdir(parents=True)
        allow(place)
    return start_job(["gameday", "run", "experiment.yaml", *arguments], folder)


def test_declared_faults_by_a_process_and_by_http_that_are_seen_and_gone_pass(tmp_path: Path) -> None:
    """One is ended by its undo, the other by the platform, without our help."""
    for attempt in range(3):  # a client that other programs kept from sending in time is rightly undecided
        folder = tmp_path / str(attempt)
        folder.mkdir()
        with endpoint() as (url, pid), site(folder, pid) as api:
            document = with_a_second_fault(write_day(folder, url, pid, stopped_s=1.5), api)
            day = end_of(start_day(folder, document), folder)
        if not day.spoiled() or not day.spoiled() <= BY_A_BUSY_MACHINE:
            break
    undone, healed = read_ledger(day.run.path)
    faults = [finding for finding in day.run.findings if finding.rule == "fault"]

    assert (day.status, day.run.outcome, day.spoiled()) == (0, Outcome.PASS, set()), day.log
    assert "'it is stopped' said" in faults[0].observed
    assert f"'see {BY_API}' said" in faults[1].observed
    assert (undone.state, undone.detail["by"], undone.detail["is_seen"]) == (UNDONE, "rollback", True)
    assert (healed.state, healed.detail["has_acted"], healed.detail["is_seen"]) == (UNDONE, False, True)
    assert healed.detail["did"].startswith("nothing to do")
    assert day.finding("redundancy").outcome is Outcome.PASS
    assert day.finding("target").observed == "named, and marked as allowed"
    written = yaml.safe_load((folder / "experiment.yaml").read_text())
    journal = json.loads((day.run.path / "journal.json").read_text())
    assert [run["activity"]["provider"] for run in journal["run"]] == [
        activity["provider"] for activity in written["method"]
    ]


def carry_out(folder: Path, **paths: str) -> list[str]:
    """Have Chaos Toolkit's child alone carry out the day with other programs; return the timeline's kinds."""
    with endpoint() as (url, pid):
        document = write_day(folder, url, pid, stopped_s=0)
        document["extensions"][0]["faults"][0]["within_s"] = 1
        for part, path in paths.items():
            document[part][0]["provider"] |= {"path": path, "arguments": []}
        (folder / "experiment.yaml").write_text(yaml.safe_dump(document))
        arguments = ["--experiment", str(folder / "experiment.yaml"), "--run", str(folder)]
        with (folder / "chaos.log").open("w") as log:
            child = start_child(python_module("experiments.chaos.child", *arguments), stdout=log, stderr=log)
        child.wait(timeout=60)
        end_child(child)
    return [str(row["kind"]) for row in read_ndjson(folder / "events.ndjson")]


def test_a_fault_that_did_not_take_hold_is_not_verified(tmp_path: Path) -> None:
    kinds = carry_out(tmp_path, method="true")

    assert "fault.injected" in kinds
    assert ("fault.verified" in kinds, "fault.not_verified" in kinds) == (False, True)


def test_a_rollback_that_does_not_undo_leaves_the_fault_pending_however_it_exits(tmp_path: Path) -> None:
    kinds = carry_out(tmp_path, rollbacks="true")
    (left,) = undo_pending(tmp_path, by="test")  # the declared activity is as useless a second time
    (entry,) = read_ledger(tmp_path)

    assert "fault.verified" in kinds
    assert "undo.verified" not in kinds
    assert (left.is_restored, entry.state) == (True, UNDONE)  # its process has gone with the endpoint
    assert judge_undo([replace(entry, state=UNDO_FAILED)]).outcome is Outcome.FAIL


def test_an_action_without_a_ledger_is_not_carried_out(tmp_path: Path) -> None:
    (tmp_path / "undo.ndjson").mkdir()

    kinds = carry_out(tmp_path)

    assert "chaos.activity.refused" in kinds
    assert "fault.injected" not in kinds
    assert json.loads((tmp_path / "journal.json").read_text())["status"] == "interrupted"


def test_an_experiment_without_an_extension_runs_and_says_what_is_missing(tmp_path: Path) -> None:
    with endpoint() as (url, pid):
        document = write_day(tmp_path, url, pid)
        del document["extensions"]
        day = end_of(start_day(tmp_path, document, "--workload", "workload.yaml"), tmp_path)

    assert (day.status, day.run.outcome) == (3, Outcome.INCONCLUSIVE), day.log
    assert day.finding("target").observed == "the experiment names no target"
    assert "declares no verification" in day.finding("fault").observed
    assert json.loads((day.run.path / "journal.json").read_text())["status"] == "completed"


def test_kill_9_leaves_the_fault_for_gameday_undo_which_runs_the_declared_rollback(tmp_path: Path) -> None:
    with endpoint() as (url, pid):
        job = start_day(tmp_path, write_day(tmp_path, url, pid, stopped_s=60))
        until(job, tmp_path, "fault.verified")
        chaos = [p for p, words in processes_with(f"OVERPROOF_TEST_JOB={job.mark}") if "chaos.child" in words]
        job.signal(signal.SIGSTOP)  # or it may see the other's end first, and undo
        os.kill(chaos[0], signal.SIGKILL)
        job.signal(signal.SIGKILL)
        job.wait(timeout_s=5)
        is_gone = wait_until(lambda: not job.descendants(), timeout_s=GONE_TIMEOUT_S)
        broken = process_state(pid)
        doctor, undo = (start_job(["gameday", word], tmp_path) for word in ("doctor", "undo"))
        statuses = doctor.wait(timeout_s=30), undo.wait(timeout_s=60)
        mended = process_state(pid)
        run = run_of(tmp_path)

    assert is_gone, job.descendants()
    assert (broken, mended != "T") == ("T", True)
    assert statuses[1] == 0, undo.text()
    assert run is not None
    assert [entry.state for entry in read_ledger(run.path)] == [UNDONE]
    assert run.outcome is not Outcome.PASS


def test_a_target_that_nobody_has_marked_is_refused_and_the_plan_says_so(tmp_path: Path) -> None:
    with endpoint() as (url, pid):
        document = write_day(tmp_path, url, pid)
        run = start_day(tmp_path, document, allowed=False)
        statuses = [run.wait(timeout_s=60)]
        plan = start_job(["gameday", "plan", "experiment.yaml"], tmp_path)
        statuses.append(plan.wait(timeout_s=60))
        state = process_state(pid)

    assert statuses == [2, 3], plan.text()
    assert "it chooses its victims itself: they are unknown" in plan.text()
    assert state != "T"


def test_what_an_extension_declares_has_to_be_there(tmp_path: Path) -> None:
    def load(**changes: object) -> None:
        document = write_day(tmp_path, "http://127.0.0.1:1", 1)
        document["extensions"][0]["faults"][0] |= changes
        (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(document))
        load_experiment(tmp_path / "experiment.yaml")

    with pytest.raises(ConfigError, match="'stop that' is no action of the method other than ours"):
        load(action="stop that")
    with pytest.raises(ConfigError, match="undo: 'go' is none of the rollbacks: 'go on'"):
        load(undo="go")
    with pytest.raises(ConfigError, match="verify: 'is it' is no probe of this experiment"):
        load(verify="is it")
    with pytest.raises(ConfigError, match="undo is missing"):
        load(undo=None)
    with pytest.raises(ConfigError, match="a tolerance"):
        load(verify={"provider": {"type": "process", "path": "true"}})
    load(verify={"provider": {"type": "process", "path": "true"}, "tolerance": 0})


def test_a_fault_that_its_platform_was_to_end_and_our_undo_has_ended_fails(tmp_path: Path) -> None:
    seen = fault(ends_by="platform")
    named = {"id": str(seen.data["id"]), "fault": "declared", "subject": "process:endpoint"}
    entry = Entry(captured={}, state=UNDONE, detail={"did": "'go on' said …", "has_acted": True}, **named)
    healed = replace(entry, detail=entry.detail | {"has_acted": False})

    def outcome(entries: list[Entry]) -> Outcome | None:
        return judge_ended([seen], entries, subject="target:x", evidence={}).outcome

    assert outcome([entry]) is Outcome.FAIL
    assert outcome([healed]) is Outcome.PASS
    assert outcome([replace(healed, state=UNDO_FAILED)]) is Outcome.INCONCLUSIVE
    assert outcome([]) is Outcome.INCONCLUSIVE
