"""How long a kubelet may wait before it starts a container again."""

from __future__ import annotations

import datetime

import pytest

from experiments.kube.containers.back_off import back_off_s
from experiments.kube.nodes.clocks import check_recovery
from probes.errors import ConfigError

NOW = datetime.datetime(2026, 11, 21, 10, 30, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("restarts", "ran_s", "waits_s"),
    [
        pytest.param(0, 5, 0, id="never started anew"),
        pytest.param(1, 4, 6, id="the first time: ten seconds since its start"),
        pytest.param(4, 60, 20, id="eighty seconds, of which it has run sixty"),
        pytest.param(4, 80, 0, id="it has run as long"),
        pytest.param(9000, 0, 300, id="never more than five minutes"),
        pytest.param(9000, 600, 0, id="forgotten after ten"),
        pytest.param(2, -30, 20, id="its node's clock is ahead of ours"),
    ],
)
def test_a_container_that_ends_soon_after_it_was_started_anew_waits(
    restarts: int, ran_s: float, waits_s: float
) -> None:
    began = (NOW - datetime.timedelta(seconds=ran_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"restartCount": restarts, "state": {"running": {"startedAt": began}}}

    assert back_off_s(status, NOW) == waits_s


def test_a_container_whose_start_is_not_told_does_not_wait() -> None:
    assert back_off_s({"restartCount": 3, "state": {"waiting": {"reason": "x"}}}, NOW) == 0


def test_a_day_that_would_measure_the_back_off_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"recovery_s: 60 s.*may wait 61 s"):
        check_recovery({"back_off_s": 61.0}, 60)
    check_recovery({"back_off_s": 20.0}, 60)
