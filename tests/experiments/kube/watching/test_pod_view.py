"""Lists of many pages and watches, also where the version they go on from is too old."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.kube.client import ApiRefused
from experiments.kube.pods.pod import node_of
from experiments.kube.watching.pod_view import PodView
from probes.json_types import JsonObject
from tests.experiments.kube.list_api import GONE, change, listing, page
from tests.experiments.kube.objects import pod

PODS = "/api/v1/namespaces/inference/pods"


def names(rows: list[JsonObject]) -> list[str]:
    return sorted(str(row["metadata"]["name"]) for row in rows)


def test_a_list_is_read_to_its_last_page(tmp_path: Path) -> None:
    pages = [page([pod("a")], version=7, token="1"), page([pod("b")], version=7)]

    with listing(tmp_path, pages=pages) as (api, client):
        rows, version = client.listed_at(PODS, labelSelector="app=chat")

    assert (names(rows), version) == (["a", "b"], "7")
    assert api.asked == [
        {"limit": "500", "labelSelector": "app=chat"},
        {"limit": "500", "labelSelector": "app=chat", "continue": "1"},
    ]


def test_a_list_that_is_too_old_in_the_middle_begins_anew_and_at_once(tmp_path: Path) -> None:
    pages = [page([pod("a"), pod("gone")], version=7, token="1"), GONE, page([pod("a"), pod("b")], version=9)]

    with listing(tmp_path, pages=pages) as (api, client):
        rows, version = client.listed_at(PODS, labelSelector="app=chat")

    assert (names(rows), version) == (["a", "b"], "9")
    assert api.asked[-1] == {"labelSelector": "app=chat"}


def test_a_list_that_is_too_old_at_its_first_page_is_refused(tmp_path: Path) -> None:
    pages = [page([pod("a")], version=7, token="1"), GONE, GONE]

    with listing(tmp_path, pages=pages) as (api, client), pytest.raises(ApiRefused) as refused:
        client.listed_at(PODS)

    assert refused.value.status == 410
    assert len(api.asked) == 3


def test_a_watch_that_is_too_old_lists_anew_and_forgets_what_is_gone(tmp_path: Path) -> None:
    error = {"type": "ERROR", "object": GONE}
    pages = [page([pod("a"), pod("b")], version=7), page([pod("b"), pod("c")], version=20)]
    watches = [[change("ADDED", pod("d"), version=8), error], [change("DELETED", pod("b"), version=21)]]

    with listing(tmp_path, pages=pages, watches=watches) as (api, client):
        view = PodView(client, ["inference"])
        is_seen = view.follow(lambda: names(view.pods) == ["c"], within_s=30)

    assert is_seen
    versions = [query.get("resourceVersion") for query in api.asked]
    assert versions == [None, "7", None, "20"]
    assert names(view.pods_under("o-1")) == ["c"]


def test_of_a_pod_its_node_is_known_and_not_all_that_was_asked_for(tmp_path: Path) -> None:
    with listing(tmp_path, pages=[page([pod("a", volumes=({"name": "shm"},))], version=7)]) as (_, client):
        view = PodView(client, ["inference"])
        view.refresh()

    (found,) = view.pods
    assert node_of(found) == "node-1"
    assert "volumes" not in found["spec"]
