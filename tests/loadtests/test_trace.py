"""Traces: times, sizes and shared blocks as recorded; a bad line is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.traffic.trace import Trace, TraceRow, read_trace
from probes.errors import ConfigError

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 23:59:59.6805900,374,44
2023-11-17 00:00:00.1805901,396,109
2023-11-17 00:00:04.6805900,879,55
2023-11-17 00:00:09.6805900,2,1
"""


def rows(path: Path, text: str, **keys: object) -> list[TraceRow]:
    path.write_text(text)
    return list(read_trace(Trace(path=path, **keys)))  # type: ignore[arg-type]


def test_azures_seven_decimals_and_midnight_are_kept(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", AZURE, form="azure")

    assert [row.at_s for row in found] == [0.0, 0.5000001, 5.0, 10.0]
    assert [(row.input_tokens, row.output_tokens) for row in found] == [
        (374, 44),
        (396, 109),
        (879, 55),
        (2, 1),
    ]


def test_a_window_is_cut_out_and_its_speed_changed(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.csv", AZURE, form="azure", from_s=2.0, to_s=10.0, speed=2.0)

    assert [(row.at_s, row.input_tokens) for row in found] == [(1.5, 879)]


def test_mooncakes_blocks_and_milliseconds_are_kept(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 0, "input_length": 700, "output_length": 1, "hash_ids": [3, 4]},
        {"timestamp": 0, "input_length": 600, "output_length": 9, "hash_ids": [3, 5]},
        {"timestamp": 3000, "input_length": 5, "output_length": 2, "hash_ids": [6]},
    ]
    found = rows(tmp_path / "m.jsonl", "".join(json.dumps(line) + "\n" for line in lines), form="mooncake")

    assert [(row.at_s, row.blocks) for row in found] == [(0.0, (3, 4)), (0.0, (3, 5)), (3.0, (6,))]


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("azure", "a,b,c\n", "t:1: wanted the header TIMESTAMP"),
        ("azure", AZURE + "2023-11-17 00:00:10,1\n", "t:6: wanted a time such as"),
        ("azure", AZURE + "2023-11-17 00:00:10,x,1\n", "t:6: invalid literal"),
        ("azure", AZURE + "2023-11-17 00:00:10,-1,1\n", "t:6: -1 is no count of tokens"),
        ("azure", AZURE + "2023-13-17 00:00:10,1,1\n", "t:6: month must be"),
        ("azure", AZURE + "2023-11-16 00:00:10,1,1\n", "t:6: earlier than the line before"),
        ("mooncake", "{}\n", "t:1: 'timestamp' is missing"),
        ("mooncake", "[]\n", "t:1: wanted an object"),
        ("mooncake", "[" * 100_000 + "\n", "t:1:"),
        ("mooncake", '{"timestamp": NaN, "input_length": 1, "output_length": 1}\n', "t:1: timestamp nan"),
        ("mooncake", '{"timestamp": 1, "input_length": 1.5, "output_length": 1}\n', "t:1: 1.5 is no count"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(tmp_path: Path, form: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rows(tmp_path / "t", text, form=form)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_trace(Trace(path=tmp_path / "none", form="azure")))
