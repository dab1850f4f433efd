"""A probe for the method of any Chaos Toolkit experiment: live traffic is good again in time."""

from __future__ import annotations

import logging
import time

from experiments.impact.recovery import GOOD_IN_A_ROW, WINDOW_NS, cut_windows
from probes.errors import TargetError
from probes.json_types import JsonObject
from probes.live_load import Stretch, find_load
from probes.slo import Slo
from probes.slo_probes import POLL_S, promises

_LONGEST_ANSWER_S = 60.0  # how far back requests are looked for that may still be under way in a window
_logger = logging.getLogger("chaostoolkit")


def traffic_recovers(
    within_s: float,
    slos: list[JsonObject] | None = None,
    settle_s: float = 2.0,
    run: str = "",
    out: str = "runs",
) -> bool:
    """Wait, at most so long, until live traffic is good in several seconds in a row; say whether it is.

    A second is good as in the verdict of a game day: no more of the requests under way in it were bad than
    the promises allow. As long as an older request is under way without an answer, nothing has recovered.

    Raises:
        TargetError: no load test says anything, or there was no traffic in the end.
    """
    began = time.monotonic()
    load = find_load(run, out)
    wanted = promises(slos, load)
    while True:
        stretch = load.read(window_s=_LONGEST_ANSWER_S, settle_s=settle_s)
        if _is_good(stretch, wanted):
            return True
        if time.monotonic() - began >= within_s + settle_s:
            break
        time.sleep(POLL_S)
    last_ns = stretch.end_ns - GOOD_IN_A_ROW * WINDOW_NS
    if not any(request.t_intended_ns >= last_ns for request in stretch.requests):
        raise TargetError(
            f"load test {load.folder}: no request was due in the last seconds; nothing is shown"
        )
    _logger.warning("traffic_recovers: not good again within %g s", within_s)
    return False


def _is_good(stretch: Stretch, slos: tuple[Slo, ...]) -> bool:
    start_ns = stretch.end_ns - GOOD_IN_A_ROW * WINDOW_NS
    windows = cut_windows(stretch.requests, slos, start_ns=start_ns, end_ns=stretch.end_ns)
    return not stretch.under_way and all(window.is_good for window in windows)
