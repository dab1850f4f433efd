"""A real Alertmanager of a test's own, on loopback, and answers such as a broken one gives."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from probes.child import end_child, start_child, wait_until
from tests.loadtests.crews import free_port

PROGRAM = "prometheus-alertmanager"
_CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


@contextlib.contextmanager
def running_alertmanager(folder: Path) -> Iterator[str]:
    """Start one that tells nobody; yield its address."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alertmanager.yml").write_text(_CONFIG)
    address = f"127.0.0.1:{free_port()}"
    command = [
        PROGRAM, f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}",
        f"--web.listen-address={address}", "--cluster.listen-address=",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        child = start_child(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        assert wait_until(lambda: is_ready(address), timeout_s=20), (folder / "log").read_text()
        yield f"http://{address}"
    finally:
        end_child(child)


def is_ready(address: str) -> bool:
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://{address}/-/ready", timeout=1) as reply,
    ):
        return bool(reply.status == 200)
    return False


def post_alert(url: str, name: str, **labels: str) -> None:
    """Fire an alert as Prometheus does; its start is Alertmanager's own present."""
    body = json.dumps([{"labels": {"alertname": name, **labels}}]).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/api/v2/alerts", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=5) as reply:
        assert reply.status == 200
