"""One host's part in a trial of the network: it runs torchrun, between its ranks and the controller.

The first host names a free port; the controller tells all of them where to meet. torchrun then starts a rank
on each device and brings all hosts' ranks together. When the controller is gone or says nothing more,
everything here ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import queue
import signal
import socket
import struct
import threading
import time
from pathlib import Path

from burnin.node.crew import HEARTBEAT, HEARTBEAT_EVERY_S
from burnin.node.lifeline import ORDER_WITHIN_S, answer
from burnin.node.neighbours import in_rail_order
from burnin.node.ras import ask_ras
from burnin.node.speaker import Speaker
from burnin.node.trial_order import (
    GPUS_VARIABLE,
    LEADER_VARIABLE,
    RANKS_VARIABLE,
    TrialOrder,
    trial_order_from_json,
    trial_order_to_json,
)
from burnin.node.user_command import UserCommand
from probes.child import read_first_line, watch_lifeline
from probes.event import event_from_line
from probes.json_types import JsonObject
from probes.rdma import read_ports, select_adapters

MEET, RAS = "meet", "ras"  # what the controller says
COMPANY_WITHIN_S = 5.0  # for the processes of a stage before to let go of their GPUs
_SIOCGIFADDR = 0x8915
_RANK_MODULE = "burnin.node.trial_rank"


def main() -> None:
    """Take part in one trial, as the controller says, and leave with everything that was started."""
    line = read_first_line(within_s=ORDER_WITHIN_S)
    if not line:
        return
    order = trial_order_from_json(json.loads(line))
    speaker = Speaker("trial")
    commands = _listen(speaker, silence_s=order.silence_s)
    _beat(speaker)
    _hear_ranks(speaker, order)
    try:
        ready = _prepare(order)
    except Refused as error:
        speaker.say("trial.refused", reason=str(error))
        _leave(0)
    speaker.say("trial.ready", **ready)
    if order.index == 0:
        speaker.say("trial.port", port=_free_port())
    port = int(commands.get()[MEET])
    while "late" in order.faults:
        time.sleep(1)  # ended by the controller: that is what is being shown
    speaker.say("trial.ended", **_run_ranks(order, port, ready))
    _leave(0)


class Refused(Exception):
    """This host cannot do what the trial asks for; the text says why."""


def _listen(speaker: Speaker, *, silence_s: float) -> queue.SimpleQueue[JsonObject]:
    """Hear the controller's commands from now on; leave with all ranks where it is gone."""
    commands: queue.SimpleQueue[JsonObject] = queue.SimpleQueue()

    def hear(line: bytes) -> None:
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and MEET in said:
                commands.put(said)
            elif isinstance(said, dict) and RAS in said:
                # In a thread of its own: an answer that does not come must not look like a lost controller.
                threading.Thread(
                    target=lambda: speaker.say("trial.ras", **ask_ras()), name="ras", daemon=True
                ).start()
            else:
                answer(speaker, line)

    watch_lifeline(lambda: _leave(1), silence_s=silence_s, on_line=hear)
    return commands


def _leave(code: int) -> None:
    """End every rank, and ourselves without the clean-up of libraries."""
    for pid in _children():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    os._exit(code)


def _children() -> list[int]:
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in path.read_text().split()]
    return found


def _beat(speaker: Speaker) -> None:
    """Tell the controller every second that we are there."""

    def beat() -> None:
        while True:
            speaker.say(HEARTBEAT)
            time.sleep(HEARTBEAT_EVERY_S)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


def _hear_ranks(speaker: Speaker, order: TrialOrder) -> None:
    """Make our standard output a pipe, which the ranks inherit, and pass on what they say as events."""
    command = _user_command(order)
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.close(writing)

    def hear() -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # what a library prints is no event
                    if command is None:
                        speaker.pass_on(event_from_line(line))
                    elif told := command.read(line):
                        speaker.say("train.step", **told)

    threading.Thread(target=hear, name="from ranks", daemon=True).start()


def _user_command(order: TrialOrder) -> UserCommand | None:
    """Return how to read the user's own command; None: the ranks are ours."""
    training = order.training or {}
    return (
        UserCommand(training["step_regex"], training.get("loss_regex")) if training.get("command") else None
    )


def _prepare(order: TrialOrder) -> JsonObject:
    """Import what torchrun needs, choose the devices, and set what the path asks for.

    Raises:
        Refused: this host cannot run the trial.
    """
    try:
        import torch
        import torch.distributed.run as _  # noqa: F401  (seconds, before anybody waits for us)
    except ImportError as error:
        raise Refused(f"torch cannot be imported: {error}") from error
    is_cuda = order.device == "cuda" or (order.device == "auto" and torch.cuda.is_available())
    gpus = torch.cuda.device_count() if is_cuda else 0
    if is_cuda and not gpus:
        raise Refused(f"torch {torch.__version__} sees no GPU")
    if is_cuda:
        _refuse_company()
    ready: JsonObject = {
        "device": "cuda" if is_cuda else "cpu",
        "ranks": gpus if is_cuda else order.cpu_ranks,
        "gpus": list(range(gpus)),
        "torch": torch.__version__,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if is_cuda else None,  # type: ignore[no-untyped-call]
    }
    return ready | _take_path(order.path, gpus)


def _take_path(path: str, gpus: int) -> JsonObject:
    """Leave NCCL the one path that the trial is about.

    Raises:
        Refused: there is no such path here.
    """
    if path == "full":
        return {}
    if not gpus:
        raise Refused(f"path {path}: gloo on a CPU has neither NVLink nor rails")
    if path == "no-nvlink":
        os.environ["NCCL_MNNVL_ENABLE"] = "0"
        return {}
    rails = [int(rail) for rail in path.removeprefix("rail:").split(",")]
    active = [(str(port["adapter"]), int(port["port"])) for port in read_ports() if port["state"] == "ACTIVE"]
    adapters = in_rail_order(select_adapters(os.environ.get("NCCL_IB_HCA", ""), active))
    if max(rails) >= len(adapters):
        raise Refused(f"path {path}: only {len(adapters)} active adapters that NCCL would take")
    kept = ",".join(f"{name}:{port}" for name, port in (adapters[rail] for rail in rails))
    os.environ.update(NCCL_IB_HCA=f"={kept}", NCCL_CROSS_NIC="0")
    # One GPU for each adapter; which of them are near to each other NCCL works out, here they go by number.
    chosen = sorted({rail % gpus for rail in rails})
    return {"ranks": len(chosen), "gpus": chosen, "adapters": kept}


def _refuse_company() -> None:
    """See that nobody computes on the GPUs.

    Raises:
        Refused: somebody does, or it cannot be told.
    """
    from probes.nvml import SensorError, count_gpus, open_gpu, open_nvml, read_processes

    deadline = time.monotonic() + COMPANY_WITHIN_S
    try:
        open_nvml()
        while busy := [pid for index in range(count_gpus()) for pid in read_processes(open_gpu(index))]:
            if time.monotonic() >= deadline:
                raise Refused(f"GPUs are in use by pid {', '.join(map(str, busy[:8]))}")
            time.sleep(0.2)
    except SensorError as error:
        raise Refused(f"NVML does not tell who uses the GPUs: {error}") from error


def _free_port() -> int:
    with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def _run_ranks(order: TrialOrder, port: int, ready: JsonObject) -> JsonObject:
    """Run torchrun in this process until its ranks have ended; return how they did."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    own = _own_address(order.address, port)
    os.environ.update(
        {
            RANKS_VARIABLE: json.dumps(trial_order_to_json(order) | {"device": ready["device"]}),
            LEADER_VARIABLE: str(os.getpid()),
            GPUS_VARIABLE: ",".join(map(str, ready["gpus"])),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            # Without it, products on a GPU may add up in another order each time.
            "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        }
    )
    if ready["device"] == "cpu" and (interface := _interface_of(own)):
        os.environ["GLOO_SOCKET_IFNAME"] = interface
    try:
        words = _torchrun_words(order, port, own, int(ready["ranks"]))
        run(parse_args(words))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        failures = [
            {"rank": rank, "exit_code": failure.exitcode} for rank, failure in sorted(error.failures.items())
        ]
        return {"is_well": False, "failures": failures[:16]}
    except Exception as error:  # torchrun's rendezvous has errors of many kinds; each goes to the controller
        return {"is_well": False, "failures": [], "error": f"{type(error).__name__}: {str(error)[:400]}"}
    return {"is_well": True, "failures": []}


def _torchrun_words(order: TrialOrder, port: int, own: str, ranks: int) -> list[str]:
    archive = getattr(globals()["__loader__"], "archive", None)
    script = [str(archive), _RANK_MODULE] if archive is not None else ["--module", _RANK_MODULE]
    if order.training and order.training.get("command"):
        script = ["--no_python", *map(str, order.training["command"])]
    is_host, within_s = int(order.index == 0), math.ceil(order.meet_within_s)
    return [
        f"--nnodes={order.nodes}",
        f"--nproc_per_node={ranks}",
        "--max_restarts=0",
        "--rdzv_backend=c10d",
        f"--rdzv_id={order.trial}",
        f"--rdzv_endpoint={_bracketed(order.address)}:{port}",
        f"--rdzv_conf=is_host={is_host},join_timeout={within_s},read_timeout={within_s}",
        f"--local_addr={own}",
        f"--log_dir={os.devnull}",
        *script,
    ]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _own_address(address: str, port: int) -> str:
    """Return the address from which we reach the first host, which is how the others can reach us."""
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as line:
            line.connect(where)  # sends nothing: it only chooses the way
            return str(line.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _interface_of(address: str) -> str | None:
    """Return the interface that has an IPv4 address; None: no one has, or it is another kind of address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                request = struct.pack("256s", name.encode()[:15])
                answered = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, request)
                if socket.inet_ntoa(answered[20:24]) == address:
                    return name
    return "lo" if address.startswith("127.") else None


if __name__ == "__main__":
    main()
