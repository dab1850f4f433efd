"""Shipped game days on the cluster of the tests: a service of three replicas, which may be hit."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import yaml
from kubernetes import client

from experiments.kube.choosing.allowed import pods_on, strangers_of
from experiments.kube.client import connect
from experiments.kube.cluster import ALLOWED_LABEL, ALLOWED_VALUE, Cluster
from experiments.kube.deadman.mirror import RUN_LABEL
from experiments.kube.deadman.objects import SERVICE_ACCOUNT
from probes.child import wait_until
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run, load_run
from tests.cluster.dead_man import SETTINGS
from tests.cluster.kube_accounts import grant
from tests.cluster.plan import CONTROL_PLANE, KUBECONFIG_VARIABLE
from tests.cluster.running import Hosts
from tests.cluster.workload import (
    containers,
    deploy,
    diagnosis,
    is_node_well,
    ready_pods,
    replica_that_answers,
)
from tests.processes import processes_with

CATALOGUE = Path(__file__).parents[2] / "experiments" / "catalogue"
DEPLOYMENT, SELECTOR = "endpoint", "app=endpoint"
CONTROLLERS = "kube-controller-manager"
DAY_TIMEOUT_S = 240
Beside = Callable[[], AbstractContextManager[None]]  # what goes on while a day runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The endpoint on the cluster, allowed to be hit."""

    api: client.ApiClient
    namespace: str
    url: str

    @property
    def core(self) -> client.CoreV1Api:
        """The part of the API with pods, nodes and namespaces."""
        return client.CoreV1Api(self.api)

    def ready(self) -> dict[str, str]:
        """Return the node of each pod that is ready."""
        return ready_pods(self.api, self.namespace)

    def containers(self) -> dict[str, list[str]]:
        """Return the containers of each pod that stays, ready or not: as before where nothing was touched."""
        return containers(self.api, self.namespace)

    def renew(self) -> None:
        """Have other pods, whose containers no kubelet makes wait for having been started anew too often."""
        old = self.ready().keys()
        self.core.delete_collection_namespaced_pod(self.namespace)
        assert wait_until(lambda: not old & self.ready().keys(), timeout_s=60)
        self.await_ready()

    def await_ready(self, count: int = 3, *, timeout_s: float = 90) -> None:
        """Wait until so many are ready."""
        tell = diagnosis(self.api, self.namespace)
        assert wait_until(lambda: len(self.ready()) == count, timeout_s=timeout_s), tell()


def allow_namespace(api: client.ApiClient, name: str) -> None:
    """Label a namespace as its owner does."""
    client.CoreV1Api(api).patch_namespace(name, {"metadata": {"labels": {ALLOWED_LABEL: ALLOWED_VALUE}}})


def label_node(api: client.ApiClient, name: str, value: str | None) -> None:
    """Label a node as its owner does, or take the label off."""
    client.CoreV1Api(api).patch_node(name, {"metadata": {"labels": {ALLOWED_LABEL: value}}})


def serve(api: client.ApiClient, namespace: str, *, replicas: int = 3, loads_for_s: int = 0) -> Service:
    """Deploy the endpoint in a namespace that game days may hit, on a whole cluster, until it answers."""
    allow_namespace(api, namespace)
    nodes = [each.metadata.name for each in client.CoreV1Api(api).list_node().items]
    # One that another test has hurt may only just be coming back: two replicas would be on another.
    assert wait_until(lambda: all(is_node_well(api, name) for name in nodes), timeout_s=60)
    url = deploy(api, namespace, replicas=replicas, loads_for_s=loads_for_s)
    service = Service(api=api, namespace=namespace, url=url)
    service.await_ready(replicas)
    assert wait_until(lambda: replica_that_answers(service.url) is not None, timeout_s=30)
    return service


def lent_node(service: Service, *, among: Callable[[str], bool] = bool) -> str:
    """Return a node with few replicas, one if can be, that nobody else has pods on, labelled as to be hit."""
    client_of = connect(Cluster(namespaces=(), kubeconfig=os.environ[KUBECONFIG_VARIABLE]))
    free: list[str] = []

    def is_found() -> bool:
        places = Counter(service.ready().values())
        for name in filter(among, sorted(places, key=lambda each: (places[each], each))):
            is_free = not strangers_of(pods_on(client_of, name), [service.namespace])
            if is_free and is_node_well(service.api, name):
                free.append(name)
        return bool(free)

    assert wait_until(is_found, timeout_s=60), "others have pods on every node"
    label_node(service.api, free[0], ALLOWED_VALUE)
    return free[0]


def take_back(service: Service, node: str) -> None:
    """Take the label off a node, and have it take pods."""
    label_node(service.api, node, None)
    service.core.patch_node(node, {"spec": {"unschedulable": None}})


def shipped(name: str) -> JsonObject:
    """Return an experiment of the catalogue."""
    return dict(yaml.safe_load((CATALOGUE / "kubernetes" / f"{name}.yaml").read_text()))


def write_day(
    folder: Path, name: str, service: Service, change: Callable[[JsonObject], None] = lambda _: None
) -> Path:
    """Write an experiment of the catalogue for a service, shorter, and otherwise as it is shipped."""
    document = json.loads(
        json.dumps(shipped(name)).replace("app=chat", SELECTOR).replace('"chat"', f'"{DEPLOYMENT}"')
    )
    (extension,) = document["extensions"]
    extension["target"]["endpoint"] = service.url
    extension["target"]["kubernetes"] = {
        "namespaces": [service.namespace],
        "kubeconfig": os.environ[KUBECONFIG_VARIABLE],
    }
    extension["workload"] = str(CATALOGUE / "workloads" / "steady-chat.yaml")
    extension |= {"steady_s": 5, "after_s": 5, "requests_min": 30}
    # How long an answer takes says more about what else this machine does.
    extension["slos"] = {
        phase: [slo for slo in slos if slo["metric"] == "goodput"]
        for phase, slos in extension["slos"].items()
    }
    change(document)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def watch_over(document: JsonObject, service: Service) -> None:
    """Ask for the dead-man, with the rights that an administrator and the namespace's owner give it."""
    grant("namespace", "dead-man")
    account = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": SETTINGS.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
    client.RbacAuthorizationV1Api(service.api).create_namespaced_role_binding(
        service.namespace,
        {
            "metadata": {"name": SERVICE_ACCOUNT},
            "roleRef": role | {"name": f"{SERVICE_ACCOUNT}-workloads"},
            "subjects": [account],
        },
    )
    target = document["extensions"][0]["target"]["kubernetes"]
    target["dead_man"] = {"image": SETTINGS.image, "python": SETTINGS.python}


def clear_dead_men(api: client.ApiClient) -> None:
    """End every dead-man, as whoever has looked at what it did: its pod keeps others off its node."""
    core = client.CoreV1Api(api)
    core.delete_collection_namespaced_config_map(SETTINGS.namespace, label_selector=RUN_LABEL)
    assert wait_until(lambda: not core.list_namespaced_pod(SETTINGS.namespace).items, timeout_s=60)


def overproof(*words: str | Path, timeout_s: float = DAY_TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [sys.executable, "-m", "overproof", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def run_day(path: Path, *options: str) -> tuple[int, Run]:
    """Run a game day; return its exit code and its record."""
    out = path.parent / "runs"
    done = overproof("gameday", "run", path, "--out", out, *options)
    runs = sorted(each for each in out.glob("*-gameday-*") if not each.is_symlink())
    assert runs, done.stdout + done.stderr
    return done.returncode, load_run(runs[-1])


def kill_in_the_middle(path: Path, is_broken: Callable[[], bool], *, timeout_s: float = 120) -> None:
    """Start a game day, end all its processes by kill -9 once something is broken, and take its disk away."""
    runs, said = path.parent / "runs", path.parent / "said"
    command = [sys.executable, "-m", "overproof", "gameday", "run", str(path), "--out", str(runs)]
    with said.open("w") as file:
        controller = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            assert wait_until(is_broken, timeout_s=timeout_s, interval_s=0.1), said.read_text()
        finally:
            # A machine is lost at once: what is killed last would see the others' end, and put things back.
            controller.send_signal(signal.SIGSTOP)
            marks = [f"OVERPROOF_RUN={run.resolve()}" for run in runs.glob("*-gameday-*")]
            stopped: set[int] = set()
            while found := {pid for mark in marks for pid, _ in processes_with(mark)} - stopped:
                send_all(found, signal.SIGSTOP)
                stopped |= found
            send_all(stopped, signal.SIGKILL)
            controller.kill()
            controller.wait()
            # One that is not dead yet may write while its disk is taken away.
            assert wait_until(lambda: not any(map(processes_with, marks)), timeout_s=30)
    shutil.rmtree(runs)


def send_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal every one of these processes that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def decided_day(
    path: Path,
    *,
    tries: int = 3,
    before_again: Callable[[], object] = lambda: None,
    beside: Beside = nullcontext,
) -> tuple[int, Run]:
    """Run a game day, again where only our own load client fell behind; a FAIL is never asked twice.

    ``beside`` is entered anew for each.
    """
    for number in range(tries):
        if number:
            before_again()
        with beside():
            status, run = run_day(path)
        if run.outcome is not Outcome.INCONCLUSIVE or outcome_of(run, "client") == "pass":
            break
    return status, run


def lost_day(service: Service, node: str, path: Path, *, beside: Beside = nullcontext) -> tuple[int, Run]:
    """Run a game day that loses the node; again only with a replica on it, since the first has moved that."""
    return decided_day(path, before_again=lambda: spread(service, node), beside=beside)


def spread(service: Service, node: str) -> None:
    """Have a replica on a node: the scheduler would rather have one on each, and promises nothing."""
    if wait_until(lambda: len(ready := service.ready()) == 3 and node in ready.values(), timeout_s=10):
        return
    others = [each.metadata.name for each in service.core.list_node().items if each.metadata.name != node]
    try:
        for other in others:
            service.core.patch_node(other, {"spec": {"unschedulable": True}})
        service.core.delete_namespaced_pod(next(iter(service.ready())), service.namespace)
        assert wait_until(lambda: node in service.ready().values(), timeout_s=60), service.ready()
        service.await_ready()
    finally:
        for other in others:
            service.core.patch_node(other, {"spec": {"unschedulable": None}})
    assert wait_until(lambda: all(is_node_well(service.api, each) for each in others), timeout_s=60)


@contextlib.contextmanager
def without_controllers(hosts: Hosts) -> Iterator[None]:
    """Have nobody in the cluster heal anything for as long as the block."""
    hosts.stop_service(CONTROL_PLANE, CONTROLLERS)
    try:
        yield
    finally:
        hosts.start_service(CONTROL_PLANE, CONTROLLERS)


@contextlib.contextmanager
def once(is_so: Callable[[], bool], act: Callable[[], object], *, interval_s: float) -> Iterator[None]:
    """Beside the block, act as soon as something is so; at its end at the latest."""
    over = threading.Event()

    def wait_and_act() -> None:
        wait_until(lambda: over.is_set() or is_so(), timeout_s=180, interval_s=interval_s)
        act()

    waiting = threading.Thread(target=wait_and_act)
    waiting.start()
    try:
        yield
    finally:
        over.set()
        waiting.join()


def has_its_times(run: Run, *, is_node_lost: bool = False) -> bool:
    """Say whether the report tells how long it took, and of a lost node whose part of that is whose."""
    by_rule = {finding.rule: finding for finding in run.findings}
    at = by_rule["redundancy"].evidence
    is_timed = at["t_inject_s"] == 0.0 < at["t_redundant_s"]
    if not is_node_lost:
        return bool(is_timed)
    platform, application = by_rule["platform-time"].evidence, by_rule["application-time"].evidence
    parts = [platform["missed_s"], platform["made_s"], platform["started_s"], application["took_s"]]
    whole_s = parts[2] + parts[3]
    return bool(is_timed and None not in parts and abs(whole_s - at["t_redundant_s"]) < 0.1)


def told(run: Run) -> dict[str, str]:
    """Return what did not pass, with what was observed, for a test that fails to show."""
    bad = (f for f in run.findings if f.outcome not in (None, Outcome.PASS))
    return {f"{f.rule} {f.subject}": f"{f.outcome}: {f.observed}" for f in bad}


def outcome_of(run: Run, rule: str) -> str:
    """Return the one outcome of a rule."""
    (found,) = {str(f.outcome.value if f.outcome else None) for f in run.findings if f.rule == rule}
    return found
