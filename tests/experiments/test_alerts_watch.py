"""Asking Alertmanager: a real one, and ones that misbehave; none of them stops or slows a game day."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from experiments.alerts.noticed import GONE_EVENT, SEEN_EVENT, SERIES, Alerts, AlertsSeen, find_fired
from experiments.alerts.watch import AlertWatch, ask, look_at_alerts, read_authorization
from probes.child import wait_until
from probes.errors import ConfigError
from reports.record import create_run
from reports.run import load_run
from reports.table import read_series
from tests.experiments.alertmanagers import PROGRAM, post_alert, running_alertmanager
from tests.loadtests.endpoints import raw_server

DOWN = ('alertname="Down"',)
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_alertmanager(tmp_path_factory.mktemp("site")) as url:
        yield url


@pytest.mark.needs(PROGRAM)
def test_what_alertmanager_says_of_a_fault_is_on_the_timeline_with_its_start(
    site: str, tmp_path: Path
) -> None:
    wanted = Alerts(
        url=site, filters=('alertname="Down"', 'severity=~"page|ticket"'), within_s=20, every_s=0.2
    )
    post_alert(site, "Down", severity="page", replica="before")
    with create_run(tmp_path, kind="gameday", spec={}, seed=1) as writer:
        watch = AlertWatch(wanted, writer)
        watch.start()
        assert wait_until((writer.path / f"series/{SERIES}.ndjson").exists, timeout_s=20)
        time.sleep(1.2)  # answers on both sides of a turn of the second bound the clock
        t_inject_ns = time.time_ns()
        assert watch.detection(t_inject_ns) is None
        assert watch.is_worth_waiting_for(t_inject_ns)
        time.sleep(1.0)
        post_alert(site, "Down", severity="none", replica="other")
        post_alert(site, "Other", severity="page")
        t_post_ns = time.time_ns()
        post_alert(site, "Down", severity="page", replica="hit")
        t_posted_ns = time.time_ns()
        assert wait_until(lambda: watch.detection(t_inject_ns) is not None, timeout_s=20)
        watch.stop()
    run = load_run(writer.path)
    seen = [event.data["labels"]["replica"] for event in run.events_of(SEEN_EVENT)]
    detection = watch.detection(t_inject_ns)

    assert seen == ["before", "hit"]
    assert detection is not None
    assert detection.by == "the site's alert Down (replica=hit, severity=page)"
    assert t_post_ns - 1.2e9 < detection.t_ns < t_posted_ns + 1.2e9
    assert not watch.is_worth_waiting_for(t_inject_ns)
    assert all(row["is_answered"] for row in read_series(run, SERIES))


@pytest.mark.needs(PROGRAM)
def test_a_plan_sees_whether_alertmanager_answers_and_what_fires_already(site: str) -> None:
    quiet = look_at_alerts(Alerts(url=site, filters=('alertname="Never"',), within_s=5))
    post_alert(site, "Loud")
    loud = look_at_alerts(Alerts(url=site, filters=('alertname="Loud"',), within_s=5))
    wrong = look_at_alerts(Alerts(url=site, filters=('alertname==="x"',), within_s=5))
    dead = look_at_alerts(Alerts(url=NOBODY, filters=DOWN, within_s=5))

    assert (quiet.is_met, loud.is_met, wrong.is_met, dead.is_met) == (True, False, False, False)
    assert "Loud fires already" in loud.observed
    assert "HTTP 400" in wrong.observed
    assert "Connection refused" in dead.observed


def reply(body: bytes, *, status: str = "200 OK", date: str | None = None, pause_s: float = 0.0) -> bytes:
    told = f"Date: {formatdate(usegmt=True) if date is None else date}\r\n" if date != "" else ""
    return f"HTTP/1.1 {status}\r\n{told}Content-Length: {len(body)}\r\n\r\n".encode() + body


def saying(data: bytes, *, pause_s: float = 0.0) -> Callable[[socket.socket], None]:
    """Send an answer, byte by byte where there is a pause."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65_536)
        for piece in [data[i : i + 1] for i in range(len(data))] if pause_s else [data]:
            connection.sendall(piece)
            time.sleep(pause_s)

    return behave


ALERT = (
    b'{"fingerprint": "f", "labels": {"alertname": "Down"}, "startsAt": "2026-11-21T12:00:00.123456789Z",'
    b' "status": {"state": "active"}}'
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "without response"),
        (b"SSH-2.0-OpenSSH\r\n", "SSH-2.0"),
        (reply(b"busy", status="500 No"), "HTTP 500: busy"),
        (reply(b"", status="302 Found"), "HTTP 302"),
        (reply(b"<html>sign in</html>"), "no list of alerts"),
        (reply(b'{"status": "success", "data": []}'), "no list of alerts"),
        (reply(b"[1, 2]"), "no list of alerts"),
        (reply(b"[" * 100_000), "no list of alerts"),
        (reply(b"[" + ALERT.replace(b"2026-11-21T", b"yesterday ") + b"]"), "no list of alerts"),
        (reply(b"[" + ALERT.replace(b"789Z", b"789") + b"]"), "without a time zone"),
        (reply(b"[]", date=""), "without a Date"),
        (reply(b"[]", date="noon"), "without a Date"),
        (reply(b"[" + b" " * 9_000_000 + b"]"), "more than 8388608 bytes"),
    ],
    ids=[str(number) for number in range(13)],
)
def test_an_answer_that_is_none_says_why(data: bytes, said: str) -> None:
    with raw_server(saying(data)) as port, pytest.raises(ValueError, match=said):
        ask(Alerts(url=f"http://127.0.0.1:{port}", filters=DOWN, within_s=5), {})


@pytest.mark.parametrize(
    "behave", [saying(reply(b"[]"), pause_s=0.05), lambda connection: time.sleep(1.5)], ids=["drips", "hangs"]
)
def test_one_that_is_slow_takes_its_time_out_and_no_more(behave: Callable[[socket.socket], None]) -> None:
    began = time.monotonic()
    with raw_server(behave) as port, pytest.raises(ValueError, match=r"not within 0\.5 s"):
        ask(Alerts(url=f"http://127.0.0.1:{port}", filters=DOWN, within_s=5, timeout_s=0.5), {})

    assert time.monotonic() - began < 8


def test_one_that_dies_and_comes_back_is_noted_once_each_and_stops_nothing(tmp_path: Path) -> None:
    answers = [reply(b"[" + ALERT + b"]"), b"", b"", reply(b"[]"), reply(b"[]")]

    def behave(connection: socket.socket) -> None:
        saying(answers.pop(0) if len(answers) > 1 else answers[0])(connection)

    with (
        raw_server(behave) as port,
        create_run(tmp_path, kind="gameday", spec={}, seed=1) as writer,
    ):
        url = f"http://127.0.0.1:{port}"
        watch = AlertWatch(Alerts(url=url, filters=DOWN, within_s=5, every_s=0.2), writer)
        watch.start()
        wait_until(lambda: len(load_run(writer.path).events) >= 4, timeout_s=30)
        watch.stop()
    events = load_run(writer.path).events

    assert watch.error is None
    assert [event.kind for event in events] == [SEEN_EVENT, "alerts.silent", "alerts.heard", GONE_EVENT]
    assert events[0].data["starts_at_ns"] % 1_000_000_000 == 123_456_000


def test_a_watch_that_is_never_answered_ends_when_it_is_told_to(tmp_path: Path) -> None:
    wanted = Alerts(url=NOBODY, filters=DOWN, within_s=60, every_s=0.2)
    with create_run(tmp_path, kind="gameday", spec={}, seed=1) as writer:
        watch = AlertWatch(wanted, writer)
        watch.start()
        assert wait_until((writer.path / f"series/{SERIES}.ndjson").exists, timeout_s=20)
        is_waited_for = watch.is_worth_waiting_for(time.time_ns())
        began = time.monotonic()
        watch.stop()
        took_s = time.monotonic() - began
    rows = tuple(read_series(load_run(writer.path), SERIES))

    assert not is_waited_for
    assert took_s < 3
    assert {row["is_answered"] for row in rows} == {False}
    assert find_fired(AlertsSeen(wanted=wanted, rows=rows, alerts=()), 0) == []


def test_the_secret_is_sent_and_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []

    def behave(connection: socket.socket) -> None:
        heard.append(connection.recv(65_536))
        connection.sendall(reply(b"who are you", status="401 Unauthorized"))

    monkeypatch.setenv("SITE_ALERTS", "Bearer s3cret")
    with raw_server(behave) as port, create_run(tmp_path, kind="gameday", spec={}, seed=1) as writer:
        wanted = Alerts(
            url=f"http://127.0.0.1:{port}", filters=DOWN, within_s=5, authorization_env="SITE_ALERTS"
        )
        watch = AlertWatch(wanted, writer)
        watch.start()
        assert wait_until(lambda: bool(load_run(writer.path).events), timeout_s=20)
        watch.stop()
    written = b"".join(path.read_bytes() for path in writer.path.rglob("*") if path.is_file())

    assert b"Authorization: Bearer s3cret\r\n" in heard[0]
    assert b"HTTP 401" in written
    assert b"s3cret" not in written

    monkeypatch.delenv("SITE_ALERTS")
    with pytest.raises(ConfigError, match="SITE_ALERTS, which is not set"):
        read_authorization(wanted)
    assert not look_at_alerts(wanted).is_met
