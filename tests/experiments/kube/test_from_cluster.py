"""Undoing from the mirrors in a cluster: what is none of its API. With a real one: tests/cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.kube.deadman.from_cluster import undo_mirrors
from experiments.kube.undoing.client_api import ClientApi
from probes.errors import TargetError
from tests.answering_api import Answer, answering


def test_what_is_no_list_of_mirrors_is_not_taken_for_nothing_to_undo(tmp_path: Path) -> None:
    with (
        answering(tmp_path, {"GET": [Answer(body={"message": "maintenance"})]}) as (_, client),
        pytest.raises(TargetError, match=r"configmaps.*: the API server says 200: maintenance"),
    ):
        undo_mirrors(ClientApi(client=client), "overproof")
