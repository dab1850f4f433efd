"""What is sent when, over real sockets: chains of requests, clients that leave, a server that stalls."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import gevent
import pytest

from loadtests.plan import LoadPlan
from loadtests.sending.dispatcher import Dispatcher, make_target
from loadtests.sending.sessions import FAILED_PAUSE_S, judge_chains
from loadtests.spec.workload import WorkloadSpec
from loadtests.traffic.prompt_scale import find_scale
from probes.finding import Finding
from probes.metric import METRICS, late_ms
from probes.outcome import Outcome
from probes.request import Request
from probes.slo import Slo, judge_slo
from probes.traffic import judge_errors
from tests.loadtests.endpoints import RunningEndpoint, endpoint, raw_server

SEED = 4
ANSWER = b"".join(
    b"data: " + json.dumps(event).encode() + b"\n\n"
    for event in (
        {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    )
)
ANSWER += b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def running() -> Iterator[RunningEndpoint]:
    with endpoint("--decode-step-ms", "4", "--slots", "64") as started:
        yield started


def plan(url: str, path: Path, **keys: object) -> LoadPlan:
    data: dict[str, object] = {
        "name": "t",
        "duration_s": 1.0,
        "prompt": {
            "input_tokens": {"kind": "constant", "value": 40},
            "output_tokens": {"kind": "constant", "value": 8},
        },
        "endpoint": {"timeout_s": 10},
    }
    spec = WorkloadSpec.model_validate(data | keys)
    return LoadPlan(run=path, spec=spec, seed=SEED, url=url, model="m")


def drive(plan: LoadPlan, *, worker: int = 0, workers: int = 1) -> tuple[list[Request], int, Dispatcher]:
    rows: list[Request] = []
    dispatcher = Dispatcher(plan, make_target(plan, headers={}), rows.append, worker=worker, workers=workers)
    t0_ns = time.time_ns() + 20_000_000
    dispatcher.walk(t0_ns=t0_ns)
    dispatcher.drain(timeout_s=10)
    dispatcher.polls.close()
    return sorted(rows, key=lambda row: row.index), t0_ns, dispatcher


def judged(plan: LoadPlan, rows: list[Request], t0_ns: int) -> Finding:
    return judge_chains(
        plan.workload,
        rows,
        seed=SEED,
        t0_ns={0: t0_ns},
        is_early=False,
        has_ended=True,
        subject="client:load",
    )


CLOSED = {"kind": "closed", "users": 3, "think": {"kind": "exponential", "mean_s": 0.05}}


def test_a_user_of_a_closed_loop_asks_again_when_the_answer_has_ended_and_the_think_time_is_over(
    running: RunningEndpoint, tmp_path: Path
) -> None:
    wanted = plan(running.url, tmp_path, arrivals=CLOSED)

    rows, t0_ns, _ = drive(wanted)
    finding = judged(wanted, rows, t0_ns)

    assert {row.error for row in rows} == {None}
    assert {row.session for row in rows} == {0, 1, 2}
    assert len(rows) > 9
    assert sorted(late_ms(row) for row in rows)[len(rows) // 2] < 20
    assert finding.outcome is Outcome.PASS, finding.observed


@pytest.mark.parametrize("fault", ["lost", "last", "moved", "alien", "user"])
def test_a_chain_with_a_row_lost_moved_or_made_up_does_not_pass(
    running: RunningEndpoint, tmp_path: Path, fault: str
) -> None:
    wanted = plan(running.url, tmp_path, arrivals=CLOSED, duration_s=0.4)
    rows, t0_ns, _ = drive(wanted)
    assert judged(wanted, rows, t0_ns).outcome is Outcome.PASS
    last = max(row.index for row in rows if row.session == 0)

    broken = {
        "lost": [row for row in rows if row.index != 0],
        "last": [row for row in rows if row.index != last],
        "moved": [
            dataclasses.replace(row, t_intended_ns=row.t_intended_ns + 1) if row.index == 1 else row
            for row in rows
        ],
        "alien": [*rows, dataclasses.replace(rows[0], index=7_000_000)],
        "user": [row for row in rows if row.session != 2],
    }[fault]

    assert judged(wanted, broken, t0_ns).outcome is Outcome.INCONCLUSIVE


def bodies_of(received: list[bytes]) -> list[dict[str, object]]:
    return [json.loads(body) for body in received]


def read_request(connection: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return body


def answers(received: list[bytes], *, status: bytes = b"200 OK") -> object:
    def behave(connection: socket.socket) -> None:
        while (body := read_request(connection)) is not None:
            received.append(body)
            connection.sendall(HEAD.replace(b"200 OK", status) % len(ANSWER) + ANSWER)

    return behave


SESSIONS = {
    "arrivals": {"kind": "constant", "rate_per_s": 4},
    "session": {"turns": {"kind": "constant", "value": 3}, "think": {"mean_s": 0.05}},
}


def test_a_session_carries_what_was_said_and_its_next_turn_waits_for_the_answer(tmp_path: Path) -> None:
    received: list[bytes] = []
    with raw_server(answers(received)) as port:  # type: ignore[arg-type]
        wanted = plan(f"http://127.0.0.1:{port}", tmp_path, **SESSIONS)
        rows, t0_ns, _ = drive(wanted)
    first = [body for body in bodies_of(received) if "[4-0]" in json.dumps(body)]

    assert [(row.session, row.turn) for row in rows] == [(s, t) for s in range(4) for t in range(3)]
    assert rows[1].t_intended_ns - rows[0].t_end_ns == 50_000_000  # type: ignore[operator]
    assert rows[2].t_intended_ns - rows[1].t_end_ns == 50_000_000  # type: ignore[operator]
    assert [[m["role"] for m in body["messages"]] for body in first] == [  # type: ignore[attr-defined]
        ["user"],
        ["user", "assistant", "user"],
        ["user", "assistant", "user", "assistant", "user"],
    ]
    assert first[2]["messages"][:3] == first[1]["messages"]  # type: ignore[index]
    assert first[1]["messages"][1]["content"] == "x"  # type: ignore[index]
    assert judged(wanted, rows, t0_ns).outcome is Outcome.PASS


def test_a_failed_turn_ends_its_session_and_a_failing_closed_loop_does_not_hammer(tmp_path: Path) -> None:
    with raw_server(answers([], status=b"500 No")) as port:  # type: ignore[arg-type]
        url = f"http://127.0.0.1:{port}"
        sessions = plan(url, tmp_path, **SESSIONS)
        rows, t0_ns, _ = drive(sessions)
        closed = plan(url, tmp_path, arrivals={"kind": "closed", "users": 1})
        looped, _, _ = drive(closed)
    pauses_ns = [later.t_intended_ns - earlier.t_end_ns for earlier, later in pairwise(looped)]  # type: ignore[operator]

    assert [(row.turn, row.error) for row in rows] == [(0, "http_5xx")] * 4
    assert judged(sessions, rows, t0_ns).outcome is Outcome.PASS
    assert 2 <= len(looped) <= 10
    assert set(pauses_ns) == {round(FAILED_PAUSE_S * 1e9)}


def test_a_share_of_the_clients_leaves_after_some_events_and_is_neither_good_nor_failed(
    tmp_path: Path,
) -> None:
    with endpoint("--decode-step-ms", "150", "--slots", "64") as slow:  # no event comes with the next five
        wanted = plan(
            slow.url,
            tmp_path,
            arrivals={"kind": "constant", "rate_per_s": 40},
            hang_ups={"share": 0.5, "after_events": 3},
        )
        rows, _, dispatcher = drive(wanted)
    left = [row for row in rows if row.is_hung_up]
    finding = judge_errors(rows, slos=(), subject="endpoint:x")
    goodput = judge_slo(Slo(name="g", metric="goodput", objective=0.5), rows)

    assert 10 <= len(left) <= 30
    assert {row.error for row in left} == {"hung_up"}
    assert {row.error for row in rows if not row.is_hung_up} == {None}
    assert all(3 <= row.events < 8 for row in left)
    assert dispatcher.counts.failed == 0
    assert finding.outcome is Outcome.PASS
    assert f"{len(left)} more were hung up on purpose" in finding.observed
    assert goodput.evidence["total"] == 40 - len(left)


def test_who_leaves_before_any_content_came_was_not_served(tmp_path: Path) -> None:
    def silent(connection: socket.socket) -> None:
        read_request(connection)
        connection.recv(1)

    with raw_server(silent) as port:
        wanted = plan(
            f"http://127.0.0.1:{port}",
            tmp_path,
            arrivals={"kind": "constant", "rate_per_s": 5},
            hang_ups={"share": 1, "patience_s": 0.2},
        )
        rows, _, _ = drive(wanted)

    assert [row.error for row in rows] == ["gave_up"] * 5
    # Not by timeout_s, which is 10 s.
    assert all(150 < (row.t_end_ns - row.t_sent_ns) / 1e6 < 5000 for row in rows)  # type: ignore[operator]
    assert judge_errors(rows, slos=(), subject="endpoint:x").outcome is Outcome.FAIL


def test_a_server_that_stalls_for_three_seconds_shows_in_every_request_that_was_due_meanwhile(
    tmp_path: Path,
) -> None:
    came_s: list[float] = []  # the stall begins half a second after the first request
    answered_ns: dict[int, tuple[int, int]] = {}  # by index: no sooner and no later than

    def behave(connection: socket.socket) -> None:
        while (body := read_request(connection)) is not None:
            now_s = time.monotonic()
            came_s.append(now_s)
            since_s = now_s - came_s[0] - 0.5
            if 0 <= since_s < 3:
                time.sleep(3 - since_s)
            begun_ns = time.time_ns()
            connection.sendall(HEAD % len(ANSWER) + ANSWER)
            answered_ns[int(body.partition(b"[4-")[2].partition(b"]")[0])] = begun_ns, time.time_ns()

    with raw_server(behave) as port:
        wanted = plan(
            f"http://127.0.0.1:{port}",
            tmp_path,
            duration_s=4.0,
            arrivals={"kind": "constant", "rate_per_s": 20},
        )
        rows, _, _ = drive(wanted)
    waits = [METRICS["e2e_from_schedule_ms"].read(row)[0] for row in rows]

    assert len(rows) == 80
    assert {row.error for row in rows} == {None}
    # 60 requests were due in the stall and waited 3 s to 0 s: half of them more than 1.5 s.
    assert max(waits) > 2600
    assert sum(wait > 1500 for wait in waits) >= 24
    # And none is said to have waited for anything but its answer.
    for row, wait_ms in zip(rows, waits, strict=True):
        soonest_ms, latest_ms = ((at_ns - row.t_intended_ns) / 1e6 for at_ns in answered_ns[row.index])
        assert soonest_ms <= wait_ms <= latest_ms + 50
    assert sorted(late_ms(row) for row in rows)[40] < 20


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_together_send_what_one_would(tmp_path: Path, workers: int) -> None:
    together: list[bytes] = []
    alone: list[bytes] = []
    for received, count in ((together, workers), (alone, 1)):
        with raw_server(answers(received)) as port:  # type: ignore[arg-type]
            wanted = plan(
                f"http://127.0.0.1:{port}",
                tmp_path,
                arrivals={"kind": "poisson", "rate_per_s": 60},
                duration_s=0.5,
            )
            jobs = [gevent.spawn(drive, wanted, worker=k, workers=count) for k in range(count)]
            gevent.joinall(jobs, raise_error=True)

    assert len(alone) > 15
    assert sorted(together) == sorted(alone)


def test_prompts_are_as_long_as_asked_for_by_the_endpoints_own_count(
    running: RunningEndpoint, tmp_path: Path
) -> None:
    wanted = plan(running.url, tmp_path, arrivals={"kind": "constant", "rate_per_s": 20})

    found = find_scale(running.url, wanted.workload, wanted.workload.endpoint, model="m", seed=SEED)
    rows, _, _ = drive(dataclasses.replace(wanted, words=found.scale))

    assert (found.reason, found.found_tokens) == ("", found.wanted_tokens)
    assert {row.tokens_in for row in rows} == {40}


def test_without_usage_the_size_of_prompts_is_said_to_be_unknown(tmp_path: Path) -> None:
    def behave(connection: socket.socket) -> None:
        read_request(connection)
        body = b'{"choices": []}'
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )

    with raw_server(behave) as port:
        url = f"http://127.0.0.1:{port}"
        wanted = plan(url, tmp_path, arrivals={"kind": "constant", "rate_per_s": 20})
        found = find_scale(url, wanted.workload, wanted.workload.endpoint, model="m", seed=SEED)

    assert found.reason == "the endpoint's answers have no usage"
    assert found.found_tokens == ()
