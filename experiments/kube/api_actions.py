"""Actions for Chaos Toolkit on our own way to the API of the cluster: slow, or away, for nobody but this day.

An action is named like its fault, ``api_away`` for ``api.away``; rollback and probes are those of
``experiments.kube.actions``.
"""

from __future__ import annotations

from experiments.kube.api.faults import capture_api
from experiments.kube.api.relay import HANG, SLOW
from experiments.kube.choosing.aim import aim_now
from experiments.kube.inject import inject
from probes.json_types import JsonObject


def api_slow(delay_ms: float = 700.0, for_s: float = 60.0) -> JsonObject:
    """Deliver everything between this game day and the API ``delay_ms`` later, in each direction.

    It ends by itself after ``for_s``.
    """
    aim = aim_now()
    client, identity = aim.reach()
    captured = capture_api("api.slow", aim, client, identity, kind=SLOW, delay_ms=delay_ms, for_s=for_s)
    return inject("api.slow", captured)


def api_away(how: str = HANG, for_s: float = 25.0) -> JsonObject:
    """Cut this game day off from the API: ``how`` hang, nothing comes back, or refuse.

    It ends by itself after ``for_s``: no longer than the day's lock, and its dead-man, bear.
    """
    aim = aim_now()
    client, identity = aim.reach()
    captured = capture_api("api.away", aim, client, identity, kind=how, delay_ms=0.0, for_s=for_s)
    return inject("api.away", captured)
