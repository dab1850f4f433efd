"""The way that NCCL took between two GPUs, and links that are slower than their like."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path

import pytest

from burnin.judging import judge_run
from burnin.rules.link_figures import RATIO_MIN, judge_link_speed, judge_transport
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from tests.burnin.node_record import Node
from tests.twins.nvml import uuid

P2P = "P2P/CUMEM/read"


def _transport(*named: str, is_wired: bool | None = True, **settings: str) -> Finding:
    results: list[JsonObject] = [
        {"backend": "nccl", "transports": list(named), "nccl_settings": settings},
        {"backend": "nccl", "transports": []},  # named once, when the two connect
    ]
    return judge_transport("a-b", devices=("a", "b"), results=results, is_wired=is_wired)


def test_nvlink_that_nccl_did_not_take_fails_and_peer_to_peer_passes() -> None:
    for named in (["SHM/direct/direct"], ["NET/Socket/0"], [P2P, "SHM/direct/direct"]):
        assert _transport(*named).outcome is Outcome.FAIL
    assert _transport(P2P).outcome is Outcome.PASS
    assert _transport(P2P, is_wired=False).outcome is Outcome.PASS


def test_a_transport_that_the_log_does_not_name_leaves_the_link_undecided() -> None:
    assert _transport().outcome is Outcome.INCONCLUSIVE
    assert judge_transport("a-b", devices="ab", results=[], is_wired=False).outcome is Outcome.INCONCLUSIVE


def test_another_way_is_no_fault_without_nvlink_and_undecided_where_a_setting_asked_for_it() -> None:
    assert _transport("SHM/direct/direct", is_wired=False).outcome is None
    assert _transport("SHM/direct/direct", is_wired=None).outcome is Outcome.INCONCLUSIVE
    told = _transport("SHM/direct/direct", NCCL_P2P_DISABLE="1")
    assert (told.outcome, "NCCL_P2P_DISABLE=1" in told.observed) == (Outcome.INCONCLUSIVE, True)


def _speed(rate: float | None, others: list[float], *, is_wired: bool | None = True) -> Outcome | None:
    return judge_link_speed("a-b", devices="ab", rate=rate, others=others, is_wired=is_wired).outcome


def test_a_link_below_its_like_fails_and_one_that_was_not_measured_is_undecided() -> None:
    assert _speed(0.8 * 360, [360.0] * 27) is Outcome.FAIL
    assert _speed(0.9 * 360, [360.0] * 27) is Outcome.PASS
    assert _speed(float("nan"), [360.0] * 27) is Outcome.FAIL
    assert _speed(0.0, [0.0] * 27) is Outcome.FAIL
    assert _speed(None, [360.0] * 27) is Outcome.INCONCLUSIVE
    assert _speed(None, [360.0] * 27, is_wired=None) is Outcome.INCONCLUSIVE
    assert _speed(9.0, [360.0]) is None
    assert _speed(9.0, [360.0] * 27, is_wired=False) is None


@pytest.mark.parametrize("seed", range(20))
def test_healthy_links_that_vary_by_a_twentieth_all_pass(seed: int) -> None:
    chance = random.Random(seed)
    rates = [360 * chance.gauss(1, 0.02) for _ in range(28)]

    assert {_speed(rate, rates[:n] + rates[n + 1 :]) for n, rate in enumerate(rates)} == {Outcome.PASS}
    assert RATIO_MIN < 1


def _node(slow: set[tuple[int, int]], astray: set[tuple[int, int]], model: str = "H100") -> Node:
    events = []
    for one, other in combinations(range(4), 2):
        link = f"{uuid(one)}-{uuid(other)}"
        for sender, receiver in ((one, other), (other, one)):
            data: JsonObject = {"stage": "links", "link": link, "phase": "together", "backend": "nccl"}
            data |= {"receiver": uuid(receiver), "sender": uuid(sender), "way": "one", "words": 9}
            data |= {"gbps": 250.0 if (one, other) in slow else 371.0, "miscompared_words": 0}
            data |= {"transports": ["SHM/direct/direct" if (one, other) in astray else P2P]}
            events.append((20.0, "link.result", data))
    return Node(gpus=4, model=model, stages={"links": 5.0}, events=events)


def _found(node: Node, folder: Path, rule: str, outcome: Outcome | None) -> set[str]:
    findings = judge_run(node.write(folder))
    return {f.subject for f in findings if f.rule == rule and f.outcome is outcome}


def test_in_a_whole_record_the_slow_link_and_the_astray_one_are_named_and_no_other(tmp_path: Path) -> None:
    node = _node(slow={(0, 1)}, astray={(2, 3)})

    assert _found(node, tmp_path / "a", "link-speed", Outcome.FAIL) == {f"link:{uuid(0)}-{uuid(1)}"}
    assert _found(node, tmp_path / "b", "link-transport", Outcome.FAIL) == {f"link:{uuid(2)}-{uuid(3)}"}
    assert _found(node, tmp_path / "c", "link-end", Outcome.FAIL) == set()


def test_a_gpu_whose_links_are_all_slow_is_accused_itself(tmp_path: Path) -> None:
    node = _node(slow={(0, 1), (1, 2), (1, 3)}, astray=set())

    assert _found(node, tmp_path, "link-end", Outcome.FAIL) == {f"gpu:{uuid(1)}"}
