"""A load process that a master leads: joins, waits for the common start, reports, brings its rows."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loadtests.plan import (
    ARRIVALS_ENDED,
    JOIN_VARIABLE,
    NUMBER_VARIABLE,
    PLAN_VARIABLE,
    LoadPlan,
    plan_from_json,
)
from loadtests.processes import master as messages
from loadtests.processes.load_processes import PACKAGE_ROOT
from loadtests.processes.parts import KINDS, cut_part, part_path
from loadtests.spec.inputs import check_inputs
from loadtests.spec.workload import HeaderFromEnv
from probes.child import python_module
from probes.errors import ConfigError, RecordError, TargetError
from probes.event import Event
from probes.json_types import JsonObject
from reports.record import RunWriter, create_run, load_header

_ANSWER_S = 30.0
_CLOCK_READINGS = 8
_GREETING_S, _GREETINGS_MAX = 2.0, 15


class Wire(Protocol):
    """The line to the master."""

    def send(self, kind: str, data: JsonObject) -> None:
        """Send a message."""

    def wait(self, kind: str, timeout_s: float | None) -> JsonObject:
        """Return the next message of a kind; TargetError: none came in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """What the user of this machine allows a master elsewhere."""

    out: Path
    envs: tuple[str, ...] = ()  # variables whose values may be sent to the endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """This worker's part in the load."""

    plan: LoadPlan
    number: int
    writer: RunWriter
    is_elsewhere: bool  # its record has to be brought to the master's
    clock_ahead_ns: int = 0  # of this machine, against the master's
    clock_unsure_ns: int = 0


def join(wire: Wire, *, version: str) -> Place:
    """Ask the master for a share and get ready to write.

    Raises:
        TargetError: the master does not answer, or refuses.
        ConfigError: what the load needs is not on this machine.
    """
    number = os.environ.get(NUMBER_VARIABLE)
    hello: JsonObject = {
        "host": os.uname().nodename,
        "version": version,
        "number": None if number is None else int(number),
        "folder": "" if number is not None else str(_joining().out.resolve()),
    }
    answer = _greet(wire, hello)
    if "refused" in answer:
        raise TargetError(f"the master refuses this worker: {answer['refused']}")
    if number is not None:
        run = Path(os.environ[PLAN_VARIABLE]).parent
        plan = plan_from_json(answer["plan"], run=run)
        return Place(
            plan=plan, number=int(number), writer=RunWriter(run, load_header(run)), is_elsewhere=False
        )
    return _settle(wire, answer, _joining())


def _greet(wire: Wire, hello: JsonObject) -> JsonObject:
    """Say hello until the master answers: it may still be getting ready, and knows us if we say it twice."""
    for _ in range(_GREETINGS_MAX - 1):
        wire.send(messages.HELLO, hello)
        try:
            return wire.wait(messages.PLAN, _GREETING_S)
        except TargetError:
            continue
    wire.send(messages.HELLO, hello)
    return wire.wait(messages.PLAN, _GREETING_S)


def _joining() -> Joining:
    try:
        said = json.loads(os.environ[JOIN_VARIABLE])
        return Joining(out=Path(said["out"]), envs=tuple(said["envs"]))
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{JOIN_VARIABLE} is not set; start this with `overproof load worker --master HOST`"
        ) from error


def _settle(wire: Wire, answer: JsonObject, joining: Joining) -> Place:
    """Check a plan that came from elsewhere against this machine, and make a record of our own for it."""
    number = int(answer["number"])
    plan = plan_from_json(answer["plan"], run=joining.out)
    check_secrets(plan, joining)
    found = check_inputs(plan.workload, seed=plan.seed)
    if found != answer["inputs"]:
        raise ConfigError(
            f"the workload's files differ from the master's: here {found}, there {answer['inputs']}"
        )
    name = Path(str(answer["run"])).name
    writer = create_run(
        joining.out,
        kind="load",
        spec=plan.spec.model_dump(mode="json"),
        seed=plan.seed,
        is_child=True,
        path=joining.out / f"{name}-worker-{number}-{os.getpid()}",
    )
    plan = plan_from_json(answer["plan"], run=writer.path)
    ahead_ns, unsure_ns = read_clock(wire)
    return Place(
        plan=plan,
        number=number,
        writer=writer,
        is_elsewhere=True,
        clock_ahead_ns=ahead_ns,
        clock_unsure_ns=unsure_ns,
    )


def check_secrets(plan: LoadPlan, joining: Joining) -> None:
    """A master may name only those secrets of this machine that its user has named too.

    Raises:
        ConfigError: it names others; the message says how to allow them.
    """
    endpoints = [named.spec for named in plan.spec.named_endpoints]
    headers = [value for endpoint in endpoints for value in endpoint.headers.values()]
    named = [value.env for value in headers if isinstance(value, HeaderFromEnv)]
    named += [endpoint.api_key_env for endpoint in endpoints if endpoint.api_key_env is not None]
    missing = sorted(set(named) - set(joining.envs))
    if missing:
        flags = " ".join(f"--allow-env {name}" for name in missing)
        raise ConfigError(f"the workload wants {', '.join(missing)}; start this worker with {flags}")
    if any(endpoint.api_key_file is not None for endpoint in endpoints):
        raise ConfigError("endpoint.api_key_file is not read for a master elsewhere; use api_key_env")


def read_clock(wire: Wire, *, now_ns: Callable[[], int] = time.time_ns) -> tuple[int, int]:
    """Return by how many ns our clock is ahead of the master's, and how unsure that is: half a round trip."""
    readings = []
    for _ in range(_CLOCK_READINGS):
        sent_ns = now_ns()
        wire.send(messages.CLOCK, {"sent_ns": sent_ns})
        answer = wire.wait(messages.CLOCK, _ANSWER_S)
        took_ns = now_ns() - sent_ns
        readings.append((took_ns // 2, sent_ns + took_ns // 2 - int(answer["now_ns"])))
    unsure_ns, ahead_ns = min(readings)
    return ahead_ns, unsure_ns


def tell(wire: Wire, place: Place, event: Event) -> None:
    """Put an event on the master's timeline, by its clock; say at once when we send no more."""
    if place.is_elsewhere:
        t_ns = event.t_ns - place.clock_ahead_ns
        wire.send(messages.HAPPENED, {"t_ns": t_ns, "kind": event.kind, "data": event.data})
    if event.kind == ARRIVALS_ENDED and event.data["is_early"]:
        wire.send(messages.STOPPED, {})


def bring(wire: Wire, place: Place) -> None:
    """Send our rows to the master's record, by its clock.

    Raises:
        RecordError: they cannot be read here.
        TargetError: the master does not take them.
    """
    for kind in KINDS:
        path = part_path(place.writer.path, kind, place.number)
        if path.exists():
            for chunk in cut_part(path, kind):
                wire.send(messages.PART, chunk)
                wire.wait(messages.PART, _ANSWER_S)


def seal_for_master(place: Place) -> None:
    """Turn our rows into Parquet by the master's clock, in a process of its own: we go on answering.

    Raises:
        RecordError: the disk is full.
    """
    command = python_module(
        "loadtests.processes.sealing", str(place.writer.path), str(place.number), str(place.clock_ahead_ns)
    )
    done = subprocess.run(command, cwd=PACKAGE_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RecordError(done.stderr.strip() or f"sealing ended with exit {done.returncode}")
