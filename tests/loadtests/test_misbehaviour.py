"""Which requests a fault hits: the stated share, and the same ones for the same seed."""

from __future__ import annotations

import pytest

from loadtests.misbehaviour import Misbehaviour, choose, parse_misbehaviour
from probes.errors import ConfigError


def test_a_kind_without_a_share_hits_every_request() -> None:
    assert parse_misbehaviour("cut") == Misbehaviour(kind="cut", share=1.0)


@pytest.mark.parametrize(
    ("text", "said"), [("cuts:0.1", "one of slow, cut"), ("cut:2", "between 0 and 1"), ("cut:x", "'x'")]
)
def test_a_mistyped_fault_is_refused_with_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_misbehaviour(text)


def test_the_same_seed_hits_the_same_requests_in_the_stated_shares() -> None:
    faults = [Misbehaviour(kind="cut", share=0.2), Misbehaviour(kind="error", share=0.1)]

    hit = [choose(faults, seed=7, number=number) for number in range(4000)]

    assert hit == [choose(faults, seed=7, number=number) for number in range(4000)]
    assert hit != [choose(faults, seed=8, number=number) for number in range(4000)]
    assert hit.count("cut") / 4000 == pytest.approx(0.2, abs=0.03)
    assert hit.count("error") / 4000 == pytest.approx(0.1, abs=0.03)
