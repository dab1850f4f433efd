"""What is written of a cluster while a game day runs: what has changed, and each second that we look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiments.kube.watching.sampler import KubeSampler
from experiments.kube.watching.samples import KUBE_SERIES, by_time
from probes.child import wait_until
from probes.json_types import JsonObject
from reports.record import SERIES_FOLDER, create_run
from reports.run import read_ndjson
from tests.experiments.kube.list_api import GONE, change, listing, page
from tests.experiments.kube.objects import WORKLOAD, pod

OTHER = WORKLOAD | {"name": "other", "uid": "d-2", "selector": {"matchLabels": {"app": "other"}}}
CHAT, SECOND = "workload:Deployment/inference/chat", "workload:Deployment/inference/other"
PODS = [pod("a"), pod("b"), pod("c")]


def sampled(
    folder: Path,
    until: Callable[[list[JsonObject]], bool],
    *,
    pages: list[JsonObject],
    watches: list[list[JsonObject]],
) -> list[JsonObject]:
    """Return the rows of a sampler that was let go on until they were as wanted."""
    writer = create_run(folder, kind="gameday", spec={}, seed=1)
    path = writer.path / SERIES_FOLDER / f"{KUBE_SERIES}.ndjson"

    with listing(folder, pages=pages, watches=watches) as (_, client):
        sampler = KubeSampler(client, [WORKLOAD, OTHER], [], writer)
        sampler.start()
        are_there = wait_until(lambda: until([*read_ndjson(path)]), timeout_s=60)
        sampler.stop()
    writer.close()
    assert are_there
    return [*read_ndjson(path)]


def of_chat(rows: list[JsonObject], key: str) -> list[object]:
    return [row[key] for row in rows if row["subject"] == CHAT]


def test_what_does_not_change_is_written_once_and_each_second_that_we_look(tmp_path: Path) -> None:
    def has_ticked(rows: list[JsonObject]) -> bool:
        return len({row["t_ns"] for row in rows}) >= 3

    rows = sampled(tmp_path, has_ticked, pages=[page(PODS, version=7)], watches=[])

    first, *others = [[row for row in rows if row["t_ns"] == t] for t in sorted({r["t_ns"] for r in rows})]
    assert [row["subject"] for row in first] == [CHAT, SECOND]
    assert all(len(each) == 1 for each in others)
    assert all(seen.keys() == {CHAT, SECOND} for _, seen in by_time(rows, 0))


def test_a_change_is_written_of_the_workload_that_it_is_of(tmp_path: Path) -> None:
    lost = change("MODIFIED", pod("b", is_ready=False), version=8)

    rows = sampled(
        tmp_path,
        lambda rows: 2 in of_chat(rows, "ready"),
        pages=[page(PODS, version=7)],
        watches=[[lost]],
    )

    assert of_chat(rows, "ready") == [3, 2]
    last = by_time(rows, 0)[-1][1]
    assert (last[CHAT]["ready"], last[SECOND]["ready"]) == (2, 0)


def test_a_view_that_has_to_be_listed_anew_says_what_has_become_of_it(tmp_path: Path) -> None:
    pages = [page(PODS, version=7), page(PODS[:1], version=9)]

    rows = sampled(
        tmp_path,
        lambda rows: "a" in of_chat(rows, "uids"),
        pages=pages,
        watches=[[{"type": "ERROR", "object": GONE}]],
    )

    assert of_chat(rows, "uids") == ["a b c", "a"]
