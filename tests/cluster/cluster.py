"""Start a cluster and remove it again, whatever became of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from probes.child import wait_until
from tests.cluster.control_plane import BRIDGE, UPLINK, write_control_plane
from tests.cluster.host import control_group_folders, hierarchies
from tests.cluster.images import write_images
from tests.cluster.node import SOCKET
from tests.cluster.pki import write_pki
from tests.cluster.plan import CONTROL_PLANE, MARK, Clocks, Plan
from tests.cluster.programs import check_programs, find_programs
from tests.cluster.readiness import nodes_ready, publish_clocks
from tests.cluster.running import Hosts, processes_of, read_plan, run_quietly, write_plan

_NETWORKS = range(100, 250)
_INOTIFY_CONTROL_PLANE, _INOTIFY_NODE = 8, 8


class ClusterError(Exception):
    """The cluster could not be started or removed."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others from starting or removing the same cluster meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def check_machine() -> None:
    """See that this machine can hold a cluster, whether its programs are built or not.

    Raises:
        ClusterError: we are not root.
        ProgramsMissingError: a Debian package, or the compiler for what is to be built, is missing.
        NoControlGroupsError: the machine's control groups are of the other version.
    """
    if os.geteuid() != 0:
        raise ClusterError("the cluster's hosts are namespaces: root is needed")
    hierarchies()
    check_programs()


def start_cluster(
    folder: Path, *, node_count: int = 3, clocks: Clocks | None = None, timeout_s: float = 180
) -> Plan:
    """Start a cluster and wait until every node is ready; one that runs already is left as it is.

    Raises:
        ClusterError: something did not come up in time; what there is of it is left to look at.
        ProgramsMissingError: a program is missing and could not be built.
        NoControlGroupsError: the machine's control groups are of the other version.
    """
    check_machine()
    programs = find_programs()
    with locked(folder):
        plan = read_plan(folder)
        if plan is not None and _is_up(plan):
            return plan
        _remove(folder)
        _check_inotify(node_count)
        with _free_network() as network:
            plan = Plan(folder=folder, network=network, node_count=node_count, clocks=clocks or Clocks())
            _start(plan, programs, deadline=time.monotonic() + timeout_s)
        return plan


def _check_inotify(node_count: int) -> None:
    """See that the machine has inotify instances left: without, a kubelet waits for ever and says nothing."""
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    used = sum(map(_is_inotify, Path("/proc").glob("[0-9]*/fd/*")))
    wanted = _INOTIFY_CONTROL_PLANE + node_count * _INOTIFY_NODE
    if limit - used < wanted:
        raise ClusterError(
            f"{used} of {limit} inotify instances are taken (fs.inotify.max_user_instances) and this cluster "
            f"needs {wanted}: remove another one first"
        )


def _is_inotify(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()) == "anon_inode:inotify"
    except OSError:
        return False  # it is closed meanwhile


def remove_cluster(folder: Path) -> None:
    """End every process of the cluster and remove all that is left of it; nothing to do is fine.

    Raises:
        ClusterError: something could not be removed.
    """
    with locked(folder):
        _remove(folder)


def leftovers(folder: Path) -> list[str]:
    """Return what there is of a cluster on this machine: processes, links, control groups, files."""
    found = [f"process {pid}: {command[:120]}" for pid, command in processes_of(folder)]
    plan = read_plan(folder)
    if plan is not None:
        found += [str(path) for path in control_group_folders(plan.control_groups) if path.exists()]
        if Path("/sys/class/net", plan.link).exists():
            found.append(f"link {plan.link}")
    return [*found, *([str(folder)] if folder.exists() else [])]


def _is_up(plan: Plan) -> bool:
    return Hosts(plan=plan).is_running(CONTROL_PLANE) and nodes_ready(plan) == plan.node_count


@contextlib.contextmanager
def _free_network() -> Iterator[int]:
    """Yield a network that this machine has no address or route in, and that nobody else takes meanwhile."""
    for number in random.sample(_NETWORKS, len(_NETWORKS)):
        with socket.socket(socket.AF_UNIX) as claim:
            try:
                claim.bind(f"\0overproof-cluster-{number}")  # goes with this process, whatever becomes of it
            except OSError:
                continue
            if not _has_routes(number):
                yield number
                return
    raise ClusterError("no network is free on this machine")


def _has_routes(network: int) -> bool:
    shown = subprocess.run(
        ["ip", "route", "show", "table", "all"], capture_output=True, text=True, check=True
    )
    return f" 10.{network}." in f" {shown.stdout}"


def _start(plan: Plan, programs: dict[str, Path], *, deadline: float) -> None:
    write_plan(plan)
    write_pki(plan)
    script = write_control_plane(plan, programs)
    _spawn(plan, script)
    is_given_up = threading.Event()
    with ThreadPoolExecutor(plan.node_count + 1) as pool:
        try:
            images = pool.submit(write_images, programs)
            _connect(plan, deadline)
            archives = images.result()
            imports = [
                pool.submit(_import_images, plan, node.name, archives, deadline, is_given_up)
                for node in plan.nodes
            ]
            for each in imports:
                each.result()
        finally:
            is_given_up.set()
    _await(lambda: nodes_ready(plan) == plan.node_count, deadline, "not every node is ready")
    publish_clocks(plan)
    # A kube-proxy on a host that is no node waits for one for half a minute before it routes anything.
    if plan.nodes:
        _await(lambda: _is_routed(plan), deadline, "services cannot be reached from this machine")


def _is_routed(plan: Plan) -> bool:
    try:
        socket.create_connection((plan.api_service_address, 443), timeout=1).close()
    except OSError:
        return False
    return True


def _spawn(plan: Plan, script: Path) -> None:
    marks = {name: value for name, value in os.environ.items() if name.startswith("OVERPROOF_TEST_")}
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    with (plan.folder / "start.log").open("wb") as log:
        subprocess.run(
            ["setsid", "--fork", "sh", str(script)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": path, "HOME": "/root", **marks, MARK: str(plan.folder)},
            cwd="/",
            check=True,
        )


def _connect(plan: Plan, deadline: float) -> None:
    """Lay a wire from this machine to the network of the nodes; it goes away with the cluster's end of it."""
    hosts = Hosts(plan=plan)
    _await(lambda: hosts.is_running(CONTROL_PLANE), deadline, (plan.folder / "start.log").read_text())
    pid = str(hosts.pid(CONTROL_PLANE))
    _ip("link", "add", plan.link, "type", "veth", "peer", "name", UPLINK, "netns", pid)
    hosts.ask(CONTROL_PLANE, "ip", "link", "set", UPLINK, "master", BRIDGE, "up")
    _ip("addr", "add", f"{plan.machine_address}/24", "dev", plan.link)
    _ip("link", "set", plan.link, "up")
    _ip("route", "add", plan.services, "via", plan.address)
    for node in plan.nodes:
        _ip("route", "add", node.pods, "via", node.address)


def _import_images(
    plan: Plan, node: str, archives: list[Path], deadline: float, is_given_up: threading.Event
) -> None:
    hosts = Hosts(plan=plan)
    client = ["ctr", "--address", SOCKET, "--namespace", "k8s.io"]
    ask = [*client, "version"]
    _await(lambda: is_given_up.is_set() or _answers(hosts, node, ask), deadline, f"{node}: no containerd")
    for archive in archives:
        if not is_given_up.is_set():
            hosts.ask(node, *client, "images", "import", str(archive), timeout_s=120)


def _answers(hosts: Hosts, node: str, command: list[str]) -> bool:
    try:
        hosts.ask(node, *command)
    except (OSError, RuntimeError):
        return False
    return True


def _remove(folder: Path) -> None:
    plan = read_plan(folder)
    ended = wait_until(lambda: not _kill(folder), timeout_s=30)
    if plan is not None:
        run_quietly(["ip", "link", "del", plan.link])
        ended = wait_until(lambda: _remove_control_groups(plan), timeout_s=30) and ended
    if not ended:
        raise ClusterError(f"could not be removed: {leftovers(folder)}")
    if folder.exists():
        shutil.rmtree(folder)


def _kill(folder: Path) -> list[tuple[int, str]]:
    """Kill what is there of it and return it; the containers end with the namespaces of their node."""
    found = processes_of(folder)
    for pid, _ in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def _remove_control_groups(plan: Plan) -> bool:
    for top in control_group_folders(plan.control_groups):
        for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):  # not empty yet: asked again
                folder.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()
    return not any(path.exists() for path in control_group_folders(plan.control_groups))


def _await(condition: Callable[[], bool], deadline: float, message: str) -> None:
    if not wait_until(condition, timeout_s=max(0.0, deadline - time.monotonic())):
        raise ClusterError(message)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def say(text: str) -> None:
    """Tell the person at the terminal."""
    sys.stderr.write(f"{text}\n")
