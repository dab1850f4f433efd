from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnin.fleet.host_range import HOSTS_MAX, compress_hosts, expand_hosts

_NAMES = st.builds(
    lambda stem, number, width, tail: f"{stem}{number:0{width}d}{tail}",
    st.sampled_from(["gpu", "r1-n", "a", "node2x"]),
    st.integers(0, 400),
    st.integers(1, 4),
    st.sampled_from(["", "-b", ".hall.example"]),
)


@settings(max_examples=30, deadline=None)
@given(names=st.sets(st.one_of(_NAMES, st.sampled_from(["login", "head-node"])), min_size=1, max_size=60))
def test_what_was_written_short_stands_for_the_same_hosts(names: set[str]) -> None:
    expanded = [name for part in compress_hosts(names).split(" ") for name in expand_hosts(part)]

    assert sorted(expanded) == sorted(names)


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 5000), count=st.integers(1, 300), width=st.integers(1, 6))
def test_a_span_stands_for_each_of_its_numbers_once(first: int, count: int, width: int) -> None:
    last = first + count - 1
    names = expand_hosts(f"gpu[{first:0{width}d}-{last:0{width}d}]") if _same(first, last, width) else None

    assert names is None or names == tuple(f"gpu{n:0{width}d}" for n in range(first, last + 1))


def _same(first: int, last: int, width: int) -> bool:
    return len(f"{first:0{width}d}") == len(f"{last:0{width}d}")


def test_several_brackets_multiply_in_order() -> None:
    assert expand_hosts("r[1-2]n[01,03]-b") == ("r1n01-b", "r1n03-b", "r2n01-b", "r2n03-b")


def test_a_span_that_grows_a_digit_is_not_padded() -> None:
    assert expand_hosts("n[8-11]") == ("n8", "n9", "n10", "n11")


def test_hosts_are_written_as_ranges() -> None:
    assert compress_hosts(["b", "gpu003", "gpu001", "gpu002", "gpu010"]) == "b gpu[001-003,010]"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gpu[1-1000000000]", f"at most {HOSTS_MAX}"),
        ("gpu[1-9999][1-9999][1-9999]", f"at most {HOSTS_MAX}"),
        ("gpu[1-99999999999999999999]", "twelve digits"),
        ("gpu[016-001]", "is empty"),
        ("gpu[]", "neither a number"),
        ("gpu[1-]", "neither a number"),
        ("gpu[a-c]", "neither a number"),
        ("gpu[01-100]", "two widths"),
        ("gpu[1-3", "no range"),
        ("gpu]1[", "no range"),
        ("", "no range"),
        ("gpu 1", "no name of a host"),
        ("-oProxyCommand=id", "no name of a host"),
    ],
)
def test_a_wrong_range_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("[", r"\[")):
        expand_hosts(text)
