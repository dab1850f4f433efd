"""The tutorials followed word for word, in a copy of the repository: one sees what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documented import DOCS, Done, copy_of_repository, follow, steps_of, told

TUTORIALS = ("burnin", "load", "gameday")
# A reader's own environment. Here it is that of the tests, which `.ci/setup` has made by the same lines.
SET_UP = ["python3 -m venv .venv", ". .venv/bin/activate", 'pip install ".[burnin]"']
TRIES = 3


def is_worth_another_try(done: Done) -> bool:
    """Whether a load client that other programs held up left something undecided, and nothing worse."""
    is_undecided = any(words in done.printed for words in ("INCONCLUSIVE", "nothing can be decided"))
    return is_undecided and "✗" not in done.printed


def first_difference(page: Path, folder: Path) -> Done | None:
    """Follow a page; return the first step that is not as shown."""
    done = follow(steps_of(page.read_text(encoding="utf-8")), folder, without=SET_UP, timeout_s=200)
    assert done
    return next((one for one in done if not one.is_as_shown), None)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TUTORIALS)
def test_who_follows_a_tutorial_sees_what_it_says(name: str, tmp_path: Path) -> None:
    page = DOCS / "tutorials" / f"{name}.md"
    difference = None
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        difference = first_difference(page, copy_of_repository(folder))
        if difference is None or not is_worth_another_try(difference):
            break

    assert difference is None, told(page, difference)


def test_what_is_set_up_before_is_what_the_page_says() -> None:
    [install, shown] = steps_of((DOCS / "tutorials" / "setup.md").read_text(encoding="utf-8"))

    assert install.commands.splitlines() == SET_UP
    assert shown.commands == "overproof --help\n"
