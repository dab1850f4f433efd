"""The way of one game day to the API: a relay for as long as the day, watched, and gone with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.kube.api.relay import REFUSE
from experiments.kube.api.way import FILE, WayToApi, needs_way, read_relay
from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from experiments.kube.watching.samples import API_SERIES
from probes.child import wait_until
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject
from probes.kubernetes_api import RELAY_VARIABLE
from probes.tail import Tail
from reports.record import SERIES_FOLDER, RunWriter, create_run
from tests.experiments.kube.tls_api import TlsApi


@pytest.fixture
def writer(tmp_path: Path) -> RunWriter:
    return create_run(tmp_path / "runs", kind="gameday", spec={}, seed=1)


@pytest.fixture
def way(api: TlsApi, writer: RunWriter) -> Iterator[WayToApi]:
    made = WayToApi(api.cluster(), writer.path, writer, os.environ)
    try:
        made.start()
        yield made
    finally:
        made.end()


def test_every_client_goes_through_it_until_it_ends_and_then_none(
    api: TlsApi, way: WayToApi, writer: RunWriter
) -> None:
    relay = read_relay(str(writer.path / FILE))
    during = connect(api.cluster()).settings.proxy
    way.check()

    way.end()

    assert during == f"http://127.0.0.1:{relay.port}"
    assert connect(api.cluster()).settings.proxy is None
    assert not relay.is_running
    assert RELAY_VARIABLE not in os.environ
    assert not (writer.path / FILE).exists()


@pytest.mark.usefixtures("way")
def test_each_second_says_whether_the_api_was_there(writer: RunWriter) -> None:
    relay, rows = read_relay(str(writer.path / FILE)), list[JsonObject]()
    tail = Tail(writer.path / SERIES_FOLDER / f"{API_SERIES}.ndjson")

    def has(is_answered: bool) -> bool:
        rows.extend(tail.read())
        return any(row["is_answered"] is is_answered for row in rows)

    was_there = wait_until(lambda: has(True), timeout_s=30)
    relay.tell("PUT", {"kind": REFUSE, "delay_s": 0.0, "for_s": 60.0})
    was_away = wait_until(lambda: has(False), timeout_s=30)

    assert (was_there, was_away) == (True, True)
    assert [bool(row["said"]) for row in rows] == [not row["is_answered"] for row in rows]


def test_a_relay_that_ends_before_its_time_ends_the_day(way: WayToApi, writer: RunWriter) -> None:
    os.kill(read_relay(str(writer.path / FILE)).pid, signal.SIGKILL)

    def is_told() -> bool:
        try:
            way.check()
        except TargetError as error:
            return "has ended before its time" in str(error)
        return False

    assert wait_until(is_told, timeout_s=10)


def test_an_api_without_tls_gets_none(api: TlsApi, writer: RunWriter, tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_text(Path(api.cluster().kubeconfig).read_text().replace("https://", "http://"))
    cluster = Cluster(namespaces=("inference",), kubeconfig=str(path))

    with pytest.raises(ConfigError, match="without TLS"):
        WayToApi(cluster, writer.path, writer, os.environ).start()
    assert RELAY_VARIABLE not in os.environ


def test_an_api_that_is_not_there_leaves_no_relay_behind(
    api: TlsApi, writer: RunWriter, tmp_path: Path
) -> None:
    cluster = api.cluster()
    api.end()
    made = WayToApi(cluster, writer.path, writer, os.environ)

    try:
        with pytest.raises(TargetError, match="no answer"):
            made.start()
        relay = read_relay(str(writer.path / FILE))
    finally:
        made.end()

    assert not relay.is_running
    assert RELAY_VARIABLE not in os.environ


def test_only_days_that_are_to_be_in_their_own_way_have_one() -> None:
    assert needs_way(["pod.kill", "api.away"])
    assert not needs_way(["pod.kill", "dns.away"])
