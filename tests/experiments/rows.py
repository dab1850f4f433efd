"""Request rows and lab samples for tests, in seconds from the injection."""

from __future__ import annotations

from experiments.impact.recovery import FaultSeen
from probes.json_types import JsonObject
from probes.request import Request

T0_NS = 1_795_000_000_000_000_000  # the injection


def at(seconds: float) -> int:
    return T0_NS + round(seconds * 1e9)


def request(
    t_s: float, *, took_s: float = 0.2, error: str | None = None, replica: str = "replica-0"
) -> Request:
    """One request, due at ``t_s`` after the injection."""
    return Request(
        index=round(t_s * 1000),
        worker=0,
        endpoint="http://127.0.0.1:1",
        t_intended_ns=at(t_s),
        t_sent_ns=at(t_s),
        t_first_ns=at(t_s + took_s / 2),
        t_last_ns=at(t_s + took_s),
        t_end_ns=at(t_s + took_s),
        connect_ms=None,
        status=200,
        error=error,
        replica=replica,
    )


def traffic(from_s: float, to_s: float, *, every_s: float = 0.1, error: str | None = None) -> list[Request]:
    """Requests at an even rate."""
    count = round((to_s - from_s) / every_s)
    return [request(from_s + i * every_s, error=error) for i in range(count)]


def sample(
    t_s: float, name: str, pid: int | None, *, is_serving: bool = True, is_routed: bool | None = None
) -> JsonObject:
    """One sample of one replica; a replica's start time is ten times its pid."""
    return {
        "t_ns": at(t_s),
        "subject": f"replica:{name}",
        "pid": pid,
        "start_time": None if pid is None else pid * 10,
        "is_serving": is_serving,
        "is_routed": is_serving if is_routed is None else is_routed,
        "restarts": 0,
    }


def lab_samples(*, back_after_s: float | None = 4.0, until_s: float = 20.0) -> list[JsonObject]:
    """Samples of two replicas: replica-1, pid 11, is killed at 0 and back as pid 21 after a while."""
    rows: list[JsonObject] = []
    for tenth in range(-50, round(until_s * 10)):
        t_s = tenth / 10
        rows.append(sample(t_s, "replica-0", 10))
        if t_s < 0:
            rows.append(sample(t_s, "replica-1", 11))
        elif back_after_s is None or t_s < back_after_s:
            rows.append(sample(t_s, "replica-1", None, is_serving=False, is_routed=t_s < 0.3))
        else:
            rows.append(sample(t_s, "replica-1", 21))
    return rows


CAPTURED: JsonObject = {
    "victims": [{"name": "replica-1", "pid": 11, "start_time": 110}],
    "others": [{"name": "replica-0", "pid": 10, "start_time": 100}],
}


def fault(
    *,
    t_s: float = 0.0,
    ends_by: str = "platform",
    undone_s: float | None = 10.0,
    is_verified: bool = True,
    captured: JsonObject = CAPTURED,
) -> FaultSeen:
    """A fault as the record has it; without more the killing of replica-1."""
    names = "+".join(victim["name"] for victim in captured["victims"])
    return FaultSeen(
        data={
            "id": "f1",
            "fault": "replica.kill",
            "subject": f"replica:{names}",
            "ends_by": ends_by,
            "t_inject_ns": at(t_s),
        },
        captured=captured,
        is_verified=is_verified,
        observed="replica:replica-1: pid 11 is gone",
        t_undone_ns=None if undone_s is None else at(undone_s),
    )
