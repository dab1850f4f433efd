"""The relay between a game day and its API: what passes, what is held back, for how long, and for whom."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.kube.api.relay import HANG, PASS, REFUSE, SLOW
from experiments.kube.api.way import RelayAt, read_relay
from experiments.kube.client import connect
from experiments.kube.cluster import Cluster
from probes.child import wait_until
from probes.errors import TargetError
from probes.kubernetes_api import connect_api
from tests.experiments.kube.tls_api import LOOK, TlsApi, other_authority

LONG_S = 60.0  # longer than any of these tests
DELAY_S = 0.2


def in_the_way(kind: str, *, for_s: float = LONG_S, delay_s: float = 0.0) -> dict[str, object]:
    return {"kind": kind, "delay_s": delay_s, "for_s": for_s}


def direct(cluster: Cluster) -> float:
    """Return how long an answer takes beside the relay."""
    began = time.monotonic()
    connect_api(cluster.kubeconfig, cluster.context, is_direct=True).ask("GET", LOOK)
    return time.monotonic() - began


def test_what_passes_is_tls_from_end_to_end(api: TlsApi, relay: RelayAt, tmp_path: Path) -> None:
    ours = api.cluster()
    strangers = api.cluster(ca=other_authority(tmp_path / "other"), name="strangers")

    found = connect(ours).identity()

    assert (found.uid, found.server) == ("uid-of-cluster", f"https://127.0.0.1:{api.server_port}")
    assert connect(ours).settings.proxy == f"http://127.0.0.1:{relay.port}"
    with pytest.raises(TargetError, match="certificate verify failed"):
        connect(strangers).identity()


def test_it_leads_nowhere_else_and_listens_to_nobody_else(relay: RelayAt) -> None:
    def said(request: str) -> str:
        with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as way:
            way.sendall(request.encode())
            return way.makefile("r").readline()

    elsewhere = said("CONNECT 127.0.0.1:22 HTTP/1.1\r\n\r\n")
    stranger = said("PUT /trouble HTTP/1.1\r\nAuthorization: Bearer guessed\r\nContent-Length: 0\r\n\r\n")

    assert " 403 " in elsewhere
    assert " 403 " in stranger
    assert relay.tell("GET")["kind"] == PASS


def test_slow_makes_each_answer_late_and_no_call_beside_it(api: TlsApi, relay: RelayAt) -> None:
    cluster = api.cluster()
    connect(cluster).identity()
    relay.tell("PUT", in_the_way(SLOW, delay_s=DELAY_S))

    took_s = []
    for _ in range(3):
        began = time.monotonic()
        connect(cluster).identity()
        took_s.append(time.monotonic() - began)
    beside_s = min(direct(cluster) for _ in range(5))
    ended = relay.tell("DELETE")

    assert min(took_s) >= 2 * DELAY_S
    assert beside_s < min(took_s)
    assert (ended["kind"], ended["ended_by"]) == (PASS, "us")


def test_refuse_cuts_what_is_open_and_lets_nothing_new_in(api: TlsApi, relay: RelayAt) -> None:
    cluster = api.cluster()
    connect(cluster).identity()
    relay.tell("PUT", in_the_way(REFUSE))

    for _ in range(2):
        with pytest.raises(TargetError, match="no answer to GET"):
            connect(cluster).identity()
    direct(cluster)
    met = relay.tell("DELETE")["met"]

    assert met >= 2  # the one that was open, and a new one
    assert connect(cluster).identity().uid == "uid-of-cluster"


def test_what_was_held_is_never_delivered_later(api: TlsApi, relay: RelayAt) -> None:
    cluster = api.cluster()
    connect(cluster).identity()
    relay.tell("PUT", in_the_way(HANG))

    with pytest.raises(TargetError, match="timed out"):
        connect(cluster).ask("PATCH", "/api/v1/late", body={}, within_s=0.5)
    with pytest.raises(TargetError, match="timed out"):
        connect(cluster).ask("PATCH", "/api/v1/late", body={}, within_s=0.5)
    relay.tell("DELETE")

    assert connect(cluster).ask("PATCH", "/api/v1/now", body={}) == {}
    assert [each for each in api.seen if each.startswith("PATCH")] == ["PATCH /api/v1/now"]


@pytest.mark.parametrize("kind", [SLOW, REFUSE, HANG])
def test_it_ends_by_its_own_clock_with_nobody_telling(api: TlsApi, relay: RelayAt, kind: str) -> None:
    relay.tell("PUT", in_the_way(kind, for_s=0.5, delay_s=DELAY_S))
    during = relay.tell("GET")["kind"]

    is_over = wait_until(lambda: relay.tell("GET")["kind"] == PASS, timeout_s=30)
    after = relay.tell("DELETE")

    assert during in (kind, PASS)  # on a busy machine it may be over by then
    assert is_over
    assert after["ended_by"] == "its timer"
    assert after["ended_ns"] - after["began_ns"] >= 0.5e9
    assert connect(api.cluster()).identity().uid == "uid-of-cluster"


def test_it_is_in_the_way_once_at_a_time(relay: RelayAt) -> None:
    relay.tell("PUT", in_the_way(REFUSE))

    with pytest.raises(TargetError, match="in the way already"):
        relay.tell("PUT", in_the_way(SLOW, delay_s=DELAY_S))
    relay.tell("DELETE")
    with pytest.raises(TargetError, match="knows no 'melt'"):
        relay.tell("PUT", in_the_way("melt"))


def test_once_it_is_gone_everybody_goes_straight_to_the_api(api: TlsApi, relay: RelayAt) -> None:
    relay.tell("PUT", in_the_way(HANG))
    os.kill(relay.pid, signal.SIGKILL)

    assert wait_until(lambda: not relay.is_running, timeout_s=10)
    assert connect(api.cluster()).identity().uid == "uid-of-cluster"
    with pytest.raises(TargetError, match="no answer"):
        relay.tell("GET")


def test_it_ends_with_its_parent_and_a_kill_9_of_that_cuts_nobody_off(api: TlsApi, tmp_path: Path) -> None:
    file = tmp_path / "relay.json"
    code = (
        "import sys, time\nfrom probes.child import python_module, start_child\n"
        "start_child(python_module('experiments.kube.api.relay', *sys.argv[1:]))\ntime.sleep(60)\n"
    )
    words = ["--to", f"127.0.0.1:{api.server_port}", "--file", str(file)]
    parent = subprocess.Popen([sys.executable, "-c", code, *words])
    try:
        assert wait_until(file.exists, timeout_s=30)
        relay = read_relay(str(file))
        relay.tell("PUT", in_the_way(HANG))
    finally:
        parent.kill()
        parent.wait()

    assert wait_until(lambda: not relay.is_running, timeout_s=10)


def test_nobody_else_may_read_its_token(relay: RelayAt) -> None:
    assert Path(relay.file).stat().st_mode & 0o077 == 0
