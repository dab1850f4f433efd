"""A machine's sensors sampled for a few seconds by the real sampler, as a record that the rules read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from burnin.judging import judge_run
from burnin.node.order import Order, StageOrder, order_to_json
from probes.child import wait_until
from probes.event import SAMPLE, Event, event_from_line
from probes.finding import Finding
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import load_run
from tests.twins.machine import Machine

ORDER = Order(
    device="cpu",
    stages=(StageOrder(name="preflight", length_s=0), StageOrder(name="aftermath", length_s=0)),
    left_out=(),
    seed=1,
    stall_s=10,
)


@dataclass
class Sampled:
    """The sampler of one machine while it runs."""

    process: subprocess.Popen[str]
    folder: Path
    profile: str = "quick"
    lines: list[str] = field(default_factory=list)

    def ask(self, line: dict[str, str]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def events(self) -> list[Event]:
        """Return what it has said so far."""
        text = (self.folder / "said").read_text()
        return [event_from_line(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def has_said(self, kind: str, *, times: int = 1, **wanted: object) -> bool:
        found = [e for e in self.events() if e.kind == kind and wanted.items() <= e.data.items()]
        return len(found) >= times

    def finish(self, *, wait_s: float = 8.0) -> list[Finding]:
        """Take the last snapshot, end the sampler, and judge what it said; GPUs and kernel log alone."""
        gpus = next(e.data["gpus"] for e in self.events() if e.kind == "nvml.inventory")
        self.ask({"snapshot": "after"})
        wait_until(lambda: self.has_said("gpu.snapshot", when="after", times=len(gpus)), timeout_s=wait_s)
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=10)
        return self._judge()

    def _judge(self) -> list[Finding]:
        spec = {"profile": self.profile, "order": order_to_json(ORDER)}
        writer = create_run(self.folder / "runs", kind="burnin", spec=spec, seed=1)
        for event in self.events():
            if event.kind == SAMPLE:
                writer.sample(event.source, {"t_ns": event.t_ns, "host": event.host, **event.data})
            else:
                writer.append_event(event)
        writer.event("agent", "agent.finished")
        writer.close()
        findings = judge_run(load_run(writer.path))
        return [f for f in findings if f.subject.startswith("gpu:") or f.rule.startswith("kernel")]


@contextmanager
def begin(machine: Machine, *, root: Path | None = None, profile: str = "quick") -> Iterator[Sampled]:
    """Start the sampler of a machine, and see the first snapshot of each of its GPUs."""
    folder = Path(tempfile.mkdtemp(dir=machine.folder))
    environment = os.environ | machine.environment()
    if root is not None:
        environment["OVERPROOF_HOST_ROOT"] = str(root)
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "burnin.node.sampler"],
            stdin=subprocess.PIPE,
            stdout=said,
            env=environment,
            text=True,
        )
    sampled = Sampled(process=process, folder=folder, profile=profile)
    try:
        sampled.ask({})
        assert wait_until(
            lambda: sampled.has_said("gpu.snapshot", when="before", times=machine.gpus), timeout_s=20
        )
        yield sampled
    finally:
        process.kill()
        process.wait(timeout=10)
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()


def sample(machine: Machine, *, seconds: float = 2.5, root: Path | None = None) -> list[Finding]:
    """Sample a machine for so long and return the findings about its GPUs and its kernel log."""
    with begin(machine, root=root) as sampled:
        time.sleep(seconds)
        return sampled.finish()


def having(findings: Sequence[Finding], outcome: Outcome) -> dict[str, set[int]]:
    """Return the numbers of the GPUs by rule for which it came to this; a host stands as -1."""
    found: dict[str, set[int]] = {}
    for finding in findings:
        if finding.outcome is outcome:
            tail = finding.subject.rpartition("-")[2]
            found.setdefault(finding.rule, set()).add(int(tail) if tail.isdigit() else -1)
    return found
