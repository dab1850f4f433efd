"""The user's YAML: every mistake is one line that names file, line, key, value and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from probes.errors import ConfigError
from probes.spec import Spec, load_spec, load_yaml


class Constant(Spec):
    kind: Literal["constant"]
    rate_per_s: float


class Gamma(Spec):
    kind: Literal["gamma"]
    rate_per_s: float
    shape: float


Arrivals = Annotated[Constant | Gamma, Field(discriminator="kind")]


class Workload(Spec):
    name: str
    duration_s: float = 60.0
    arrivals: Arrivals | None = None
    stages: tuple[Arrivals, ...] = ()
    table: dict[str, Constant] = Field(default_factory=dict)


class Host(Spec):
    name: str
    address: str | None = None


class Hosts(Spec):
    hosts: Literal["lab"] | tuple[str | Host, ...]


def written(folder: Path, text: str) -> Path:
    path = folder / "chat.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(folder: Path, text: str, shape: type[Spec] = Workload) -> str:
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_spec(path, shape)
    return str(caught.value).replace(str(path), "chat.yaml")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "name: chat\narrivals: {kind: gamma, rate_per_s: 2, shape: 0.5}\n")

    assert load_spec(path, Workload).arrivals == Gamma(kind="gamma", rate_per_s=2, shape=0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nduraton_s: 3\n", "chat.yaml:2: duraton_s: unknown key; did you mean 'duration_s'?"),
        (
            "name: a\nzzz: 3\n",
            "chat.yaml:2: zzz: unknown key; known here: arrivals, duration_s, name, stages, table",
        ),
        ("duration_s: 3\n", "chat.yaml:1: name: this key is missing"),
        (
            "name: a\nduration_s: long\n",
            "chat.yaml:2: duration_s: got 'long'; input should be a valid number, unable to",
        ),
        ("name: a\nname: b\n", "chat.yaml:2: key 'name' stands here and in line 1; keep one"),
        (
            "name: a\narrivals:\n  kind: constant\n  rate_per_s: 1\n  rate_per_s: 2\n",
            "chat.yaml:5: key 'rate_per_s' stands here and in line 4; keep one",
        ),
        ("", "chat.yaml: the file is empty; `overproof schema` shows what belongs in it"),
        ("# only a remark\n", "chat.yaml: the file is empty; `overproof schema` shows what belongs in it"),
        ("- a\n- b\n", "chat.yaml:1: wanted keys with values, got "),
        ("name: [a\n", "chat.yaml:2: not YAML: "),
        ("name: a\n\tb: c\n", "chat.yaml:2: not YAML: "),
        ("--- {name: a}\n--- {name: b}\n", "not YAML: but found another document"),
        (
            "name: !!python/object/apply:os.system [touch /tmp/x]\n",
            "chat.yaml:1: not plain YAML: could not determine",
        ),
        (
            "name: a\nduration_s: 2026-13-45\n",
            "chat.yaml:2: YAML cannot read '2026-13-45': month must be in 1..12",
        ),
        (
            "name: a\narrivals: {kind: poison}\n",
            "chat.yaml:2: arrivals: got {'kind': 'poison'}; input tag 'poison'",
        ),
        ("name: &a [*a]\n", "chat.yaml:1: an alias stands inside what it stands for"),
        ("name: " + "[" * 4000, "chat.yaml: nested deeper than 60 levels"),
        ("name: " + "[" * 80 + "]" * 80, "chat.yaml:1: nested deeper than 60 levels"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(text: str, said: str, tmp_path: Path) -> None:
    assert said in complaint(tmp_path, text)


def test_a_key_of_another_member_of_a_union_is_not_suggested(tmp_path: Path) -> None:
    text = "name: a\narrivals:\n  kind: constant\n  rate_per_s: 3\n  shap: 1\n"

    assert (
        complaint(tmp_path, text) == "chat.yaml:5: arrivals.shap: unknown key; known here: kind, rate_per_s"
    )


def test_lines_and_suggestions_reach_into_lists_unions_and_tables(tmp_path: Path) -> None:
    text = """\
name: a
stages:
- kind: gamma
  rate_per_s: 1
  shape: 1
- kind: gamma
  shape: x
  rate_per_sec: 1
table:
  first:
    kind: constant
    rat_per_s: 1
"""
    assert complaint(tmp_path, text).splitlines() == [
        "chat.yaml:6: stages.1.rate_per_s: this key is missing",
        "chat.yaml:7: stages.1.shape: got 'x'; input should be a valid number, "
        "unable to parse string as a number",
        "chat.yaml:8: stages.1.rate_per_sec: unknown key; did you mean 'rate_per_s'?",
        "chat.yaml:10: table.first.rate_per_s: this key is missing",
        "chat.yaml:12: table.first.rat_per_s: unknown key; did you mean 'rate_per_s'?",
    ]


def test_a_mistake_inside_one_member_of_a_union_is_all_that_is_told_of_it(tmp_path: Path) -> None:
    text = "hosts:\n- a\n- name: b\n  adress: 1.2.3.4\n"

    assert complaint(tmp_path, text, shape=Hosts) == (
        "chat.yaml:4: hosts.1.adress: unknown key; did you mean 'address'?"
    )


def test_nothing_in_a_file_is_evaluated(tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    complaint(tmp_path, f"name: !!python/object/apply:os.mkdir ['{trap}']\n")

    assert not trap.exists()


def test_nine_lines_that_stand_for_a_billion_values_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, letter in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{letter}: &{letter} [{', '.join([f'*{before}'] * 9)}]")

    assert "stands for more than" in complaint(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("what", ["nowhere.yaml", ".", "latin.yaml"])
def test_a_file_that_cannot_be_read_as_text_is_named(what: str, tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")

    with pytest.raises(ConfigError, match="cannot be read as a text file"):
        load_yaml(tmp_path / what)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.sampled_from(["constant", "gamma"]), max_size=5),
    remarks=st.integers(0, 4),
    key=st.sampled_from(["rate_per_s", "kind"]),
)
def test_a_wrong_value_is_named_with_its_own_line_wherever_it_stands(
    before: list[str], remarks: int, key: str, tmp_path: Path
) -> None:
    good = {
        "constant": {"kind": "constant", "rate_per_s": 1.0},
        "gamma": {"kind": "gamma", "rate_per_s": 1.0, "shape": 2.0},
    }
    bad = good["gamma"] | {key: ["not", "this"]}
    spec = {"stages": [*(good[kind] for kind in before), bad], "name": "a"}
    text = "# remark\n" * remarks + yaml.safe_dump(spec, sort_keys=False)

    said = complaint(tmp_path, text)

    line = int(said.removeprefix("chat.yaml:").partition(":")[0])
    wanted = "- kind:" if key == "kind" else "rate_per_s:"
    assert line == max(n for n, row in enumerate(text.splitlines(), 1) if row.strip().startswith(wanted))


_PIECES = [
    *[
        "name",
        "arrivals",
        "table",
        ": ",
        "- ",
        "\n",
        "  ",
        "1",
        "2026-13-45",
        "0o8",
        "1:99",
        "0x",
        "&a ",
        "*a",
    ],
    *(["[", "]", "{", "}", "<<", "'", '"', "|", ">", "%", "#", "=", "é"]),
    *["---\n", "\t", "? ", "\x00", "\ufeff"],
    *["!!int ", "!!timestamp ", "!!binary ", "!!python/object:os.system "],
]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.lists(st.sampled_from(_PIECES), max_size=14).map("".join), st.text(max_size=30)))
def test_whatever_a_file_holds_it_is_read_or_refused_by_name(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)

    for load in (lambda: load_spec(path, Workload), lambda: load_yaml(path)):
        try:
            load()
        except ConfigError as error:
            assert str(path) in str(error)  # noqa: PT017  (it may also be read)
