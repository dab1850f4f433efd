"""What an eviction makes of each answer, by a server that gives one after another. Real: tests/cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.kube.client import ApiRefused
from experiments.kube.pods.evict import evict
from probes.errors import TargetError
from probes.json_types import JsonObject
from tests.answering_api import Answer, answering
from tests.experiments.kube.objects import pod

CHAT = pod("chat-1")
ROW: JsonObject = CHAT["metadata"]
GOES = Answer(status=201, body={"kind": "Status", "status": "Success"})
BUDGET = "Cannot evict pod as it would violate the pod's disruption budget."
LATER = {"details": {"retryAfterSeconds": 0}}


def refusal(status: int, message: str) -> Answer:
    return Answer(status=status, body={"kind": "Status", "message": message} | LATER)


@pytest.mark.parametrize("status", [409, 503, 504])
def test_a_server_that_could_not_note_it_in_the_budget_is_asked_again(tmp_path: Path, status: int) -> None:
    contended = refusal(status, "couldn't update the budget, please apply your changes to the latest version")

    with answering(tmp_path, {"GET": [Answer(body=CHAT)], "POST": [contended, GOES]}) as (api, client):
        seen = evict(client, [ROW], grace_s=None, within_s=60)

    assert [method for method, _, _ in api.asked].count("POST") == 2
    assert (seen.asked, seen.refused) == (1, {})  # no budget has said no


@pytest.mark.parametrize(
    "now", [pod("chat-1") | {"metadata": ROW | {"uid": "another"}}, pod("chat-1", is_leaving=True)]
)
def test_a_conflict_over_a_pod_that_goes_or_is_another_one_ends_it(tmp_path: Path, now: JsonObject) -> None:
    answers = {
        "GET": [Answer(body=now)],
        "POST": [refusal(409, "the uid in the precondition does not match")],
    }

    with answering(tmp_path, answers) as (api, client):
        evict(client, [ROW], grace_s=None, within_s=60)

    assert [method for method, _, _ in api.asked].count("POST") == 1


def test_a_budget_that_says_no_until_the_end_is_counted_and_quoted(tmp_path: Path) -> None:
    with (
        answering(tmp_path, {"POST": [refusal(429, BUDGET)]}) as (_, client),
        pytest.raises(
            TargetError, match=rf"not let go within 2 s, asked \d times: inference/chat-1: {BUDGET}"
        ),
    ):
        evict(client, [ROW], grace_s=None, within_s=2)


def test_two_budgets_over_one_pod_are_a_no_for_good(tmp_path: Path) -> None:
    with (
        answering(tmp_path, {"POST": [refusal(500, "more than one budget")]}) as (api, client),
        pytest.raises(ApiRefused, match="more than one budget"),
    ):
        evict(client, [ROW], grace_s=None, within_s=60)

    assert len(api.asked) == 1
