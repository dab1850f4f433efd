"""What the tests of our own way to the API share: an API over TLS, and a relay to it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.kube.api.way import RelayAt, read_relay
from probes.child import end_child, python_module, start_child, wait_until
from probes.kubernetes_api import RELAY_VARIABLE
from tests.experiments.kube.tls_api import TlsApi, serving


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TlsApi]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def relay(api: TlsApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RelayAt]:
    """A relay to the API, through which this process goes from now on."""
    file = tmp_path / "relay.json"
    words = ("--to", f"127.0.0.1:{api.server_port}", "--file", str(file))
    child = start_child(python_module("experiments.kube.api.relay", *words), stdout=subprocess.DEVNULL)
    try:
        assert wait_until(file.exists, timeout_s=30)
        monkeypatch.setenv(RELAY_VARIABLE, str(file))
        yield read_relay(str(file))
    finally:
        assert end_child(child)
