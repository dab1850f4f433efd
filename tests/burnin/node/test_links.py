"""Rules on links, and what NCCL says it used."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from burnin.node.nccl_log import read_transports
from burnin.rules.transfer import judge_common_end, judge_link
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome


def _results(one: str, other: str, *, wrong: int = 0) -> list[JsonObject]:
    return [
        {
            "receiver": receiver,
            "phase": "together",
            "way": way,
            "gbps": 300.0,
            "transports": ["P2P/CUMEM"],
            "backend": "nccl",
            "miscompared_words": wrong,
        }
        for way, receivers in (
            ("first to second", [other]),
            ("second to first", [one]),
            ("both ways", [one, other]),
        )
        for receiver in receivers
    ]


def _judge(one: str = "a", other: str = "b", **changes: Any) -> Finding:
    given: dict[str, Any] = {
        "devices": (one, other),
        "results": _results(one, other),
        "miscompares": [],
        "skipped": [],
        "failures": [],
        "phases": ["together"],
    }
    return judge_link(f"{one}-{other}", **(given | changes))


def test_a_link_that_brought_every_word_passes_with_its_rate_and_transport() -> None:
    found = _judge()

    assert (found.outcome, found.subject) == (Outcome.PASS, "link:a-b")
    assert found.observed == "300 GB/s one way (P2P/CUMEM); every word right"


def test_a_direction_or_a_phase_that_is_missing_leaves_the_link_undecided() -> None:
    for index in range(4):
        results = _results("a", "b")
        del results[index]
        assert _judge(results=results).outcome is Outcome.INCONCLUSIVE
    assert _judge(phases=["alone", "together"]).outcome is Outcome.INCONCLUSIVE


def test_a_skipped_or_broken_off_exchange_says_why() -> None:
    skipped = _judge(results=[], skipped=[{"reason": "one of them was gone"}])
    broken = _judge(results=[], failures=["connection closed by peer"])

    assert (skipped.outcome, skipped.observed) == (
        Outcome.INCONCLUSIVE,
        "not exchanged: one of them was gone",
    )
    assert broken.outcome is Outcome.INCONCLUSIVE
    assert "connection closed by peer" in broken.observed


def test_one_wrong_word_fails_the_link_and_names_who_sent_it() -> None:
    miscompare = {
        "elements": 1,
        "format": "first to second",
        "addresses": [64],
        "patterns": ["0x10"],
        "period": None,
        "sender": "a",
    }
    found = _judge(results=_results("a", "b", wrong=1)[:1], miscompares=[miscompare])

    assert found.outcome is Outcome.FAIL
    assert found.observed.endswith("first at byte 64, bits 0x10, sent from a")


def _links(failing: set[tuple[str, str]], devices: str = "abcd") -> list[Finding]:
    return [
        _judge(one, other, results=_results(one, other, wrong=int((one, other) in failing)))
        for one, other in combinations(devices, 2)
    ]


def test_the_device_that_all_failing_links_have_in_common_is_accused() -> None:
    (found,) = judge_common_end(_links({("a", "c"), ("b", "c"), ("c", "d")}))

    assert (found.outcome, found.subject) == (Outcome.FAIL, "device:c")


def test_no_device_is_accused_for_one_link_for_some_of_its_links_or_without_failure() -> None:
    assert judge_common_end(_links({("a", "c")})) == []
    assert judge_common_end(_links({("a", "c"), ("b", "c")})) == []
    assert judge_common_end(_links(set())) == []
    assert judge_common_end(_links({("a", "b")}, devices="ab")) == []
    assert judge_common_end(_links(set(combinations("abcd", 2)))) == []


def test_the_transport_of_each_channel_is_read_from_nccls_log() -> None:
    log = (
        "node-1:77:99 [0] NCCL INFO NCCL version 2.26.2+cuda12.8\n"
        "node-1:77:99 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read\n"
        "node-1:77:99 [0] NCCL INFO Channel 01/0 : 0[0] -> 1[1] via P2P/CUMEM/read\n"
        "node-1:77:99 [0] NCCL INFO Channel 00 : 1[1] -> 0[0] via SHM/direct/direct\n"
        "node-1:77:99 [0] NCCL INFO Channel 00/0 : 0[0] -> 8[0] [send] via NET/IB/0\n"
    )

    assert read_transports(log) == ["NET/IB/0", "P2P/CUMEM/read", "SHM/direct/direct"]
    assert read_transports("nothing of the kind") == []
