"""Several clusters side by side: each has a network of its own, and a cluster of the user's is only one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.cluster import _free_network
from tests.cluster.images import _image
from tests.cluster.plan import KUBECONFIGS_VARIABLE, cluster_folders


def test_clusters_that_start_at_the_same_time_never_take_the_same_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = random.randrange(1000, 9000)  # no cluster is ever given one of these
    monkeypatch.setattr("tests.cluster.cluster._NETWORKS", range(first, first + 2))

    with _free_network() as one, _free_network() as other:
        taken = {one, other}
    with _free_network() as again:
        pass

    assert len(taken) == 2
    assert again in taken


def test_clusters_beside_each_other_have_folders_of_their_own(tmp_path: Path) -> None:
    assert cluster_folders(tmp_path / "c", 3) == [tmp_path / "c", tmp_path / "c-2", tmp_path / "c-3"]


def test_a_cluster_that_the_user_names_is_shared_by_nobody(tmp_path: Path) -> None:
    names = ["KUBECONFIG", KUBECONFIGS_VARIABLE, "PYTEST_XDIST_AUTO_NUM_WORKERS"]
    code = f"import os; print([os.environ.get(name) for name in {names}])"
    command = [
        sys.executable,
        "-m",
        "tests.cluster",
        "--folder",
        str(tmp_path / "c"),
        "--clusters",
        "2",
        "run",
    ]

    done = subprocess.run(
        [*command, sys.executable, "-c", code],
        env=os.environ | {"KUBECONFIG": "/theirs"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.strip() == "['/theirs', '/theirs', '1']"
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_another_checkout_may_be_about_to_import_is_there_for_an_hour(tmp_path: Path) -> None:
    source, kept = tmp_path / "source", []
    for version in ("one", "another", "a third"):
        source.write_text(version)
        kept.append(_image(tmp_path, "overproof.test/thing:1", [(source, "/thing")], {}))
        if version == "another":
            os.utime(kept[0], (0, 0))

    assert [path.exists() for path in kept] == [False, True, True]
