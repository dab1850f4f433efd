"""Write the pages of the reference that come from the code: ``python docs/generate.py`` or ``make docs``.

Pages below ``generated/`` are made anew by each build and are not kept in git. Blocks of ``reference.md``
between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->`` are kept, so that the file can be read
without a build; ``tests/test_docs.py`` compares them with the code.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))

import typer.main  # noqa: E402

import overproof  # noqa: E402


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar within a cell is escaped."""
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def code(text: object) -> str:
    """Return text as code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


# --- commands ---


def commands_page() -> str:
    """Every command with its arguments and options, from the command line itself."""
    overproof.mount()
    parts = [
        "# Commands and options\n",
        "Made from the command line of this version."
        " What a command is for stands in the [reference](../reference.md#commands).\n",
    ]
    parts += [
        _command_text(name, command)
        for name, command in _commands("overproof", typer.main.get_command(overproof.app))
    ]
    return "\n".join(parts)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield each command below a group, with all its words."""
    if not hasattr(command, "commands"):
        yield name, command
    for word, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from _commands(f"{name} {word}", below)


def _command_text(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    records = [parameter.get_help_record(context) for parameter in command.params]  # none of what is hidden
    rows = [(code(record[0]), record[1]) for record in records if record is not None]
    about = (command.help or "").strip()
    if name == "overproof load endpoint":  # a process of its own, with a command line of its own
        from loadtests.endpoint.process import make_parser

        rows, about = _options_of(make_parser()), f"{about}\n\n{make_parser().epilog}."
    return f"## {name}\n\n```\n{usage}\n```\n\n{about}\n\n{table(('argument or option', 'meaning'), rows)}"


def _options_of(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    # argparse has no other way to tell its options than this list
    actions = [action for action in parser._actions if action.dest != "help"]
    return [
        (
            code(f"{' '.join(a.option_strings)} {a.metavar or ''}".strip()),
            f"{a.help} {_from(a.default)}".strip(),
        )
        for a in actions
    ]


def _from(default: object) -> str:
    return "" if default in (None, False, []) else f"[default: {default}]"


# --- schemas ---


def schema_page(kind: str) -> str:
    """The keys of one kind of file, from its JSON Schema."""
    module, model = overproof.SCHEMAS[kind]
    schema = getattr(importlib.import_module(module), model).model_json_schema()
    about = " ".join(str(schema.get("description", "")).split())
    parts = [
        f"# Keys of a file of the kind {kind}\n",
        f"`overproof schema {kind}` prints the same as JSON Schema, for editors.\n",
    ]
    parts += [f"{about}\n", _keys(schema)]
    parts += [f"## {name}\n\n{_definition(found)}" for name, found in sorted(schema.get("$defs", {}).items())]
    return "\n".join(parts)


def _definition(found: dict[str, Any]) -> str:
    about = " ".join(str(found.get("description", "")).split())
    if "enum" in found:
        return f"{about} One of {', '.join(code(one) for one in found['enum'])}.\n"
    return f"{about}\n\n{_keys(found)}"


def _keys(schema: dict[str, Any]) -> str:
    wanted = schema.get("required", [])
    rows = [
        (
            code(name) + (" (required)" if name in wanted else ""),
            _kind(found),
            _schema_default(found),
            " ".join(str(found.get("description", "")).split()),
        )
        for name, found in schema.get("properties", {}).items()
    ]
    return table(("key", "kind", "default", "meaning"), rows) if rows else f"{_kind(schema)}\n"


def _schema_default(found: dict[str, Any]) -> str:
    value = found.get("default")
    if isinstance(value, dict) and value:
        return "as below"
    return "" if value is None or value in ({}, []) else code(json.dumps(value, ensure_ascii=False))


BOUNDS = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}


def exact(bound: float) -> str:
    """Return a bound with all its digits: one that is rounded would refuse what the page allows."""
    return f"{int(bound):,}" if bound == int(bound) else f"{bound!r}"


def _kind(found: dict[str, Any]) -> str:
    """Say in words what a value may be."""
    if "$ref" in found:
        name = found["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf", "allOf"):
        if word in found:
            return " or ".join(_kind(one) for one in found[word] if one.get("type") != "null")
    if "const" in found or "enum" in found:
        return ", ".join(code(one) for one in found.get("enum", [found.get("const")]))
    bounds = " ".join(f"{sign} {exact(found[word])}" for word, sign in BOUNDS.items() if word in found)
    kind = found.get("type", "anything")
    if kind == "array":
        kind = f"list of {_kind(found.get('items', {}))}"
    elif kind == "object" and isinstance(found.get("additionalProperties"), dict):
        kind = f"{_kind(found['additionalProperties'])} by name"
    return f"{kind} {bounds}".strip()


# --- metrics, failures, rules, faults ---


def metrics_table() -> str:
    """The figures of a request, each with its unit and its names elsewhere."""
    from probes.promise import GOODPUT
    from probes.slo import METRICS

    rows = [(code(name), metric.unit, metric.meaning, metric.elsewhere) for name, metric in METRICS.items()]
    meaning = "of all requests that the schedule wanted, those answered whole within every bound"
    rows.append((code(GOODPUT), "share", meaning, "others leave failed or never-sent requests out"))
    return table(("metric", "unit", "meaning", "elsewhere"), rows)


def failures_table() -> str:
    """Why a request failed, by the kind in its row."""
    from probes.traffic import ERRORS

    return table(("kind", "meaning"), [(code(kind), meaning) for kind, meaning in ERRORS.items()])


def metrics_page() -> str:
    """Figures of requests and of servers, and the bounds of others."""
    from probes.spec import load_yaml

    servers = load_yaml(HERE.parent / "loadtests" / "watching" / "server_metrics.yaml")
    presets = load_yaml(HERE.parent / "probes" / "slo_presets.yaml")
    assert isinstance(servers, dict)
    assert isinstance(presets, dict)
    columns = [(code(f["column"]), ", ".join(code(name) for name in f["names"])) for f in servers["figures"]]
    bounds = [(code(name), _bounds(found["slos"]), found["source"]) for name, found in presets.items()]
    return "\n".join(
        [
            "# Metrics\n\n## Of a request\n",
            metrics_table(),
            "## Of a server, by `--metrics-url`\n",
            table(("column of the series `server`", "names that servers have for it"), columns),
            "## Presets of SLOs\n\nA workload takes one by `slos: [{preset: NAME}]`.\n",
            table(("preset", "promises", "source"), bounds),
            "## Why a request failed\n",
            failures_table(),
        ]
    )


def _bounds(slos: Sequence[dict[str, Any]]) -> str:
    return "; ".join(
        f"{s['metric']} {s.get('statistic', s.get('objective', ''))} {s.get('bound', '')}".strip()
        for s in slos
    )


def rules_page() -> str:
    """Each rule with what it can find, by job, and the faults that prove the detectors."""
    from probes.detectors import detectors

    parts = [
        "# Rules and what they find\n",
        "When each rule passes stands in the [reference](../reference.md#rules);"
        " the categories are those of the [published counts](failures.md).\n",
    ]
    for job in detectors().jobs.values():
        found = [(code(rule), _found(categories)) for rule, categories in sorted(job.detects.items())]
        found += [
            (code(rule), "proves the run itself, shows a figure, or finds no category")
            for rule in sorted(job.nothing)
        ]
        parts += [f"## {job.title}\n", table(("rule", "finds: by what"), found)]
        if job.seeds:
            seeds = [
                (name, *(", ".join(on.get(place, ())) for place in ("gpu", "cores")))
                for name, on in job.seeds.items()
            ]
            parts += [
                f"### Positive controls of: {job.title}\n",
                table(("stage and detector", "on a GPU", "on cores"), seeds),
            ]
    return "\n".join(parts)


def _found(categories: dict[str, str]) -> str:
    return "; ".join(f"{code(category)}: {by}" for category, by in categories.items())


def failures_page() -> str:
    """The categories of what breaks, and the published counts."""
    from probes.spec import load_yaml

    known = load_yaml(HERE.parent / "probes" / "failure_categories.yaml")
    assert isinstance(known, dict)
    parts = [
        "# What breaks, by published counts\n",
        table(("category", "meaning"), [(code(k), v) for k, v in known["categories"].items()]),
    ]
    for found in known["tables"].values():
        rows = [
            (row["cause"], str(row.get("count", row.get("share", ""))), ", ".join(row.get("categories", ())))
            for row in found["rows"]
        ]
        parts += [
            f"## {found['title']}\n",
            f"{found['source']}\n",
            table(("cause", found.get("unit", "count"), "categories"), rows),
        ]
    return "\n".join(parts)


def faults_page() -> str:
    """The experiments that come with overproof, and every fault."""
    from experiments.catalogue_list import KIND_TITLES, read_catalogue
    from experiments.faults.fault import FAULTS, load_fault

    entries = read_catalogue()
    parts = [
        "# Faults and experiments\n",
        "`overproof gameday catalogue` prints the experiments; how they run: [guide](../gameday.md).\n",
        "## Faults\n",
    ]
    faults = [load_fault(name) for name in FAULTS]
    parts.append(
        table(
            ("fault", "fidelity", "risk", "who heals it", "needs"),
            [(code(f.name), f.fidelity, f.risk, f.heals or "only undo", ", ".join(f.needs)) for f in faults],
        )
    )
    for kind in [*KIND_TITLES, *sorted({entry.kind for entry in entries} - {*KIND_TITLES})]:
        rows = [
            (
                code(e.path.relative_to(HERE.parent)),
                e.title,
                ", ".join(code(b.fault) for b in e.breaks),
                ", ".join(c for b in e.breaks for c in b.categories),
                f"{e.recovery_s:g}",
            )
            for e in entries
            if e.kind == kind
        ]
        if rows:
            parts += [
                f"## {KIND_TITLES.get(kind, kind)}\n",
                table(("experiment", "what it says", "faults", "brings about", "recovery, s"), rows),
            ]
    return "\n".join(parts)


def exit_codes_page() -> str:
    """The exit codes of the table in the reference, with the outcome or error that leads to each."""
    text = (HERE / "reference.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE))
    by_code = {number: outcome.name for outcome, number in overproof.EXIT_CODE.items()}
    by_code |= {overproof.EXIT_USAGE: "ConfigError", overproof.EXIT_CRASHED: "any other exception"}
    by_code |= {overproof.EXIT_INTERRUPTED: "Interrupted"}
    by_code[overproof.EXIT_UNREACHABLE] = "INCONCLUSIVE, TargetError, RecordError"
    rows = [(str(number), by_code[number], told[str(number)]) for number in sorted(by_code)]
    return "# Exit codes\n\n" + table(("code", "in the code", "meaning"), rows)


PAGES: dict[str, Callable[[], str]] = {
    "commands": commands_page,
    "metrics": metrics_page,
    "rules": rules_page,
    "failures": failures_page,
    "faults": faults_page,
    "exit-codes": exit_codes_page,
    **{f"schema-{kind}": (lambda kind=kind: schema_page(kind)) for kind in overproof.SCHEMAS},
}
BLOCKS: dict[str, Callable[[], str]] = {"metrics": metrics_table, "failures": failures_table}


def write_pages(folder: Path) -> None:
    """Write every page, and leave alone what has not changed, so that a second build is short."""
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        text, path = page(), folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def with_blocks(text: str) -> str:
    """Return a page with each of its generated blocks as the code has it now."""
    for name, block in BLOCKS.items():
        start, end = f"<!-- generated: {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        if not after:
            raise ValueError(f"no block {name!r}: {start.strip()} … {end}")
        text = f"{before}{start}\n{block()}\n{end}{after}"
    return text


if __name__ == "__main__":
    write_pages(HERE / "generated")
    reference = HERE / "reference.md"
    reference.write_text(with_blocks(reference.read_text(encoding="utf-8")), encoding="utf-8")
