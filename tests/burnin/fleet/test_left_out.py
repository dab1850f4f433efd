"""A fleet whose hosts exchanged nothing: shown where nobody wanted it, undecided otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnin.fleet.host import Fleet, Host
from burnin.fleet.left_out import LEFT_OUT, judge_no_network
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import load_run


@pytest.mark.parametrize(
    ("spec", "hosts", "reason", "outcome"),
    [
        ({}, 2, "1 of 2 hosts are able, and it takes two", Outcome.INCONCLUSIVE),
        ({}, 2, None, Outcome.INCONCLUSIVE),
        ({}, 1, "1 of 1 hosts are able, and it takes two", None),
        ({"together": {"network": False}}, 2, "it was not asked for", None),
    ],
)
def test_links_that_nothing_was_sent_over_are_not_known_to_be_good(
    spec: JsonObject, hosts: int, reason: str | None, outcome: Outcome | None, tmp_path: Path
) -> None:
    fleet = Fleet(name="f", hosts=tuple(Host(name=f"n{number}") for number in range(hosts)))
    with create_run(tmp_path, kind="fleet", spec=spec, seed=1) as writer:
        if reason is not None:
            writer.event("controller", LEFT_OUT, stage="network", reason=reason)
    (found,) = judge_no_network(load_run(writer.path), fleet)

    assert found.outcome is outcome
    assert found.observed == f"left out: {reason or 'the run ended before it'}"
    assert bool(found.next_step) == (outcome is Outcome.INCONCLUSIVE)
