"""The lock of a namespace: who has it, who is told so, and when another may take it."""

from __future__ import annotations

import datetime

import pytest

from experiments.faults.fault import FaultRefused
from experiments.kube.lock import LOCK_S, ClusterLock, check_lock, lock_path, look_at_lock
from probes.errors import ConfigError, TargetError
from probes.json_types import JsonObject
from tests.experiments.kube.fake_api import FakeApi

OURS, THEIRS = "20261121T000000Z-gameday-0001", "20261121T000000Z-gameday-0002"
SPACE = "inference"


def lock(
    api: FakeApi, run: str, *, spaces: tuple[str, ...] = (SPACE,), slept: list[float] | None = None
) -> ClusterLock:
    return ClusterLock(api, spaces, run, sleep=(slept if slept is not None else []).append)


def spec(api: FakeApi, space: str = SPACE) -> JsonObject:
    return api.objects[lock_path(space)]["spec"]


def make_old(api: FakeApi, *, seconds: float) -> None:
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    spec(api)["renewTime"] = then.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_a_second_game_day_is_told_who_has_the_namespace_and_changes_nothing() -> None:
    api = FakeApi()
    first = lock(api, OURS)
    first.take()
    before = dict(spec(api))

    with pytest.raises(ConfigError, match=rf"namespace {SPACE}: game day {OURS} on .*, process .* has it"):
        lock(api, THEIRS).take()

    assert spec(api) == before
    assert OURS in look_at_lock(api, SPACE)
    first.release()
    assert api.objects == {}
    assert look_at_lock(api, SPACE) == ""


def test_of_two_namespaces_none_is_kept_where_one_is_taken() -> None:
    api = FakeApi()
    theirs = lock(api, THEIRS, spaces=("b",))
    theirs.take()
    ours = lock(api, OURS, spaces=("a", "b"))

    with pytest.raises(ConfigError, match="namespace b"):
        ours.take()
    ours.release()

    assert [*api.objects] == [lock_path("b")]
    theirs.release()


def test_one_who_is_silent_for_longer_than_promised_loses_it_and_is_told() -> None:
    api = FakeApi()
    slept: list[float] = []
    gone = lock(api, THEIRS)
    gone.take()
    make_old(api, seconds=LOCK_S + 5)

    ours = lock(api, OURS, slept=slept)
    ours.take()
    gone.renew()

    assert slept == [11.0]
    assert spec(api)["holderIdentity"].startswith(OURS)
    assert gone.lost.startswith(f"namespace {SPACE}: {OURS} on ")
    gone.release()
    assert lock_path(SPACE) in api.objects  # it is not theirs to remove any more
    ours.release()


def test_one_whose_clock_is_behind_ours_keeps_what_he_renews() -> None:
    api = FakeApi()
    theirs = lock(api, THEIRS)
    theirs.take()
    make_old(api, seconds=LOCK_S + 5)
    ours = ClusterLock(api, (SPACE,), OURS, sleep=lambda _: theirs.renew())

    with pytest.raises(ConfigError, match=f"game day {THEIRS}"):
        ours.take()

    assert spec(api)["holderIdentity"].startswith(THEIRS)
    theirs.release()


def test_nothing_is_broken_where_another_has_come_or_ours_is_too_old() -> None:
    api = FakeApi()
    ours = lock(api, OURS)
    ours.take()

    check_lock(api, [SPACE], OURS)
    with pytest.raises(FaultRefused, match=r"has it since .*; nothing is injected"):
        check_lock(api, [SPACE], THEIRS)
    make_old(api, seconds=LOCK_S - 5)
    with pytest.raises(FaultRefused, match="our own lock was not renewed for 55 s; nothing is injected"):
        check_lock(api, [SPACE], OURS)

    ours.release()


def test_a_lock_that_somebody_removes_is_lost() -> None:
    api = FakeApi()
    ours = lock(api, OURS)
    ours.take()
    del api.objects[lock_path(SPACE)]

    ours.renew()

    assert "somebody has removed our lock" in ours.lost
    ours.release()


def test_a_server_that_does_not_let_us_is_no_lock() -> None:
    api = FakeApi()
    api.refusals["POST"] = 403

    with pytest.raises(TargetError, match="says 403: refused; nothing is injected"):
        lock(api, OURS).take()
