"""A synthetic XID, with a file in place of the kernel's log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.host_agent.fault import Refused
from experiments.host_agent.faults.xid import CONSENT, Xid
from probes.kernel_log import find_trouble

ASKED = {"xid": 79, "pci": "0000:17:00.0", "consent": CONSENT}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "kmsg"
    file.write_text("earlier\n")
    return file


def test_the_line_is_one_that_watchers_of_the_log_take_for_an_xid(log: Path) -> None:
    fault = Xid(log=log)
    state = fault.capture(ASKED)
    assert fault.verify(state)[0] is False

    fault.inject(state)

    assert fault.verify(state)[0] is True
    earlier, line = log.read_text().splitlines()
    trouble = find_trouble(line)
    assert earlier == "earlier"
    assert trouble is not None
    assert (trouble.what, trouble.code, trouble.pci) == ("xid", 79, "0000:17:00")


def test_it_says_that_nothing_can_be_undone_and_does_nothing(log: Path) -> None:
    fault = Xid(log=log)
    state = fault.capture(ASKED)
    never = fault.undo(state)
    fault.inject(state)
    written = log.read_text()

    assert never == (True, "nothing to do: the kernel's log does not hold the line", False)
    assert "nothing can be undone" in fault.undo(state)[1]
    assert log.read_text() == written


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"consent": "yes"}, "automation"),
        ({"consent": None}, "automation"),
        ({"xid": 0}, "xid"),
        ({"xid": True}, "xid"),
        ({"xid": "79"}, "xid"),
        ({"pci": "0000:17:00.0\n<0>panic"}, "pci"),
        ({"pci": ""}, "pci"),
    ],
)
def test_it_is_written_only_with_the_sentence_and_for_one_address(
    log: Path, changed: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        Xid(log=log).capture(ASKED | changed)


def test_a_log_that_cannot_be_written_to_is_said_in_a_sentence(tmp_path: Path) -> None:
    bare = Xid(log=tmp_path / "none" / "kmsg")

    assert bare.missing({}) == [
        f"the kernel's log cannot be written to: {bare.log}: No such file or directory"
    ]
    with pytest.raises(Refused):
        bare.inject(bare.capture(ASKED))
