"""Programs on the nodes of a Kubernetes cluster: each in a Job of its own that is pinned to its node.

A Job that has not begun yet has only the time that beginning may take: if we die meanwhile, a pod that waits
for its image or for a GPU goes soon. Once its program has begun, the end of our connection is its end.
"""

from __future__ import annotations

import itertools
import math
import secrets
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from burnin.fleet.host import ClusterJobs, Host
from burnin.fleet.launchers.attached import AttachedChannel, attach
from burnin.fleet.launchers.channel import Channel, Program
from burnin.fleet.launchers.hello import NotBegun, begin
from burnin.fleet.launchers.kubernetes import RIGHTS, job_manifest, job_name, label_value
from burnin.fleet.launchers.pod_story import (
    CONTAINER,
    exit_code,
    how_it_ended,
    is_over,
    is_running,
    why_no_pod,
    why_not_ready,
    why_waiting,
)
from burnin.fleet.launchers.pod_watch import PodWatch
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.kubernetes_api import FORBIDDEN, MERGE, ApiRefused, KubeClient
from probes.ssh import NotLetIn

BEGIN_GRACE_S = 30.0  # of a Job that has not begun, beyond the time that we wait for it
TOLD_WITHIN_S = 4.0  # for the cluster to say how a pod ended
_NOT_FOUND = 404
_ENDED_AT_ONCE = 32
_TRIES = 3


class KubernetesLauncher:
    """Starts each program as a Job on its node; the Jobs of a run are found by its label."""

    def __init__(self, client: KubeClient, jobs: ClusterJobs, *, run: str, time_limit_s: float) -> None:
        self._client, self._settings, self._run = client, jobs, label_value(run)
        self._time_limit_s = time_limit_s
        self._path = f"/apis/batch/v1/namespaces/{jobs.namespace}/jobs"
        self._pods = PodWatch(client, jobs.namespace, self._run)
        self._attempt, self._number = secrets.token_hex(4), itertools.count(1)
        self._lock = threading.Lock()
        self._channels: dict[str, AttachedChannel | None] = {}  # by Job; None: its program has not begun
        self._is_closed = False

    def start(self, host: Host, program: Program, *, within_s: float) -> Channel:
        """Start a program on a node.

        Raises:
            ConfigError: the fleet file does not say how many GPUs the node has.
            TargetError: the node is not there or not ready, the cluster refuses, or nothing began in time.
        """
        began = time.monotonic()
        if why := self._why_unusable(host):
            raise TargetError(f"{host.name}: {why}")
        job = job_name(host.name, f"{self._run}/{self._attempt}/{next(self._number)}")
        limit_s = within_s + BEGIN_GRACE_S
        manifest = job_manifest(host, self._settings, run=self._run, job=job, time_limit_s=limit_s)
        self._note(job, host)
        try:
            self._create(host, manifest)
            pod = self._running_pod(host, job, began + within_s)
            channel = self._attached(host, job, pod)
            left_s = max(began + within_s - time.monotonic(), 0.0)
            begin(channel, program, host=host.name, within_s=left_s)
            self._let_last(job, limit_s + self._time_limit_s)
        except BaseException:
            self._forget(job)
            raise
        return channel

    def _note(self, job: str, host: Host) -> None:
        with self._lock:
            if self._is_closed:
                raise TargetError(f"{host.name}: we were told to stop")
            self._channels[job] = None

    def _why_unusable(self, host: Host) -> str:
        """Say why nothing can run on the node; empty: it can."""
        try:
            node = self._client.ask("GET", f"/api/v1/nodes/{host.name}")
        except ApiRefused as error:
            if error.status == _NOT_FOUND:
                return "the cluster has no node of this name; see: kubectl get nodes"
            raise
        why = why_not_ready(node)
        return (
            f"its node is not ready: {why}; see kubelet there: kubectl describe node {host.name}"
            if why
            else ""
        )

    def _create(self, host: Host, manifest: JsonObject) -> None:
        try:
            self._client.ask("POST", self._path, body=manifest)
        except ApiRefused as error:
            if error.status == FORBIDDEN:
                raise NotLetIn(f"{host.name}: {error}; see {RIGHTS}") from error
            space = f"; kubectl create namespace {self._settings.namespace}"
            missing = space if error.status == _NOT_FOUND else ""
            raise TargetError(f"{host.name}: {error}{missing}") from error

    def _running_pod(self, host: Host, job: str, deadline: float) -> str:
        """Return the pod of a Job once its container runs."""
        pod = self._pods.until(job, lambda pod: is_running(pod) or is_over(pod), deadline - time.monotonic())
        if pod is not None and is_running(pod):
            return str(pod["metadata"]["name"])
        if is_over(pod):
            raise NotBegun(f"{host.name}: {how_it_ended(pod) or f'its program ended, {exit_code(pod)}'}")
        why = why_waiting(pod) or self._why_no_pod(job)
        raise NotBegun(f"{host.name}: its pod does not run: {why or 'the cluster does not say why'}")

    def _why_no_pod(self, job: str) -> str:
        query = {"fieldSelector": f"involvedObject.kind=Job,involvedObject.name={job}"}
        try:
            return why_no_pod(
                self._client.listed(f"/api/v1/namespaces/{self._settings.namespace}/events", **query)
            )
        except TargetError as error:
            return str(error)

    def _let_last(self, job: str, time_limit_s: float) -> None:
        lasting = {"spec": {"activeDeadlineSeconds": math.ceil(time_limit_s)}}
        for tries_left in reversed(range(_TRIES)):
            try:
                self._client.ask("PATCH", f"{self._path}/{job}", body=lasting, content_type=MERGE)
            except ApiRefused:
                raise
            except TargetError:  # a cluster that is busy with starting us everywhere
                if not tries_left:
                    raise
            else:
                return

    def _attached(self, host: Host, job: str, pod: str) -> AttachedChannel:
        channel = AttachedChannel(
            attach(self._client, self._settings.namespace, pod, CONTAINER, host=host.name),
            host=host.name,
            end_of=lambda: self._how_it_ended(job),
            why_silent=lambda: self._why_silent(host),
            on_end=lambda: self._forget(job),
        )
        with self._lock:
            self._channels[job] = channel
        return channel

    def _how_it_ended(self, job: str) -> str:
        """Say what ended a program other than itself; empty: itself."""
        pod = self._pods.until(job, is_over, TOLD_WITHIN_S)
        if story := how_it_ended(pod):
            return story
        return (
            "" if is_over(pod) else "the cluster closed the connection to its pod, which runs on for a while"
        )

    def _why_silent(self, host: Host) -> str:
        """Say what is wrong with the node of a program that says nothing; empty: nothing that is known."""
        try:
            why = self._why_unusable(host)
        except TargetError as error:
            why = f"its program is silent, and so is the cluster: {error}"
        return why

    def _forget(self, job: str) -> int | None:
        """Delete a Job with its pod; return how its program ended, None where nobody knows."""
        with self._lock:
            if job not in self._channels:
                return None
            channel = self._channels.pop(job)
        pod = self._pods.until(job, is_over, TOLD_WITHIN_S) if channel is not None else None
        try:
            self._client.ask("DELETE", f"{self._path}/{job}", body={"propagationPolicy": "Background"})
        except TargetError as error:
            if not (isinstance(error, ApiRefused) and error.status == _NOT_FOUND):
                sys.stderr.write(f"overproof: Job {job} is left to its own time limit: {error}\n")
        return exit_code(pod)

    def close(self) -> None:
        """End every program and delete every Job of ours."""
        with self._lock:
            self._is_closed = True
            left = dict(self._channels)
        with ThreadPoolExecutor(max_workers=_ENDED_AT_ONCE) as pool:
            list(pool.map(lambda job: self._end(job, left[job]), left))
        self._pods.close()

    def _end(self, job: str, channel: AttachedChannel | None) -> None:
        if channel is None:
            self._forget(job)
        else:
            channel.end()
