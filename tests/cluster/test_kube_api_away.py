"""Days on our own way to the API of the real cluster: who feels it, and what we say that we did not see."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kubernetes import client

from experiments.kube.api.relay import HANG
from experiments.kube.api.way import FILE, read_relay
from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from experiments.kube.deadman.mirror import fired_reason, place_of, read_mirror
from experiments.kube.lock import LOCK
from probes.child import wait_until
from probes.errors import SuiteError
from probes.json_types import JsonObject
from probes.kubernetes_api import RELAY_VARIABLE
from reports.table import read_series
from tests.cluster.dead_man import api_of, apply
from tests.cluster.images import ENDPOINT_IMAGE
from tests.cluster.kube_days import (
    Service,
    decided_day,
    outcome_of,
    overproof,
    run_day,
    serve,
    told,
    write_day,
)
from tests.cluster.plan import KUBECONFIG_VARIABLE
from tests.processes import processes_with, start_job, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def service(api: client.ApiClient, shared_namespace: str) -> Service:
    return serve(api, shared_namespace, replicas=2)


def cluster_of(service: Service) -> Cluster:
    return Cluster(namespaces=(service.namespace,), kubeconfig=os.environ[KUBECONFIG_VARIABLE])


def leases(service: Service) -> list[str]:
    found = client.CoordinationV1Api(service.api).list_namespaced_lease(service.namespace).items
    return [each.metadata.name for each in found]


def soon(pause_s: float, *, dead_man: bool = False, **arguments: object) -> Callable[[JsonObject], None]:
    """Make a day shorter, and say for how long."""

    def change(document: JsonObject) -> None:
        action, (extension,) = document["method"][0], document["extensions"]
        action["pauses"]["after"] = pause_s
        action["provider"]["arguments"] |= arguments
        extension |= {"steady_s": 4, "after_s": 3}
        if dead_man:
            settings = {"image": ENDPOINT_IMAGE, "python": "python3.11"}
            extension["target"]["kubernetes"]["dead_man"] = settings

    return change


@contextmanager
def watched_for_fire(service: Service, folder: Path) -> Iterator[list[str]]:
    """Note whatever a dead-man of these days says of having taken over, and that it was seen at all."""
    seen: list[str] = []
    over, api = threading.Event(), api_of(os.environ[KUBECONFIG_VARIABLE])

    def look() -> None:
        while not over.wait(0.5):
            for run in (folder / "runs").glob("*-gameday-*"):
                if not run.is_symlink() and (found := read_mirror(place_of(run.name), api)) is not None:
                    seen.append(fired_reason(found))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_traffic_goes_on_while_the_api_is_away_and_what_was_not_seen_is_told(
    service: Service, tmp_path: Path
) -> None:
    for manifest in ("namespace", "dead-man"):
        apply(api_of(os.environ[KUBECONFIG_VARIABLE]), manifest)
    path = write_day(tmp_path, "api-away", service, soon(3, for_s=8, dead_man=True))

    with watched_for_fire(service, tmp_path) as fired:
        status, run = decided_day(path)

    (sight,) = [f for f in run.findings if f.rule == "sight"]
    (fault,) = [f for f in run.findings if f.rule == "fault"]
    rows = read_series(run, "kube_api")
    assert status == 0, told(run)
    assert "all by the fault" in sight.observed
    assert "it answers others in" in fault.observed
    assert {row["is_answered"] for row in rows} == {True, False}
    assert set(fired) == {""}, "the dead-man was there, and has not taken over"
    assert leases(service) == []
    assert processes_with(f"OVERPROOF_RUN={run.path.resolve()}") == []
    assert not (run.path / FILE).exists()


def test_a_slow_api_costs_nothing_and_everything_of_ours_still_comes(
    service: Service, tmp_path: Path
) -> None:
    status, run = decided_day(write_day(tmp_path, "api-slow", service, soon(2)))

    (fault,) = [f for f in run.findings if f.rule == "fault"]
    slow = [row for row in read_series(run, "kube_api") if row["took_ms"] >= 1400]
    assert status == 0, told(run)
    assert "the API answers us in" in fault.observed
    assert slow
    assert outcome_of(run, "sight") == "pass"
    assert leases(service) == []


class AskingGateway(ThreadingHTTPServer):
    """Asks the API where to send each request, twice a second at most: it needs its control plane to serve.

    It goes by the same way as the day, once that has one.
    """

    daemon_threads = True

    def __init__(self, service: Service, runs: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Asking)
        self._service, self._runs = service, runs
        self._lock = threading.Lock()
        self._asked_at, self._knows = 0.0, False

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def where(self) -> str:
        """Return where the service is; empty: the API does not say."""
        with self._lock:
            if time.monotonic() - self._asked_at > 0.5:
                self._knows = self._ask()
                self._asked_at = time.monotonic()
            return urlsplit(self._service.url).netloc if self._knows else ""

    def _ask(self) -> bool:
        for file in self._runs.glob(f"*-gameday-*/{FILE}"):
            os.environ[RELAY_VARIABLE] = str(file)
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._service.namespace}/endpointslices"
        try:
            return bool(connect(cluster_of(self._service)).ask("GET", path, within_s=2.0)["items"])
        except SuiteError:
            return False


class _Asking(BaseHTTPRequestHandler):
    server: AskingGateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not (where := self.server.where()):
            self.send_error(503)
            return
        way = http.client.HTTPConnection(where, timeout=30)
        try:
            way.request("POST", self.path, body, {"Content-Type": self.headers["Content-Type"]})
            answer = way.getresponse()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.end_headers()
            while piece := answer.read1(65536):
                self.wfile.write(piece)
                self.wfile.flush()
        finally:
            way.close()

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def test_a_data_plane_that_asks_its_control_plane_fails_the_day(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RELAY_VARIABLE, "")  # put back as it was afterwards
    monkeypatch.delenv(RELAY_VARIABLE)
    gateway = AskingGateway(service, tmp_path / "runs")
    thread = threading.Thread(target=gateway.serve_forever)
    thread.start()

    def change(document: JsonObject) -> None:
        soon(4, how="refuse")(document)
        (extension,) = document["extensions"]
        extension["target"]["endpoint"] = gateway.url
        del extension["guards"]  # one would stop it: here it is to be judged

    try:
        status, run = run_day(write_day(tmp_path, "api-away", service, change))
    finally:
        gateway.shutdown()
        thread.join()
        gateway.server_close()

    during = [f for f in run.findings if f.rule == "slo" and f.subject.endswith("@during")]
    assert status == 1, told(run)
    assert [f.outcome.value for f in during if f.outcome] == ["fail"], told(run)
    assert outcome_of(run, "undo") == "pass"
    assert outcome_of(run, "fault") == "pass"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_whatever_ends_a_day_that_is_cut_off_nothing_is_left_and_the_next_can_begin(
    service: Service, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    path, runs = write_day(tmp_path, "api-away", service, soon(20)), tmp_path / "runs"
    day = start_job(["gameday", "run", str(path), "--out", str(runs)], tmp_path)

    def relays() -> list[Path]:
        return [*runs.glob(f"*-gameday-*/{FILE}")]

    def is_away() -> bool:
        return bool(relays()) and read_relay(str(relays()[0])).tell("GET")["kind"] == HANG

    try:
        wait_for(is_away, day, timeout_s=120, what="the API away")
        relay = read_relay(str(relays()[0]))
    finally:
        day.signal(number)
        ended = day.wait(timeout_s=120)
    is_gone = wait_until(lambda: not relay.is_running, timeout_s=10)
    are_gone = wait_until(lambda: not day.descendants(), timeout_s=60)
    if number is signal.SIGKILL:  # else the day itself has put it back
        overproof("gameday", "undo", "--out", runs)
    left = overproof("gameday", "doctor", "--out", runs)
    if leases(service):
        lapse(service)
    plan = overproof("gameday", "plan", path, "--out", runs)

    assert ended == status, day.text()
    assert is_gone
    assert are_gone, day.descendants()
    assert left.returncode == 0, left.stdout
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert "nobody else is touched" in plan.stdout


def lapse(service: Service) -> None:
    """Have the lock that the dead day left be as old as it will be in a minute."""
    old = {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}
    client.CoordinationV1Api(service.api).patch_namespaced_lease(LOCK, service.namespace, old)
