"""Which requests a fault hits: the stated share, and the same ones for the same seed."""

from __future__ import annotations

import pytest

from loadtests.endpoint.misbehaviour import Misbehaviour, choose, parse_misbehaviour
from probes.errors import ConfigError


def test_a_kind_without_a_share_hits_every_request() -> None:
    assert parse_misbehaviour("cut") == Misbehaviour(kind="cut", share=1.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [("cuts:0.1", "one of slow, cut"), ("cut:2", "between 0 and 1"), ("cut:x", "'x'"), ("cut:1@9", "load")],
)
def test_a_mistyped_fault_is_refused_with_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_misbehaviour(text)


def test_a_fault_above_a_load_leaves_every_request_below_it_alone() -> None:
    faults = [parse_misbehaviour("wrong:0.5@0.8"), parse_misbehaviour("cut:0.1")]

    busy = [choose(faults, seed=7, number=number, load=0.81) for number in range(1000)]
    calm = [choose(faults, seed=7, number=number, load=0.8) for number in range(1000)]

    assert busy.count("wrong") / 1000 == pytest.approx(0.5, abs=0.05)
    assert calm.count("wrong") == 0
    assert calm.count("cut") == busy.count("cut") > 0


def test_the_same_seed_hits_the_same_requests_in_the_stated_shares() -> None:
    faults = [Misbehaviour(kind="cut", share=0.2), Misbehaviour(kind="error", share=0.1)]

    hit = [choose(faults, seed=7, number=number) for number in range(4000)]

    assert hit == [choose(faults, seed=7, number=number) for number in range(4000)]
    assert hit != [choose(faults, seed=8, number=number) for number in range(4000)]
    assert hit.count("cut") / 4000 == pytest.approx(0.2, abs=0.03)
    assert hit.count("error") / 4000 == pytest.approx(0.1, abs=0.03)
