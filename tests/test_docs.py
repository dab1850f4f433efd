"""A command, rule, metric or exit code that the reference does not name is a defect."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import typer.main

import overproof
from probes.outcome import Outcome
from probes.slo import METRICS, decide

ROOT = Path(__file__).parent.parent
SOURCES = ("burnin", "loadtests", "experiments", "probes", "reports")
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def _rules() -> Iterator[str]:
    """Yield each literal that is passed as ``rule=`` anywhere in the source."""
    for path in (path for folder in SOURCES for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "rule" and isinstance(node.value, ast.Constant):
                yield str(node.value.value)


def test_every_rule_is_in_the_reference() -> None:
    rules = set(_rules())

    assert len(rules) > 10
    assert {rule for rule in rules if f"`{rule}`" not in REFERENCE} == set()


def test_every_metric_is_in_the_reference_with_its_unit() -> None:
    missing = [
        name for name, metric in METRICS.items() if not re.search(rf"`{name}` \| {metric.unit} ", REFERENCE)
    ]

    assert missing == []


def test_every_command_is_in_the_reference() -> None:
    overproof.mount()
    group = typer.main.get_command(overproof.app)
    names = [
        f"overproof {name} {sub}".strip()
        for name, command in group.commands.items()  # type: ignore[attr-defined]
        for sub in getattr(command, "commands", {"": None})
    ]

    assert len(names) > 8
    assert [name for name in names if f"`{name}" not in REFERENCE] == []


def _commands(text: str) -> Iterator[str]:
    """Yield each line of a code block that is a command of ours; one with … or $( is no command to type."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            command = line.removeprefix("$ ").partition("  #")[0].partition(" &")[0].strip()
            if command.startswith("overproof ") and not line.startswith("  ") and "…" not in command:
                yield command


def test_every_command_in_readme_and_guides_is_one_that_there_is() -> None:
    overproof.mount()
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    texts = [page.read_text(encoding="utf-8") for page in pages]
    commands = [command for text in texts for command in _commands(text)]

    assert len(commands) > 20
    for command in commands:
        words = shlex.split(command)[1:]
        found = typer.main.get_command(overproof.app)
        while words and words[0] in getattr(found, "commands", {}):
            found = found.commands[words.pop(0)]  # type: ignore[attr-defined]
        assert not hasattr(found, "commands"), command
        found.make_context("overproof", words)  # raises where an option or argument is not as it wants


def test_every_exit_code_is_in_the_reference_and_the_readme() -> None:
    codes = {
        *overproof.EXIT_CODE.values(),
        *(getattr(overproof, n) for n in dir(overproof) if n.startswith("EXIT_U")),
    }
    codes |= {overproof.EXIT_CRASHED, overproof.EXIT_INTERRUPTED}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert codes == {0, 1, 2, 3, 4, 130}
    for code in codes:
        assert re.search(rf"^\| {code} \|", REFERENCE, re.MULTILINE)
        assert re.search(rf"^\| {code} \|", readme, re.MULTILINE)


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return generate


def test_every_option_that_a_page_or_the_readme_types_stands_in_the_reference_of_commands() -> None:
    known = set(re.findall(r"--[a-z][a-z-]+", generator().commands_page()))
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    typed = {
        option
        for page in pages
        for command in re.findall(r"^(?:\$ )?overproof .*$", page.read_text(encoding="utf-8"), re.MULTILINE)
        for option in re.findall(r"(?<= )--[a-z][a-z-]+", command)
    }

    assert len(typed) > 20
    assert sorted(typed - known - {"--help"}) == []


def test_the_bounds_of_a_file_are_told_with_all_their_digits() -> None:
    page = generator().schema_page("plan")

    assert "integer ≥ 1,048,576 ≤ 68,719,476,736" in page
    assert not re.search(r"[≥≤<>] [0-9.]+e[+-]", page)


def test_the_generated_blocks_of_the_reference_are_what_the_code_says() -> None:
    generate = generator()

    assert generate.with_blocks(REFERENCE) == REFERENCE, "run: python docs/generate.py"


def test_every_example_file_named_in_readme_and_docs_exists() -> None:
    texts = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        match
        for text in texts
        for match in re.findall(r"`([\w/.-]+/[\w.-]+\.(?:yaml|py))`", text.read_text())
    }

    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_numbers_of_requests_in_the_explanation_are_those_that_the_rule_wants() -> None:
    text = (ROOT / "docs" / "explanation" / "verdicts.md").read_text(encoding="utf-8")
    told = {
        int(share): int(count) for share, count in re.findall(r"^\| p(\d+) \| (\d+) \|$", text, re.MULTILINE)
    }

    assert set(told) == {90, 95, 99}
    for share, count in told.items():
        objective = share / 100
        assert decide(0, count, objective=objective, confidence=0.95) is Outcome.PASS
        assert decide(0, count - 1, objective=objective, confidence=0.95) is Outcome.INCONCLUSIVE
