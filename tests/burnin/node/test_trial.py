"""What one host does in a trial as far as it takes no other: its path, its words to torchrun."""

from __future__ import annotations

import os
import socket

import pytest

from burnin.node.trial import Refused, _interface_of, _own_address, _take_path, _torchrun_words
from burnin.node.trial_order import TrialOrder, trial_order_from_json, trial_order_to_json

ORDER = TrialOrder(trial="t", device="cpu", nodes=2, index=1, address="10.0.0.1", meet_within_s=7.5)


@pytest.mark.parametrize("path", ["rail:0", "rail:0,1", "no-nvlink"])
def test_a_path_that_gloo_does_not_have_is_refused_and_says_why(path: str) -> None:
    with pytest.raises(Refused, match=f"path {path}: gloo on a CPU has neither NVLink nor rails"):
        _take_path(path, 0)


def test_nvlink_between_hosts_is_switched_off_for_nccl_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_MNNVL_ENABLE", "1")

    assert _take_path("no-nvlink", 4) == {}
    assert os.environ["NCCL_MNNVL_ENABLE"] == "0"


def test_a_rail_that_the_host_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_IB_HCA", "no_such_adapter")

    with pytest.raises(Refused, match="path rail:3: only 0 active adapters"):
        _take_path("rail:3", 8)


def test_torchrun_is_told_where_to_meet_and_who_holds_the_place() -> None:
    words = _torchrun_words(ORDER, 4711, "10.0.0.2", 8)

    assert "--rdzv_endpoint=10.0.0.1:4711" in words
    assert "--rdzv_conf=is_host=0,join_timeout=8,read_timeout=8" in words
    assert {"--nnodes=2", "--nproc_per_node=8", "--max_restarts=0", "--local_addr=10.0.0.2"} <= set(words)


def test_an_address_of_the_sixth_kind_is_bracketed() -> None:
    order = trial_order_from_json(trial_order_to_json(ORDER) | {"address": "fd00::1"})

    assert "--rdzv_endpoint=[fd00::1]:1" in _torchrun_words(order, 1, "fd00::2", 1)


def test_our_own_address_and_interface_are_those_on_the_way_to_the_first_host() -> None:
    assert (_own_address("127.0.0.1", 9), _interface_of("127.0.0.1"), _interface_of("127.9.9.9")) == (
        "127.0.0.1",
        "lo",
        "lo",
    )
    assert _own_address("no-such-host.invalid", 9) == socket.gethostname()


@pytest.mark.parametrize("data", [{}, {"trial": "t"}, {"collectives": 3, "sizes_bytes": [], "faults": []}])
def test_what_is_no_order_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not the order of a trial"):
        trial_order_from_json(data)
