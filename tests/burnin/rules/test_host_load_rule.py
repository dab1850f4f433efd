"""Rules on the load of the host itself."""

from __future__ import annotations

import pytest

from burnin.rules.host_load_rule import judge_disks, judge_host_load
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome

BEGUN = {"cores": [0, 1], "nodes": ["node0"]}
CORES: list[JsonObject] = [{"place": "0", "rounds": 9, "wrong": []}, {"place": "1", "rounds": 9, "wrong": []}]
MEMORY: JsonObject = {"place": "node0", "bytes": 64, "wrong": [], "write_gbps": 5.0, "read_gbps": 9.0}
BAD = {"offset": 7, "got": 16, "wanted": 0, "pattern": 0}


def _judge(
    cores: list[JsonObject] = CORES, memory: JsonObject = MEMORY, *, is_done: bool = True
) -> dict[str, Outcome | None]:
    found = judge_host_load("h", begun=BEGUN, cores=cores, memories=[memory], is_done=is_done)
    assert all(f.next_step for f in found if f.outcome is not Outcome.PASS)
    return {f.subject: f.outcome for f in found}


def test_a_wrong_core_and_a_wrong_node_fail_by_name_and_nothing_else_does() -> None:
    wrong = [CORES[0], CORES[1] | {"wrong": ["float"]}]

    assert _judge() == {"host:h": Outcome.PASS}
    assert _judge(wrong) == {"host:h/core 1": Outcome.FAIL}
    assert _judge(memory=MEMORY | {"wrong": [BAD]}) == {"host:h/node0": Outcome.FAIL}


@pytest.mark.parametrize("cores", [CORES[:1], [CORES[0], {"place": "1", "died": "died"}]])
def test_a_core_that_did_not_answer_leaves_the_host_undecided(cores: list[JsonObject]) -> None:
    assert _judge(cores) == {"host:h": Outcome.INCONCLUSIVE}


def test_a_load_that_never_began_or_did_not_end_leaves_the_host_undecided() -> None:
    never = judge_host_load("h", begun=None, cores=[], memories=[], is_done=False)

    assert [f.outcome for f in never] == [Outcome.INCONCLUSIVE]
    assert _judge(is_done=False) == {"host:h": Outcome.INCONCLUSIVE}


MEASURED = {"directory": "/x", "is_direct": True, "write_mbps": 500.0, "read_mbps": 900.0}


@pytest.mark.parametrize(
    ("row", "floor", "outcome"),
    [
        (MEASURED, None, None),
        (MEASURED, 400.0, Outcome.PASS),
        (MEASURED, 600.0, Outcome.FAIL),
        ({"directory": "/x", "absent": "fio is not installed"}, None, None),
        ({"directory": "/x", "problem": "No space left"}, 400.0, Outcome.INCONCLUSIVE),
    ],
)
def test_a_disk_is_judged_by_the_plans_floor_alone(
    row: JsonObject, floor: float | None, outcome: Outcome | None
) -> None:
    found: list[Finding] = judge_disks("h", {"write_mbps_min": floor, "read_mbps_min": None}, [row])

    assert [f.outcome for f in found] == [outcome]
