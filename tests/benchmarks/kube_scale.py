"""A rack of a thousand nodes drained: kwok's nodes with eight GPUs each, 5,000 pods, a real control plane.

What is measured is us: the time that plan, drain and undo take, what they ask of the API, and their memory;
and the watch that a game day keeps, at rest and while the rack is drained. ``kubectl drain`` of another rack
of the same size stands beside it. Pods of kwok end a second after they are asked to, so how long a drain
takes says nothing about anybody's grace periods. Needs root, and the programs of ``make cluster-programs``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.faults.fault import load_fault
from experiments.injecting.bounds import planning
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.kube import actions
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.choosing.allowed import pods_on
from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from experiments.kube.faults import await_back
from experiments.kube.pods.evict import evict
from experiments.kube.watching.sampler import KubeSampler, workloads_under
from experiments.kube.watching.samples import KUBE_SERIES
from probes.json_types import JsonObject
from reports.record import SERIES_FOLDER, create_run
from tests.benchmarks.figure import Figure
from tests.cluster.kwok import (
    NODES_PER_RACK,
    RACK_LABEL,
    make_nodes,
    make_services,
    node_name,
    rack_of,
    simulated_cluster,
)

_NODES, _SERVICES, _REPLICAS = 1000, 50, 100
_NAMESPACE = "inference"
_BACK_S = 120.0
_CHILD_TIMEOUT_S = 300.0
_REST_S = 15.0  # that the watch of a day is measured with nothing going on
_LOOK_S = 0.02
_OURS, _EVICTED, _KUBECTL = 1, 2, 3  # racks, one for each way, so that none finds another's traces


def figures(*, nodes: int = _NODES, services: int = _SERVICES, replicas: int = _REPLICAS) -> Iterator[Figure]:
    """Yield time, calls and memory of each step of one drained rack, and of what is beside it."""
    size = f"{nodes} nodes, {services * replicas} pods"
    with (
        tempfile.TemporaryDirectory(prefix="kube-scale-") as folder,
        simulated_cluster(Path(folder) / "cluster") as plan,
    ):
        began = time.perf_counter()
        client = connect(Cluster(namespaces=(_NAMESPACE,), kubeconfig=str(plan.kubeconfig)))
        make_nodes(client, nodes)
        make_services(client, _NAMESPACE, count=services, replicas=replicas)
        yield _figure(f"made: {size}", time.perf_counter() - began, "s")
        kubectl = _by_kubectl(plan.kubeconfig, folder=Path(folder))
        with _Watching(plan.kubeconfig, Path(folder)) as watching:
            rows = _child("measure", plan.kubeconfig, Path(folder))
            watched = watching.end()
    for row in rows:
        yield from _step(row, size, kubectl)
    for row in watched:
        yield from _watch(row, size)


def _figure(name: str, value: float, unit: str, beside: str = "") -> Figure:
    return Figure(name=name, median=value, unit=unit, repeats=1, beside=beside)


def _step(row: JsonObject, size: str, kubectl: JsonObject | None) -> Iterator[Figure]:
    name, is_drain = f"{row['step']}: {size}", row["step"].startswith("drain")
    beside = {"s": "", "calls": "", "MiB": ""}
    if is_drain and kubectl is not None:
        ratio = row["s"] / kubectl["s"]
        beside["s"] = f"kubectl {kubectl['version']} drain: {kubectl['s']:.3g} s; ours {ratio:.2f} of it"
        beside["calls"] = f"kubectl drain: {_by_verb(kubectl['verbs'])}"
        beside["MiB"] = f"kubectl drain: {kubectl['MiB']:.0f} MiB"
    elif is_drain:
        beside["s"] = "no kubectl on this machine"
    if row["verbs"]:
        yield _figure(name, row["s"], "s", beside["s"])
        said = _by_verb(row["verbs"]) + (f"; {beside['calls']}" if beside["calls"] else "")
        yield _figure(name, sum(row["verbs"].values()), "calls", said)
    yield _figure(name, row["MiB"], "MiB at most", beside["MiB"])
    if "per_s" in row:
        yield _figure(name, row["per_s"], "a second")


def _by_verb(verbs: JsonObject) -> str:
    return ", ".join(f"{count} {verb}" for verb, count in sorted(verbs.items(), key=lambda each: -each[1]))


def _watch(row: JsonObject, size: str) -> Iterator[Figure]:
    name = f"a day's watch {row['when']}: {size}"
    yield _figure(name, 100 * row["share"], "% of one core")
    yield _figure(name, row["calls_per_min"], "calls a minute", _by_verb(row["verbs"]))
    yield _figure(name, row["kib_per_s"], "KiB of record a second")
    yield _figure(name, row["MiB"], "MiB at most")


class _Calls(logging.Handler):
    """Counts the calls of this process by verb, as urllib3 tells of them."""

    def __init__(self) -> None:
        super().__init__()
        self.verbs: Counter[str] = Counter()
        logger = logging.getLogger("urllib3.connectionpool")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.args, tuple) and len(record.args) == 8:  # an answer: scheme, host, port, method…
            self.verbs[_verb(str(record.args[3]), str(record.args[4]))] += 1


def _verb(method: str, url: str) -> str:
    """Return what a call is to Kubernetes."""
    path, _, query = url.partition("?")
    if method != "GET":
        return "evict" if path.endswith("/eviction") else method.lower()
    if "watch=true" in query:
        return "watch"
    return (
        "list" if re.search(r"/(pods|nodes|replicasets|deployments|poddisruptionbudgets)$", path) else "get"
    )


def measure(kubeconfig: str, folder: Path) -> list[JsonObject]:
    """Plan, drain and give back one rack; return time, calls and peak of memory of each step."""
    cluster = Cluster(namespaces=(_NAMESPACE,), kubeconfig=kubeconfig)
    client = connect(cluster)
    aim = Aim(name="scale", cluster=cluster, seed=1, run="scale", uid=client.identity().uid)
    rows: list[JsonObject] = []
    calls = _Calls()

    def step(name: str, work: Callable[[], Any]) -> Any:
        began, before = time.perf_counter(), Counter(calls.verbs)
        result = work()
        took = {"step": name, "s": time.perf_counter() - began, "verbs": dict(calls.verbs - before)}
        rows.append(took | {"MiB": _peak_mib("self")})
        return result

    def plan() -> list[JsonObject]:
        with planning() as found:
            actions.node_drain(label_selector=_rack(_OURS), count=NODES_PER_RACK)
        return [captured for _, captured in found]

    fault = load_fault("node.drain")
    with aiming_at(aim):
        step("begun", lambda: None)
        captured = step("plan of a rack", plan)
        moved = sum(len(each["hit_pods"]) for each in captured)
        assert moved > 0, "no pod was on the rack"
        step(f"drain of {moved} pods", lambda: [inject_fault(fault, each, folder) for each in captured])
        back = step("pods back", lambda: [await_back(each, within_s=_BACK_S) for each in captured])
        undone = step("undo", lambda: undo_pending(folder, by="benchmark"))
        pods = [pod["metadata"] for name in _nodes_of(_EVICTED) for pod in pods_on(client, name)]
        step(f"{len(pods)} evictions", lambda: evict(client, pods, grace_s=None, within_s=_BACK_S))
    rows[-1]["per_s"] = len(pods) / rows[-1]["s"]
    assert all(is_back for is_back, _ in back), back
    assert [each.is_restored for each in undone] == [True], undone
    return rows


def _rack(number: int) -> str:
    return f"{RACK_LABEL}={rack_of(number * NODES_PER_RACK)}"


def _nodes_of(rack: int) -> list[str]:
    return [node_name(number) for number in range(rack * NODES_PER_RACK, (rack + 1) * NODES_PER_RACK)]


def watch(kubeconfig: str, folder: Path) -> list[JsonObject]:
    """Watch as a game day does, at rest and then until stdin ends; return what each of the two cost."""
    calls = _Calls()
    client, workloads = workloads_under(Cluster(namespaces=(_NAMESPACE,), kubeconfig=kubeconfig))
    writer = create_run(folder, kind="gameday", spec={}, seed=1)
    sampler = KubeSampler(client, workloads, _nodes_of(_OURS), writer)
    sampler.start()
    time.sleep(2 * _LOOK_S + 5)  # until it has seen all for the first time
    series, rows = writer.path / SERIES_FOLDER / f"{KUBE_SERIES}.ndjson", []

    def until(when: str, wait: Callable[[], Any]) -> None:
        began, cpu_s, before = time.perf_counter(), time.process_time(), Counter(calls.verbs)
        size = series.stat().st_size
        wait()
        took_s, verbs = time.perf_counter() - began, calls.verbs - before
        row = {"when": when, "share": (time.process_time() - cpu_s) / took_s, "verbs": dict(verbs)}
        row |= {"calls_per_min": 60 * verbs.total() / took_s, "MiB": _peak_mib("self")}
        rows.append(row | {"kib_per_s": (series.stat().st_size - size) / 1024 / took_s})

    until("at rest", lambda: time.sleep(_REST_S))
    sys.stdout.write("\n")  # at rest it is measured: the drain may begin
    sys.stdout.flush()
    until("during drains", sys.stdin.read)
    sampler.stop()
    writer.close()
    return rows


class _Watching:
    """The watch in a process of its own, as in a game day; entered once it was measured at rest."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._process = subprocess.Popen(
            _command("watch", kubeconfig, folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> _Watching:
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> list[JsonObject]:
        """End it; return what it cost at rest and since."""
        said, _ = self._process.communicate(timeout=_CHILD_TIMEOUT_S)
        if self._process.returncode != 0:
            raise RuntimeError("the watch ended with an error, which stands above")
        found: list[JsonObject] = json.loads(said)
        return found


def _command(what: str, kubeconfig: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.kube_scale", what, str(kubeconfig), str(folder)]


def _child(what: str, kubeconfig: Path, folder: Path) -> list[JsonObject]:
    command = _command(what, kubeconfig, folder)
    done = subprocess.run(command, capture_output=True, text=True, timeout=_CHILD_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    found: list[JsonObject] = json.loads(done.stdout)
    return found


def _by_kubectl(kubeconfig: Path, *, folder: Path) -> JsonObject | None:
    """Drain a rack with kubectl and give it back; return what that took, None where there is none."""
    kubectl = shutil.which("kubectl", path=f"{os.environ.get('KUBEBUILDER_ASSETS', '')}:{os.environ['PATH']}")
    if kubectl is None:
        return None
    known = [kubectl, f"--kubeconfig={kubeconfig}"]
    version = json.loads(subprocess.check_output([kubectl, "version", "--client", "-o", "json"]))
    drain = [*known, "drain", "-l", _rack(_KUBECTL), f"--timeout={_BACK_S:.0f}s", "-v=6"]
    row = _watched(drain, folder / "kubectl.log")
    subprocess.run([*known, "uncordon", "-l", _rack(_KUBECTL)], check=True, capture_output=True)
    return row | {"version": str(version["clientVersion"]["gitVersion"])}


def _watched(command: Sequence[str], log: Path) -> JsonObject:
    """Run a command that tells of its calls; return its time, calls and peak of memory."""
    began, mib = time.perf_counter(), 0.0
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        while process.poll() is None:
            mib = max(mib, _peak_mib(str(process.pid)))
            time.sleep(_LOOK_S)
    took_s, said = time.perf_counter() - began, log.read_text()
    if process.returncode != 0:
        raise RuntimeError(said[-2000:])
    calls = re.findall(r'\b(?:verb=")?(GET|POST|PATCH|DELETE|PUT)"? (?:url=")?https?://[^/]+(/[^\s"]*)', said)
    return {"s": took_s, "MiB": mib, "verbs": dict(Counter(_verb(method, url) for method, url in calls))}


def _peak_mib(process: str) -> float:
    """Return the most memory that a process has had; ``ru_maxrss`` begins with its parent's."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0) / 1024


if __name__ == "__main__":
    work = {"measure": measure, "watch": watch}[sys.argv[1]]
    sys.stdout.write(json.dumps(work(sys.argv[2], Path(sys.argv[3]))))
