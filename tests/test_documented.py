"""How pages are followed: what they show is compared line by line, and nothing that fails goes unnoticed."""

from __future__ import annotations

from pathlib import Path

from tests.documented import Done, Step, follow, pattern, steps_of

PAGE = """
# Page

```sh
echo one; echo "two 17 three"
```

```text
one
two … three
```

Words.

```yaml
a: 1
```

```sh
false || echo "exit code $?"
```
"""


def test_commands_have_what_is_shown_right_below_them() -> None:
    first, second = steps_of(PAGE)

    assert (first.line, first.shown) == (4, "one\ntwo … three\n")
    assert (second.commands, second.shown) == ('false || echo "exit code $?"\n', None)


def test_dots_stand_for_part_of_a_line_or_for_whole_lines_and_nothing_else() -> None:
    assert pattern("a … c\n").fullmatch("a b c\n")
    assert not pattern("a … c\n").fullmatch("a b\nc\n")
    assert pattern("…\nPASS …\n…\n").fullmatch("x\ny\nPASS all\nz\n")
    assert not pattern("PASS …\n").fullmatch("x\nPASS all\n")
    assert not pattern("PASS\n").fullmatch("FAIL\n")


def test_a_page_is_followed_in_one_shell(tmp_path: Path) -> None:
    done = follow(steps_of(PAGE), tmp_path, timeout_s=10)

    assert [one.is_as_shown for one in done] == [True, True]
    assert done[1].printed == "exit code 1\n"


def test_a_command_that_fails_ends_the_page_and_what_follows_is_not_as_shown(tmp_path: Path) -> None:
    steps = [Step(commands=text, shown=None, line=1) for text in ("true\n", "false\ntrue\n", "true\n")]

    done = follow(steps, tmp_path, timeout_s=10)

    assert [(one.code, one.is_as_shown) for one in done] == [(0, True), (1, False), (None, False)]


def test_another_text_than_shown_is_not_as_shown(tmp_path: Path) -> None:
    [done] = follow([Step(commands="echo FAIL\n", shown="PASS\n", line=1)], tmp_path, timeout_s=10)

    assert isinstance(done, Done)
    assert not done.is_as_shown


def test_lines_that_are_left_out_are_not_typed(tmp_path: Path) -> None:
    [done] = follow(
        [Step(commands="touch a\ntouch b\n", shown=None, line=1)], tmp_path, without=["touch a"], timeout_s=10
    )

    assert done.is_as_shown
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
