"""The drawing of all latencies on one logarithmic scale."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.latency_plot import latency_plot
from reports.request_figures import CLASSES_PER_DECADE, Latency, class_begin


def latency(metric: str, classes: list[tuple[int, int]]) -> Latency:
    middle = class_begin(classes[len(classes) // 2][0])
    values = {"p50": middle, "p90": middle, "p95": middle, "p99": middle, "max": class_begin(classes[-1][0])}
    return Latency(metric=metric, meaning="", unit="ms", count=1, values=values, classes=tuple(classes))


def test_a_decade_is_as_wide_as_the_next() -> None:
    plot = latency_plot([latency("ttft_ms", [(0, 5), (CLASSES_PER_DECADE, 5), (2 * CLASSES_PER_DECADE, 5)])])
    bars = [float(x) for x in re.findall(r'class="bar" x="([0-9.]+)"', plot)]

    assert round(bars[1] - bars[0], 0) == round(bars[2] - bars[1], 0) > 100


def test_every_percentile_is_marked_by_its_own_dash_and_written() -> None:
    plot = latency_plot([latency("ttft_ms", [(30, 100), (31, 50), (50, 1)])])

    assert re.findall(r'class="mark-(\w+)"', plot) == ["max", "p99", "p95", "p50"]
    assert re.findall(r'class="value"[^>]*>(\w+) ', plot) == ["max", "p99", "p95", "p50"]
    assert "ttft_ms: p50 " in plot


def test_seconds_are_written_out_and_never_as_a_power_of_ten() -> None:
    plot = latency_plot([latency("e2e_ms", [(56, 100), (63, 9), (82, 1)])])

    assert re.findall(r">(max|p50) ([^<]+)<", plot) == [("max", "12,589"), ("p50", "1,413")]


@pytest.mark.parametrize("begin", [20, 30, 55])  # at the left edge, among others, at the right edge
def test_labels_keep_apart_and_off_the_name_of_their_row(begin: int) -> None:
    metric = "ttft_from_schedule_ms"
    plot = latency_plot(
        [latency("e2e_ms", [(20, 1), (59, 1)]), latency(metric, [(begin, 9), (begin + 1, 1)])]
    )

    words = re.findall(r'class="(?:name|value)" x="([0-9.]+)" y="[0-9]+">([^<]+)<', plot)
    _, _, _, _, _, (name_left, name), *labels = [(float(x), word) for x, word in words]
    ends = [(left, left + 6 * len(word)) for left, word in reversed(labels)]
    assert (name, name_left) == (metric, 8)
    assert ends[0][0] > name_left + 6.5 * len(name)
    assert all(end < begin for (_, end), (begin, _) in pairwise(ends))
    assert ends[-1][1] <= 760


def test_nothing_answered_is_nothing_drawn() -> None:
    assert latency_plot([]) == ""


classes = st.dictionaries(st.integers(-60, 160), st.integers(1, 10**9), min_size=1, max_size=40)


@given(st.lists(classes, min_size=1, max_size=6))
def test_whatever_the_values_all_of_it_stands_within_the_drawing(found: list[dict[int, int]]) -> None:
    plot = ET.fromstring(latency_plot([latency("x<>&", sorted(each.items())) for each in found]))
    _, _, width, height = map(float, plot.attrib["viewBox"].split())

    for bar in (one for one in plot.iter() if one.attrib.get("class") == "bar"):
        assert 0 <= float(bar.attrib["x"]) <= width
        assert 0 < float(bar.attrib["y"]) + float(bar.attrib["height"]) <= height
