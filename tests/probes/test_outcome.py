"""How outcomes merge: the laws that every verdict rests on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probes.outcome import Outcome, worst

outcomes = st.sampled_from(Outcome)


def test_of_nothing_measured_the_outcome_is_inconclusive() -> None:
    assert worst([]) is Outcome.INCONCLUSIVE


def test_an_outcome_is_ordered_pass_inconclusive_fail() -> None:
    assert worst([Outcome.PASS, Outcome.INCONCLUSIVE]) is Outcome.INCONCLUSIVE
    assert worst([Outcome.INCONCLUSIVE, Outcome.FAIL]) is Outcome.FAIL


@given(st.lists(outcomes))
def test_merging_passes_only_where_everything_passed(found: list[Outcome]) -> None:
    assert (worst(found) is Outcome.PASS) == (bool(found) and set(found) == {Outcome.PASS})


@given(st.lists(outcomes, min_size=1), st.randoms(use_true_random=False))
def test_the_order_of_outcomes_does_not_matter(found: list[Outcome], chance: object) -> None:
    shuffled = list(found)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]

    assert worst(shuffled) is worst(found)


@given(st.lists(outcomes, min_size=1), st.lists(outcomes, min_size=1))
def test_merging_parts_first_gives_the_same(left: list[Outcome], right: list[Outcome]) -> None:
    assert worst([worst(left), worst(right)]) is worst(left + right)


@given(st.lists(outcomes, min_size=1), outcomes)
def test_one_more_outcome_never_makes_a_merge_better(found: list[Outcome], more: Outcome) -> None:
    assert worst([worst(found), worst([*found, more])]) is worst([*found, more])


def test_an_outcome_is_written_in_capitals_and_stored_in_small_letters() -> None:
    assert (str(Outcome.FAIL), Outcome.FAIL.value, f"{Outcome.PASS}") == ("FAIL", "fail", "PASS")
