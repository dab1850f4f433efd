from __future__ import annotations

from dataclasses import replace

from experiments.impact.recovery import FaultSeen, Times
from experiments.injecting.ledger import Entry
from experiments.kube.judging import judge_other_pods, judge_workloads_whole
from experiments.kube.watching.samples import find_whole
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from tests.experiments.kube.objects import WORKLOAD

S = 1_000_000_000
CAPTURED: JsonObject = {
    "kube_fault": "pod.kill",
    "victims": [{"name": "inference/a", "identity": "a"}],
    "workloads": [WORKLOAD],
    "hit_pods": [{"namespace": "inference", "name": "a", "uid": "a"}],
}
FAULT = FaultSeen(
    data={
        "id": "f-1",
        "fault": "pod.kill",
        "subject": "inference/a",
        "ends_by": "platform",
        "t_inject_ns": S,
    },
    captured=CAPTURED,
    is_verified=True,
    observed="is gone",
    t_undone_ns=None,
)


def row(t_s: float, uids: str, *, is_serving: bool = True, waits_for: str = "") -> JsonObject:
    seen = {"t_ns": int(t_s * S), "subject": "workload:Deployment/inference/chat", "uids": uids}
    return seen | {
        "ready": len(uids.split()),
        "wanted": 3,
        "is_serving": is_serving,
        "waits_for": waits_for,
    }


def whole(rows: list[JsonObject]) -> int | None:
    return find_whole(rows, [CAPTURED], replaced={"a"}, since_ns=S)


def judged(rows: list[JsonObject], *, entries: tuple[Entry, ...] = (), fault: FaultSeen = FAULT) -> Finding:
    times = Times(
        t_inject_ns=S,
        t_clock_ns=S,
        detection=None,
        t_mitigate_ns=None,
        t_recover_ns=None,
        t_redundant_ns=whole(rows),
        windows=(),
    )
    return judge_workloads_whole(
        times, rows, [fault], entries, subject="target:t", recovery_s=10, evidence={}
    )


def test_the_victim_that_still_answers_is_not_the_replacement() -> None:
    assert whole([row(1.1, "a b c")]) is None
    assert whole([row(1.1, "a b c"), row(2, "b c", is_serving=False), row(3, "b c d")]) == 3 * S


def test_a_workload_that_nobody_watched_is_not_whole() -> None:
    other = row(3, "b c d") | {"subject": "workload:Deployment/inference/other"}

    assert whole([other]) is None


def test_a_cordoned_node_has_to_take_pods_again() -> None:
    cordon = {"kube_fault": "node.cordon", "victims": [{"name": "n"}], "workloads": [], "hit_pods": []}
    node = {"subject": "node:n", "uids": ""}
    rows = [node | {"t_ns": 2 * S, "is_serving": False}, node | {"t_ns": 3 * S, "is_serving": True}]

    assert find_whole(rows, [cordon], replaced=set(), since_ns=S) == 3 * S


def test_back_in_time_passes_and_late_fails() -> None:
    assert judged([row(3, "b c d")]).outcome is Outcome.PASS
    assert judged([row(14, "b c d")]).outcome is Outcome.FAIL


def test_never_back_fails_once_it_had_its_time_and_says_what_is_missing() -> None:
    late = judged([row(3, "b c", is_serving=False), row(12, "b c", is_serving=False)])
    early = judged([row(3, "b c", is_serving=False)])

    assert (late.outcome, early.outcome) == (Outcome.FAIL, Outcome.INCONCLUSIVE)
    assert "inference/chat: 2 of 3 ready" in late.observed
    assert late.next_step


def test_nothing_seen_is_no_pass() -> None:
    assert judged([]).outcome is Outcome.INCONCLUSIVE


def entry(**detail: object) -> Entry:
    return Entry(id="f-1", fault="node.drain", subject="n", captured=CAPTURED, state="undone", detail=detail)


def test_what_only_our_undo_brought_back_is_no_pass() -> None:
    undone = replace(FAULT, t_undone_ns=13 * S)
    mended, early = entry(has_acted=True, did="x"), replace(FAULT, t_undone_ns=4 * S)
    rows = [row(3, "b c d")]

    assert judged(rows, entries=(mended,), fault=undone).outcome is Outcome.FAIL
    assert judged(rows, entries=(mended,), fault=early).outcome is Outcome.INCONCLUSIVE
    assert judged(rows, entries=(entry(has_acted=True, is_mending=False),), fault=early).outcome is (
        Outcome.PASS
    )


def state(pods: list[JsonObject], nodes: list[JsonObject]) -> JsonObject:
    return {"pods": pods, "nodes": nodes, "observed": "seen"}


def seen_pod(uid: str, **more: object) -> JsonObject:
    calm = {"name": uid, "uid": uid, "restarts": 0, "is_ready": True, "is_leaving": False, "owner": "o"}
    return calm | more


def seen_node(**more: object) -> JsonObject:
    return {"name": "n", "uid": "n", "is_ready": True, "is_cordoned": False, "taints": []} | more


def collateral(before: JsonObject, after: JsonObject) -> Finding:
    return judge_other_pods([FAULT], {"before": before, "after": after}, subject="target:t")


def test_the_victim_may_be_gone_and_nobody_else() -> None:
    before = state([seen_pod("a"), seen_pod("b")], [seen_node()])

    fine = collateral(before, state([seen_pod("b"), seen_pod("d")], [seen_node()]))
    gone = collateral(before, state([seen_pod("d")], [seen_node()]))
    restarted = collateral(before, state([seen_pod("b", restarts=1)], [seen_node()]))

    assert fine.outcome is Outcome.PASS
    assert (gone.outcome, gone.observed) == (Outcome.FAIL, "pod b is gone")
    assert (restarted.outcome, restarted.observed) == (Outcome.FAIL, "pod b was restarted")


def test_a_node_that_is_left_cordoned_is_collateral_and_one_that_was_before_is_none() -> None:
    left = collateral(state([], [seen_node()]), state([], [seen_node(is_cordoned=True)]))
    before = state([], [seen_node(is_cordoned=True)])

    assert left.outcome is Outcome.FAIL
    assert collateral(before, before).outcome is Outcome.PASS


def test_a_cluster_that_was_not_seen_at_the_end_shows_nothing() -> None:
    before = state([seen_pod("b")], [seen_node()])
    silent = {"pods": None, "nodes": None, "observed": "no answer"}

    assert collateral(before, silent).outcome is Outcome.INCONCLUSIVE
    assert judge_other_pods([FAULT], {}, subject="t").outcome is Outcome.INCONCLUSIVE
