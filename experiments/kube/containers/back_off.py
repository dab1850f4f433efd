"""The back-off of a kubelet: how long it may wait before it starts a container again.

It doubles with each start and is forgotten once a container has run long enough (``CrashLoopBackOff``). The
API shows how often it was started anew and when last, so this is the most that it may be.
"""

from __future__ import annotations

import datetime

from experiments.kube.pods.pod import moment
from probes.json_types import JsonObject

FIRST_S, MOST_S = 10.0, 300.0
FORGOTTEN_S = 2 * MOST_S
_DOUBLED_MAX = 5  # from then on it is the most that it can be


def back_off_s(status: JsonObject, now: datetime.datetime) -> float:
    """Return the seconds that a container, by its status in the API, may wait if it ended now."""
    restarts = int(status["restartCount"])
    began = ((status.get("state") or {}).get("running") or {}).get("startedAt")
    if not restarts or not began:
        return 0.0
    ran_s = max(0.0, (now - moment(began)).total_seconds())
    wait_s = min(MOST_S, FIRST_S * 2 ** min(restarts - 1, _DOUBLED_MAX))
    return max(0.0, wait_s - ran_s) if ran_s < FORGOTTEN_S else 0.0
