"""Being in our own way to the API: within what bounds, how it is seen, and how it is undone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.faults.fault import FaultRefused, load_fault
from experiments.injecting.bounds import planning
from experiments.injecting.injection import inject_fault, undo_pending
from experiments.kube import api_actions
from experiments.kube.api.faults import DEAD_MAN_BEARS_S, LOCK_BEARS_S, capture_api
from experiments.kube.api.relay import HANG, PASS, REFUSE, SLOW
from experiments.kube.api.way import RelayAt, why_no_way
from experiments.kube.choosing.aim import Aim, aiming_at
from experiments.kube.client import connect
from experiments.kube.cluster import Cluster, DeadMan
from experiments.kube.deadman.lease import LEASE_S
from experiments.kube.deadman.lease import RENEW_EVERY_S as BEAT_EVERY_S
from experiments.kube.lock import LOCK_S, RENEW_EVERY_S
from probes.child import wait_until
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.kubernetes_api import DEADLINE_S
from tests.experiments.kube.tls_api import TlsApi

DEAD_MAN = DeadMan(namespace="overproof", image="python")


def aim_at(cluster: Cluster) -> Aim:
    return Aim(name="inference", cluster=cluster, seed=1, run="20261121T000000Z-gameday-0001")


def captured(
    cluster: Cluster, kind: str = HANG, *, for_s: float = 25.0, delay_ms: float = 200.0
) -> JsonObject:
    aim, name = aim_at(cluster), "api.slow" if kind == SLOW else "api.away"
    client, identity = aim.reach()
    delay = delay_ms if kind == SLOW else 0.0
    return capture_api(name, aim, client, identity, kind=kind, delay_ms=delay, for_s=for_s)


def inject(row: JsonObject, folder: Path) -> JsonObject:
    return inject_fault(load_fault(row["kube_fault"]), row, folder)


@pytest.mark.parametrize("kind", [HANG, REFUSE])
def test_away_is_seen_to_be_ours_alone_and_undone_by_an_answer(
    api: TlsApi, relay: RelayAt, tmp_path: Path, kind: str
) -> None:
    cluster = api.cluster()

    injected = inject(captured(cluster, kind), tmp_path)
    with pytest.raises(TargetError, match="no answer"):
        connect(cluster).ask("GET", "/api/v1/namespaces/inference", within_s=0.5)
    (undone,) = undo_pending(tmp_path, by="test")

    assert "no answer to us" in injected["verified"]
    assert "it answers others in" in injected["verified"]
    assert undone.is_restored
    assert undone.did.startswith("ended by us; the API answers in ")
    assert relay.tell("GET")["kind"] == PASS


def test_slow_is_seen_to_be_slow_and_everything_still_comes(
    api: TlsApi, relay: RelayAt, tmp_path: Path
) -> None:
    injected = inject(captured(api.cluster(), SLOW), tmp_path)
    during = relay.tell("GET")["kind"]
    (undone,) = undo_pending(tmp_path, by="test")

    assert "the API answers us in" in injected["verified"]
    assert during == SLOW
    assert undone.is_restored


def test_what_its_own_clock_has_ended_was_undone_then(api: TlsApi, relay: RelayAt) -> None:
    row, fault = captured(api.cluster(), REFUSE, for_s=0.5), load_fault("api.away")
    fault.inject(row)
    assert wait_until(lambda: relay.tell("GET")["kind"] == PASS, timeout_s=30)
    ended_ns = int(relay.tell("GET")["ended_ns"])

    before_ns = time.time_ns()
    undone = fault.undo(row)
    after_ns = time.time_ns()

    assert undone.did.startswith("ended by its timer")
    assert (undone.is_restored, undone.has_acted) == (True, False)
    assert (before_ns - ended_ns) / 1e9 <= undone.ago_s <= (after_ns - ended_ns) / 1e9


@pytest.mark.usefixtures("relay")
def test_an_api_that_is_away_for_everybody_is_none_of_our_doing(api: TlsApi, tmp_path: Path) -> None:
    row = captured(api.cluster(), REFUSE)
    fault = load_fault("api.away")
    fault.recheck(row)
    fault.inject(row)
    api.end()

    seen = fault.verify(row)

    assert not seen.is_verified
    assert "away for others too" in seen.observed
    with pytest.raises(TargetError, match="no answer"):
        fault.undo(row)


def test_a_relay_that_hears_nothing_is_not_undone_and_once_it_is_gone_it_is(
    api: TlsApi, relay: RelayAt, tmp_path: Path
) -> None:
    inject(captured(api.cluster()), tmp_path)
    os.kill(relay.pid, signal.SIGSTOP)
    try:
        (stuck,) = undo_pending(tmp_path, by="test")
    finally:
        os.kill(relay.pid, signal.SIGKILL)
    assert wait_until(lambda: not relay.is_running, timeout_s=10)
    (undone,) = undo_pending(tmp_path, by="test")

    assert not stuck.is_restored
    assert "no answer" in stuck.did
    assert undone.is_restored
    assert "the relay is gone" in undone.did


def test_armed_and_never_injected_is_nothing_to_undo(api: TlsApi, relay: RelayAt) -> None:
    undone = load_fault("api.away").undo(captured(api.cluster()))

    assert relay.is_running
    assert (undone.is_restored, undone.has_acted) == (True, False)
    assert "nothing was in our way" in undone.did


@pytest.mark.usefixtures("relay")
def test_on_another_machine_only_its_time_tells_that_it_is_over(api: TlsApi) -> None:
    row, fault = captured(api.cluster()), load_fault("api.away")
    row["at"]["host"] = "other-machine"

    with pytest.raises(TargetError, match="a relay on other-machine was in its way: over by itself in"):
        fault.undo(row)
    row["at"]["over_ns"] = time.time_ns()
    undone = fault.undo(row)

    assert (undone.is_restored, undone.is_seen) == (True, False)


def test_without_a_relay_of_this_day_nothing_is_injected(api: TlsApi, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="no relay to the API is known"):
        inject(captured(api.cluster()), tmp_path)


@pytest.mark.parametrize(
    ("action", "arguments", "more", "said"),
    [
        ("api_away", {"for_s": LOCK_BEARS_S + 1}, {}, "at most 30: the day's lock is another's 60 s"),
        (
            "api_away",
            {"for_s": 9},
            {"dead_man": DEAD_MAN},
            "at most 8: the dead-man counts us as gone after 20",
        ),
        ("api_away", {"for_s": 0}, {}, "for_s: wanted more than 0"),
        ("api_away", {"how": "melt"}, {}, "wanted hang or refuse"),
        ("api_slow", {"delay_ms": 1001}, {}, "delay_ms: wanted more than 0, at most 1000"),
        ("api_slow", {"delay_ms": 0}, {}, "delay_ms: wanted more than 0"),
        ("api_slow", {"for_s": 601}, {}, "at most 600"),
    ],
)
def test_what_is_too_long_or_unknown_is_refused_in_the_plan(
    api: TlsApi, action: str, arguments: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    with (
        aiming_at(aim_at(api.cluster(**more))),
        planning() as found,
        pytest.raises(FaultRefused, match=said),
    ):
        getattr(api_actions, action)(**arguments)

    assert found == []


def test_a_plan_says_who_ends_it_and_that_nobody_else_is_hit(api: TlsApi) -> None:
    with aiming_at(aim_at(api.cluster(dead_man=DEAD_MAN))), planning() as found:
        api_actions.api_away(for_s=8)

    ((fault, row),) = found
    carries = " ".join(row["carries"])
    assert (fault.name, row["at_once"]) == ("api.away", 0)
    assert "nobody else is touched" in carries
    assert "after 8 s by its own clock" in carries
    assert "counts as unseen" in carries


def test_an_api_without_tls_or_behind_a_proxy_is_refused(
    api: TlsApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tmp_path / "plain"
    plain.write_text(Path(api.cluster().kubeconfig).read_text().replace("https://", "http://"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    behind = why_no_way(api.cluster(name="behind"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    beside = why_no_way(api.cluster(name="beside"))

    assert "without TLS" in why_no_way(Cluster(namespaces=("inference",), kubeconfig=str(plain)))
    assert "by a proxy already, http://127.0.0.1:9" in behind
    assert beside == ""


def test_lock_and_dead_man_bear_the_longest_that_a_plan_takes() -> None:
    """Cut off right before a renewal; then one that was held takes its whole deadline, and the next too."""
    call_s = 5.0  # far more than a renewal takes where nothing is in its way

    assert BEAT_EVERY_S + DEAD_MAN_BEARS_S + BEAT_EVERY_S + call_s < LEASE_S
    assert RENEW_EVERY_S + LOCK_BEARS_S + DEADLINE_S + RENEW_EVERY_S + DEADLINE_S <= LOCK_S
