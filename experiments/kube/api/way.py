"""The way of one game day to the API of its cluster, by a relay that can be in the way, and a watch over it.

Only a day that is to slow down or cut its own way has one. The controller starts it before anything else of
the day goes to the API, and ends it last.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from experiments.kube.watching.samples import API_ASK_S, API_SERIES, OF_API
from probes.child import end_child, is_alive, python_module, start_child, wait_until
from probes.errors import ConfigError, RecordError, TargetError
from probes.json_types import JsonObject
from probes.kubernetes_api import RELAY_VARIABLE, connect_api
from reports.record import RunWriter

FILE = "api-relay.json"
_EVERY_S = 1.0
_READY_S = 15.0
_CONTROL_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayAt:
    """A relay, as its file names it."""

    file: str
    host: str
    port: int
    pid: int
    start_time: int
    token: str

    @property
    def is_running(self) -> bool:
        """Whether this very process is still there; asked on its own host."""
        return is_alive(self.pid, self.start_time)

    def tell(self, method: str, body: JsonObject | None = None) -> JsonObject:
        """PUT something in the way, DELETE it, or GET what is; return how it is now.

        Raises:
            TargetError: it does not answer, or refuses.
        """
        way = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_CONTROL_S)
        try:
            said = {"Authorization": f"Bearer {self.token}"}
            way.request(method, "/trouble", json.dumps(body or {}), said)
            response = way.getresponse()
            answer: JsonObject = json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise TargetError(f"relay to the API, process {self.pid}: no answer: {error}") from error
        finally:
            way.close()
        if response.status != 200:
            raise TargetError(f"relay to the API, process {self.pid}: {answer.get('message')}")
        return answer


def read_relay(file: str) -> RelayAt:
    """Return the relay that a file names.

    Raises:
        TargetError: there is no such file.
    """
    try:
        row = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TargetError(f"{file}: no relay to the API is known: {error}") from error
    del row["to"]
    return RelayAt(file=file, **row)


def why_no_way(cluster: Cluster) -> str:
    """Say why no relay can be between us and the API of a cluster; empty: one can."""
    settings = connect_api(cluster.kubeconfig, cluster.context, is_direct=True).settings
    if urlsplit(settings.host).scheme != "https":
        return f"{settings.host}: is reached without TLS, which is what keeps a relay out of what passes"
    bypasses = import_module("kubernetes.client.rest").should_bypass_proxies
    if settings.proxy and not bypasses(settings.host, settings.no_proxy or ""):
        return f"the API is reached by a proxy already, {settings.proxy}"
    return ""


class WayToApi:
    """Relay and watch of one game day, from the controller's side."""

    def __init__(
        self, cluster: Cluster, folder: Path, writer: RunWriter, environment: Mapping[str, str]
    ) -> None:
        self._cluster, self._folder, self._writer = cluster, folder, writer
        self._environment = environment
        self._child: subprocess.Popen[str] | None = None
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="way to the API", daemon=True)
        self.error: RecordError | None = None  # what ended the watch, for the main thread to raise

    def start(self) -> None:
        """Send everything of this day that goes to the API from now on through the relay, and watch it.

        Raises:
            ConfigError: no relay can be between us and this API.
            TargetError: it does not start, or does not lead to the same cluster.
        """
        if why := why_no_way(self._cluster):
            raise ConfigError(why)
        direct = connect_api(self._cluster.kubeconfig, self._cluster.context, is_direct=True)
        to, file = urlsplit(direct.settings.host), self._folder / FILE
        name = f"[{to.hostname}]" if ":" in str(to.hostname) else to.hostname
        words = ("--to", f"{name}:{to.port or 443}", "--file", str(file))
        with (self._folder / "api-relay.log").open("w") as log:
            command = python_module("experiments.kube.api.relay", *words)
            child = start_child(command, stdout=log, stderr=log, env=self._environment)
        self._child = child
        if not wait_until(lambda: file.exists() or child.poll() is not None, timeout_s=_READY_S):
            raise TargetError(f"relay to the API: does not start within {_READY_S:g} s; see api-relay.log")
        if child.poll() is not None:
            raise TargetError("relay to the API: has ended; see api-relay.log")
        os.environ[RELAY_VARIABLE] = str(file)
        relayed, wanted = connect(self._cluster).identity(), direct.identity()
        if relayed != wanted:
            raise TargetError(f"relay to the API: leads to {relayed}, not to {wanted}")
        self._writer.event("controller", "api.relayed", pid=child.pid, to=words[1])
        self._thread.start()

    def check(self) -> None:
        """Raise what keeps the day from going on.

        Raises:
            TargetError: the relay has ended before its time.
            RecordError: what it sees cannot be written.
        """
        if self.error is not None:
            raise self.error
        if self._child is not None and self._child.poll() is not None:
            raise TargetError("relay to the API: has ended before its time; see api-relay.log")

    def _watch(self) -> None:
        path = f"/api/v1/namespaces/{self._cluster.namespaces[0]}"
        while not self._leaving.wait(_EVERY_S):
            t_ns, began = time.time_ns(), time.monotonic()
            try:
                connect(self._cluster).ask("GET", path, within_s=API_ASK_S)
                said = ""
            except TargetError as error:
                said = str(error)
            took_ms = round(1000 * (time.monotonic() - began), 1)
            row = {"t_ns": t_ns, "subject": f"api:{self._cluster.context or 'current'}"}
            row |= {"took_ms": took_ms, "is_answered": not said, "said": said[:200]}
            try:
                self._writer.sample(API_SERIES, row)
            except RecordError as error:
                self.error = error
                return

    def end(self) -> None:
        """End watch and relay: whatever was in the way is gone with it.

        Raises:
            TargetError: the relay does not end.
        """
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join(timeout=API_ASK_S + _EVERY_S)
        os.environ.pop(RELAY_VARIABLE, None)
        if self._child is not None and not end_child(self._child):
            raise TargetError(f"relay to the API: process {self._child.pid} does not end even by SIGKILL")
        with contextlib.suppress(FileNotFoundError):
            (self._folder / FILE).unlink()  # its token is of no use to anybody any more


def needs_way(faults: Sequence[str]) -> bool:
    """Say whether a plan has a fault on our own way to the API."""
    return any(fault.startswith(OF_API) for fault in faults)
