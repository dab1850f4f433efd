"""The lab: a gateway and supervised replicas of the simulated endpoint, as processes on this machine.

``python -P -m experiments.lab.supervisor --folder DIR`` is the supervisor. It starts each replica as a child
with a lifeline, and starts a dead one again after a stated back-off, with a stated time to load its model,
unless told not to. With ``--lifeline`` it leaves with its parent; without, it stays until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from experiments.lab.autoscaler import FAULTS, Autoscaler, ScalePlan
from experiments.lab.control import (
    LOG_FILE,
    SOCKET_FILE,
    STATE_FILE,
    Process,
    process_to_json,
    read_lab,
    socket_path,
    this_process,
)
from experiments.lab.gateway import HOST, Gateway
from experiments.lab.gateway_trouble import trouble_from_json
from experiments.processes.detached import last_line, lock_folder, start_supervisor
from probes.child import (
    end_child,
    process_start_time,
    python_module,
    start_child,
    watch_lifeline,
)
from probes.errors import ConfigError, SuiteError, TargetError
from probes.json_types import JsonObject
from reports.record import write_atomically

BACKOFF_S = 1.0  # from a replica's death to its next start
LIVENESS_S = 5.0  # of failed health checks, until a replica counts as hung
LOAD_S = 3.0  # time that a restarted replica takes to load its model before it listens
ANNOUNCE_TIMEOUT_S = 30.0
LEAVE_TIMEOUT_S = 5.0
_POLL_S = 0.02
_SCALE_EVERY_S = 0.2
_DRAIN_S = 30.0  # that a released replica may take for the answers it has begun


@dataclass(frozen=True, slots=True, kw_only=True)
class LabPlan:
    """What a lab is to be."""

    folder: Path
    port: int = 0  # of the gateway; 0: any free one
    replicas: int = 3
    seed: int = 1
    is_restarting: bool = True
    backoff_s: float = BACKOFF_S
    load_s: float = LOAD_S
    liveness_s: float = LIVENESS_S  # a replica whose checks fail for so long is killed; 0: never
    step_work_ms: float = 0.0  # of its processor that a replica spends on each step
    replica_arguments: tuple[str, ...] = ()
    scale: ScalePlan | None = None  # None: as many replicas as there are, always

    @property
    def replicas_max(self) -> int:
        """How many replicas there may ever be."""
        return self.replicas if self.scale is None else self.scale.replicas_max


@dataclass(slots=True)
class SupervisedReplica:
    """One replica and what became of it so far."""

    name: str
    seed: int
    child: subprocess.Popen[str] | None = None
    process: Process | None = None  # None: there is none at the moment
    is_listening: bool = False  # this process has said on which port
    restarts: int = 0
    kills: int = 0  # by the liveness check
    spoiled_by: tuple[str, ...] = ()  # arguments that somebody added on purpose; its next start takes them
    runs_with: tuple[str, ...] = ()  # the added arguments of the process that runs now
    away_until: float = 0.0  # of the loop's clock: the machine under it is gone till then
    start_wanted: asyncio.Event = field(default_factory=asyncio.Event)
    is_wanted: bool = True  # by the autoscaler; one that is not is drained, ended, and left alone


class Supervisor:
    """Runs the gateway, the replicas and the control socket until it is told to leave."""

    def __init__(self, plan: LabPlan) -> None:
        self.plan = plan
        self.gateway = Gateway()
        self.replicas = [
            SupervisedReplica(f"replica-{i}", plan.seed * 1000 + i, is_wanted=i < plan.replicas)
            for i in range(plan.replicas_max)
        ]
        self.leaving = asyncio.Event()

    async def run(self) -> None:
        """Start everything, say so on standard output, and stay until asked to leave."""
        await self._listen()
        tasks = [asyncio.create_task(self.gateway.check_forever())]
        tasks += [asyncio.create_task(self._supervise(replica)) for replica in self.replicas]
        if self.plan.scale is not None:
            tasks.append(asyncio.create_task(self._scale_forever(self.plan.scale)))
        control = await asyncio.start_unix_server(self._answer, sock=self._control_socket())
        self._write_state()
        print(json.dumps({"pid": os.getpid(), "port": self.gateway.port}), flush=True)  # noqa: T201
        leaving = asyncio.create_task(self.leaving.wait())
        try:
            # A task that ends has failed: better no lab than one that is not looked after.
            await asyncio.wait([leaving, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            control.close()
            for task in [leaving, *tasks]:
                task.cancel()
            broken = await asyncio.gather(*tasks, return_exceptions=True)
            await self._end()
        for error in broken:
            if isinstance(error, Exception):
                raise error

    async def _listen(self) -> None:
        try:
            await self.gateway.start(self.plan.port)
        except OSError as error:
            raise ConfigError(
                f"lab: port {self.plan.port} of {HOST} cannot be used: {os.strerror(error.errno or 0)}; "
                "choose another with --port, or 0 for any free one"
            ) from error

    async def _end(self) -> None:
        children = [replica.child for replica in self.replicas if replica.child is not None]
        await asyncio.gather(*(asyncio.to_thread(end_child, child, grace_s=2.0) for child in children))
        await self.gateway.close()
        for name in (STATE_FILE, SOCKET_FILE):
            (self.plan.folder / name).unlink(missing_ok=True)

    async def _supervise(self, replica: SupervisedReplica) -> None:
        if replica.is_wanted:
            await self._start(replica, load_s=0.0)
        while True:
            while replica.child is not None and replica.child.poll() is None:
                self._check_liveness(replica)
                await asyncio.sleep(_POLL_S)
            self._forget(replica)
            if not replica.is_wanted:
                await self._wait_until_wanted(replica)
                continue
            if not self.plan.is_restarting:
                await replica.start_wanted.wait()
            else:
                away_s = replica.away_until - asyncio.get_running_loop().time()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(replica.start_wanted.wait(), max(self.plan.backoff_s, away_s))
            replica.restarts += 1
            await self._start(replica, load_s=self.plan.load_s)

    async def _wait_until_wanted(self, replica: SupervisedReplica) -> None:
        """Stay away until the autoscaler wants this replica, then load its model as any new one."""
        self.gateway.backends.pop(replica.name, None)
        await replica.start_wanted.wait()
        await self._start(replica, load_s=self.plan.load_s)

    async def _scale_forever(self, scale: ScalePlan) -> None:
        """Start and release replicas as the requests under way at the gateway have it."""
        autoscaler, loop = Autoscaler(scale), asyncio.get_running_loop()
        async with asyncio.TaskGroup() as releases:
            while True:
                await asyncio.sleep(_SCALE_EVERY_S)
                now = sum(replica.is_wanted for replica in self.replicas)
                in_flight = sum(backend.in_flight for backend in self.gateway.backends.values())
                wanted = autoscaler.want(now_s=loop.time(), in_flight=in_flight, wanted=now)
                for number, replica in enumerate(self.replicas):
                    if replica.is_wanted and number >= wanted:
                        replica.is_wanted = False
                        replica.start_wanted.clear()
                        releases.create_task(self._release(replica))
                    elif not replica.is_wanted and number < wanted:
                        replica.is_wanted = True
                        self._order_drain(replica, is_draining=False)
                        replica.start_wanted.set()

    async def _release(self, replica: SupervisedReplica) -> None:
        """Let a replica finish what it has begun, and end it; unless it is wanted again by then."""
        self._order_drain(replica, is_draining=True)
        child, deadline = replica.child, asyncio.get_running_loop().time() + _DRAIN_S
        while asyncio.get_running_loop().time() < deadline and not replica.is_wanted:
            backend = self.gateway.backends.get(replica.name)
            if backend is None or not backend.in_flight:
                break
            await asyncio.sleep(_POLL_S)
        if not replica.is_wanted and replica.child is child and replica.process is not None:
            replica.process.send(signal.SIGTERM)

    def _check_liveness(self, replica: SupervisedReplica) -> None:
        """Kill a replica that has failed its health checks for too long: it hangs."""
        backend = self.gateway.backends.get(replica.name)
        if not self.plan.is_restarting or not self.plan.liveness_s or not replica.is_listening:
            return
        if backend is None or backend.failing_since is None or replica.process is None:
            return
        if asyncio.get_running_loop().time() - backend.failing_since > self.plan.liveness_s:
            replica.kills += 1
            backend.failing_since = None
            sys.stderr.write(f"{replica.name}: killed, health checks failed {self.plan.liveness_s:g} s\n")
            replica.process.send(signal.SIGKILL)  # also ends one that is stopped

    def _forget(self, replica: SupervisedReplica) -> None:
        """Note a death. The gateway is not told: it has to find out by itself, as a real one has."""
        if replica.child is not None:
            end_child(replica.child, grace_s=0.1)  # and whatever it may have left in its group
            if replica.child.stdout is not None:
                replica.child.stdout.close()
        replica.child, replica.process, replica.is_listening = None, None, False
        self._write_state()

    async def _start(self, replica: SupervisedReplica, *, load_s: float) -> None:
        arguments = ["--port", "0", "--seed", str(replica.seed), "--name", replica.name, "--lifeline"]
        arguments += ["--step-work-ms", str(self.plan.step_work_ms)]
        replica.runs_with = replica.spoiled_by
        arguments += [*self.plan.replica_arguments, *replica.runs_with, "--start-delay-s", str(load_s)]
        replica.start_wanted.clear()
        replica.child = start_child(python_module("loadtests.endpoint", *arguments))
        pid = replica.child.pid
        replica.process = Process(pid=pid, start_time=process_start_time(pid))
        self._write_state()
        stdout = replica.child.stdout
        assert stdout is not None
        try:
            line = await asyncio.wait_for(asyncio.to_thread(stdout.readline), ANNOUNCE_TIMEOUT_S + load_s)
            self.gateway.register(replica.name, int(json.loads(line)["port"]))
            replica.is_listening = True
        except (TimeoutError, ValueError, KeyError, TypeError) as error:
            sys.stderr.write(f"{replica.name}: did not say on which port it listens: {error!r}\n")
            end_child(replica.child, grace_s=0.1)

    def _status(self) -> JsonObject:
        return {
            "supervisor": process_to_json(this_process()),
            "url": f"http://{HOST}:{self.gateway.port}",
            "is_restarting": self.plan.is_restarting,
            "backoff_s": self.plan.backoff_s,
            "load_s": self.plan.load_s,
            "liveness_s": self.plan.liveness_s,
            "step_work_ms": self.plan.step_work_ms,
            "trouble": trouble.to_json() if (trouble := self.gateway.current_trouble()) else None,
            "seed": self.plan.seed,
            "replicas": [self._describe(one) for one in self.replicas if one.is_wanted or one.process],
        }

    def _describe(self, replica: SupervisedReplica) -> JsonObject:
        backend = self.gateway.backends.get(replica.name)
        process = replica.process if replica.process is not None and replica.process.is_alive else None
        is_routed = backend is not None and backend.is_routed
        return {
            "name": replica.name,
            "pid": process.pid if process else None,
            "start_time": process.start_time if process else None,
            "port": backend.port if backend else None,
            "is_routed": is_routed,
            "is_serving": process is not None and replica.is_listening and is_routed,
            "is_draining": backend.is_draining if backend else False,
            "in_flight": backend.in_flight if backend else 0,
            "restarts": replica.restarts,
            "kills": replica.kills,
            "spoiled_by": list(replica.spoiled_by),
            "runs_with": list(replica.runs_with),
        }

    def _write_state(self) -> None:
        """Name our processes for ``lab down``. A full disk must not take the service down with it."""
        try:
            write_atomically(self.plan.folder / STATE_FILE, json.dumps(self._status(), indent=1) + "\n")
        except OSError as error:
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{STATE_FILE}: cannot be written: {error.strerror}\n")

    def _control_socket(self) -> socket.socket:
        (self.plan.folder / SOCKET_FILE).unlink(missing_ok=True)
        link = socket.socket(socket.AF_UNIX)
        with socket_path(self.plan.folder) as path:
            link.bind(path)
        (self.plan.folder / SOCKET_FILE).chmod(0o600)
        return link

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                request = json.loads(await reader.readline())
                writer.write(json.dumps(self._obey(request)).encode() + b"\n")
                await writer.drain()
        except (ValueError, OSError, TimeoutError):
            pass  # who asks nonsense, or leaves, gets no answer
        finally:
            writer.close()

    def _obey(self, request: JsonObject) -> JsonObject:
        orders = {
            "status": lambda: None,
            "start": lambda: self._order_start(self._named(request)),
            "spoil": lambda: self._order_spoil(self._named(request), request["arguments"]),
            "drain": lambda: self._order_drain(
                self._named(request), is_draining=bool(request["is_draining"])
            ),
            "away": lambda: self._order_away(self._named(request), float(request["for_s"])),
            "trouble": lambda: self._order_trouble(request.get("trouble")),
        }
        order = orders.get(str(request.get("do")))
        if order is None:
            return {"error": f"{request.get('do')!r} is unknown; one of {', '.join(orders)}"}
        try:
            order()
        except (KeyError, TypeError, ValueError) as error:
            return {"error": str(error)}
        return self._status()

    def _named(self, request: JsonObject) -> SupervisedReplica:
        for replica in self.replicas:
            if replica.name == request.get("replica"):
                return replica
        raise ValueError(f"there is no replica {request.get('replica')!r}")

    def _order_start(self, replica: SupervisedReplica) -> None:
        replica.away_until = 0.0
        if replica.process is None or not replica.process.is_alive:
            replica.start_wanted.set()

    def _order_spoil(self, replica: SupervisedReplica, arguments: object) -> None:
        """Give a replica other arguments from its next start on; none: its own again."""
        if not isinstance(arguments, list):
            raise TypeError(f"arguments: wanted a list, got {arguments!r}")
        replica.spoiled_by = tuple(str(argument) for argument in arguments)

    def _order_drain(self, replica: SupervisedReplica, *, is_draining: bool) -> None:
        backend = self.gateway.backends.get(replica.name)
        if backend is not None:
            backend.is_draining = is_draining

    def _order_away(self, replica: SupervisedReplica, for_s: float) -> None:
        """Take the machine away: what dies within this time is not started again before its end."""
        replica.away_until = asyncio.get_running_loop().time() + for_s

    def _order_trouble(self, row: JsonObject | None) -> None:
        self.gateway.set_trouble(None if row is None else trouble_from_json(row))


def lab_command(plan: LabPlan, *, lifeline: bool) -> list[str]:
    """Return the command that runs this lab."""
    arguments = ["--folder", str(plan.folder), "--port", str(plan.port), "--replicas", str(plan.replicas)]
    arguments += ["--seed", str(plan.seed), "--backoff-s", str(plan.backoff_s), "--load-s", str(plan.load_s)]
    arguments += ["--liveness-s", str(plan.liveness_s), "--step-work-ms", str(plan.step_work_ms)]
    if plan.scale is not None:
        arguments += ["--replicas-max", str(plan.scale.replicas_max), "--scale-up-s", str(plan.scale.up_s)]
        arguments += ["--scale-down-s", str(plan.scale.down_s), "--scale-fault", plan.scale.fault]
        arguments += ["--in-flight-target", str(plan.scale.in_flight_target)]
    arguments += [] if plan.is_restarting else ["--no-restart"]
    arguments += ["--lifeline"] if lifeline else []
    arguments += [f"--replica-argument={argument}" for argument in plan.replica_arguments]
    return python_module("experiments.lab.supervisor", *arguments)


def start_detached(plan: LabPlan, *, timeout_s: float) -> None:
    """Start a lab that outlives us, and wait until every replica serves.

    Raises:
        ConfigError: its port or folder cannot be used.
        TargetError: it did not come up in time; it is stopped again.
    """

    def is_up(pid: int) -> bool:
        return all_serve(plan.folder) and read_lab(plan.folder).supervisor.pid == pid

    start_supervisor(
        lab_command(plan, lifeline=False),
        subject=f"lab {plan.folder}",
        log_path=log_file(plan.folder),
        is_up=is_up,
        timeout_s=timeout_s,
    )


def all_serve(folder: Path) -> bool:
    """Say whether a lab runs in this folder and every replica of it serves."""
    try:
        lab = read_lab(folder)
    except TargetError:
        return False
    return len(lab.serving) == len(lab.replicas)


def last_words(folder: Path) -> str:
    """Return the last line of the lab's log; empty where there is none."""
    return last_line(log_file(folder))


def log_file(folder: Path) -> Path:
    """Return where the lab's processes write what they have to say."""
    return folder / LOG_FILE


def main() -> int:
    """Run a lab."""
    parser = argparse.ArgumentParser(prog="experiments.lab.supervisor", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-restart", action="store_true")
    parser.add_argument("--backoff-s", type=float, default=BACKOFF_S)
    parser.add_argument("--load-s", type=float, default=LOAD_S)
    parser.add_argument("--liveness-s", type=float, default=LIVENESS_S)
    parser.add_argument("--step-work-ms", type=float, default=0.0)
    parser.add_argument("--replicas-max", type=int, default=0)
    parser.add_argument("--in-flight-target", type=int, default=6)
    parser.add_argument("--scale-up-s", type=float, default=2.0)
    parser.add_argument("--scale-down-s", type=float, default=10.0)
    parser.add_argument("--scale-fault", choices=["", *FAULTS], default="")
    parser.add_argument("--replica-argument", action="append", default=[])
    parser.add_argument("--lifeline", action="store_true")
    given = parser.parse_args()
    plan = LabPlan(
        folder=given.folder.resolve(),
        port=given.port,
        replicas=given.replicas,
        seed=given.seed,
        is_restarting=not given.no_restart,
        backoff_s=given.backoff_s,
        load_s=given.load_s,
        liveness_s=given.liveness_s,
        step_work_ms=given.step_work_ms,
        replica_arguments=tuple(given.replica_argument),
        scale=_scale_plan(given),
    )
    try:
        lock_folder(plan.folder, subject=f"lab {plan.folder}", down="overproof lab down")
        asyncio.run(_run(plan, lifeline=given.lifeline))
    except SuiteError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _scale_plan(given: argparse.Namespace) -> ScalePlan | None:
    if not given.replicas_max:
        return None
    return ScalePlan(
        replicas_min=given.replicas,
        replicas_max=given.replicas_max,
        in_flight_target=given.in_flight_target,
        up_s=given.scale_up_s,
        down_s=given.scale_down_s,
        fault=given.scale_fault,
    )


async def _run(plan: LabPlan, *, lifeline: bool) -> None:
    supervisor = Supervisor(plan)
    loop = asyncio.get_running_loop()

    def leave() -> None:
        # Whatever holds up an orderly end, the process goes; its replicas follow by their own lifelines.
        timer = threading.Timer(LEAVE_TIMEOUT_S, os._exit, [1])
        timer.daemon = True
        timer.start()
        supervisor.leaving.set()

    def parent_gone() -> None:
        loop.call_soon_threadsafe(leave)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, leave)
    if lifeline:
        watch_lifeline(parent_gone)
    await supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
