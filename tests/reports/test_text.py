"""Text from targets, made safe to show."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from reports.text import one_line, plain
from tests.reports.hostile import TEXTS

CONTROL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_terminal_commands_vanish_and_their_text_stays() -> None:
    assert plain("\x1b[1;31mERROR\x1b[0m \x1b]0;owned\x07at \x1b[2Jline 1") == "ERROR at line 1"


def test_other_control_characters_and_reversed_text_are_shown_as_replaced() -> None:
    assert plain("a\x00b\u202ec\td\ne") == "a\ufffdb\ufffdc\td\ne"


@given(st.text(st.characters(codec=None)) | st.sampled_from(TEXTS))
def test_no_terminal_can_take_what_is_left_for_a_command(text: str) -> None:
    assert not {c for c in plain(text) if unicodedata.category(c) in {"Cc", "Cs"}} - {"\t", "\n"}
    assert "\x1b" not in plain(text)


@given(st.text(st.characters(codec=None)), st.integers(2, 50))
def test_one_line_is_one_line_of_bounded_length(text: str, most: int) -> None:
    line = one_line(text, most)

    assert len(line) <= most
    assert len(line.splitlines()) <= 1


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert plain(text) == text
