"""The experiments that come with overproof, each with what it brings about, as file and faults say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import wrap

from experiments.declared.fault import is_foreign, module_of
from experiments.experiment import NAME, PLAIN_RECOVERY_S
from experiments.faults.fault import FAULTS, Fault, load_fault
from experiments.targets.all import ACTIONS_MODULE, KINDS, NAMED, OUR_MODULES
from probes.json_types import JsonObject
from probes.spec import load_yaml
from reports.coverage import LADDER
from reports.text import one_line

FOLDER = Path(__file__).parent / "catalogue"
WIDTH = 80
KIND_TITLES = {str(kind): row.title for kind, row in KINDS.items()}
# The fault of each action, with what of the captured state tells which of its kinds. Actions of other modules
# are named like their faults: ``link_down``, ``link.down``.
FAULT_OF: dict[str, dict[str, tuple[str, JsonObject]]] = {
    ACTIONS_MODULE: {
        "kill_replica": ("replica.kill", {}),
        "kill_all_replicas_but_one": ("replica.kill", {}),
        "hang_replica": ("replica.hang", {}),
        "slow_replica": ("replica.slow", {}),
        "press_on_cpu": ("replica.cpu", {}),
        "press_on_memory": ("replica.memory", {}),
        "crash_replica_forever": ("replica.crash-loop", {}),
        "spoil_answers": ("replica.wrong", {}),
        "interrupt_spot_replica": ("replica.spot", {}),
        "restart_all_in_turn": ("replicas.restart", {}),
        "delay_requests": ("gateway.trouble", {"trouble": {"kind": "latency"}}),
        "reset_streams": ("gateway.trouble", {"trouble": {"kind": "reset"}}),
        "swallow_requests": ("gateway.trouble", {"trouble": {"kind": "black-hole"}}),
        "answer_with_errors": ("gateway.trouble", {"trouble": {"kind": "error"}}),
    },
    "experiments.training.actions": {
        "kill_rank": ("rank.kill", {}),
        "hang_rank": ("rank.hang", {}),
        "slow_rank": ("rank.slow", {}),
        "corrupt_checkpoint": ("checkpoint.corrupt", {}),
        "lose_node": ("node.lose", {}),
        "cut_storage": ("storage.cut", {}),
    },
}
DECLARED_BY_FILE = "declared in its file"
NOBODY = "only undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaks:
    """One fault of an experiment."""

    fault: str
    categories: tuple[str, ...]
    fidelity: str
    risk: str
    heals: str  # who is expected to; empty: nobody but undo
    is_undoable: bool
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One experiment."""

    path: Path
    title: str
    kind: str  # of its target
    breaks: tuple[Breaks, ...]
    recovery_s: float  # within which it is expected to be well again


def read_catalogue(folder: Path = FOLDER) -> list[CatalogueEntry]:
    """Return the experiments of a folder and those below it; nothing is checked beyond what is listed.

    Raises:
        ConfigError: a file is no YAML.
    """
    documents = [(path, load_yaml(path)) for path in sorted(folder.rglob("*.yaml"))]
    return [
        _entry(path, document)
        for path, document in documents
        if isinstance(document, dict) and "method" in document
    ]


def _entry(path: Path, document: JsonObject) -> CatalogueEntry:
    extensions = document.get("extensions") or []
    extension: JsonObject = next((entry for entry in extensions if entry.get("name") == NAME), {})
    actions = [activity for activity in document["method"] if activity.get("type") == "action"]
    kinds = [OUR_MODULES[str(module_of(a))] for a in actions if module_of(a) in OUR_MODULES]
    return CatalogueEntry(
        path=path,
        title=str(document["title"]),
        kind=kinds[0] if kinds else NAMED,
        breaks=tuple(_breaks(actions, extension)),
        recovery_s=float(extension.get("recovery_s", PLAIN_RECOVERY_S)),
    )


def _breaks(actions: Sequence[JsonObject], extension: JsonObject) -> Iterator[Breaks]:
    declared = {str(fault["action"]) for fault in extension.get("faults") or ()}
    for action in actions:
        if is_foreign(action):
            if str(action["name"]) in declared:
                yield _of_fault(load_fault("declared"), {})
        elif (found := fault_of(action["provider"])) is not None:
            yield _of_fault(*found)


def fault_of(provider: JsonObject) -> tuple[Fault, JsonObject] | None:
    """Return the fault of one of our actions, and what of its captured state is known before it is captured.

    None: the action breaks nothing.
    """
    arguments = provider.get("arguments") or {}
    known: JsonObject = {"arguments": arguments, "state": arguments}
    like_faults: dict[str, tuple[str, JsonObject]] = {
        name.replace(".", "_").replace("-", "_"): (name, known) for name in FAULTS
    }
    name, captured = FAULT_OF.get(provider["module"], like_faults).get(provider["func"], ("", {}))
    return (load_fault(name), captured) if name else None


def _of_fault(fault: Fault, captured: JsonObject) -> Breaks:
    return Breaks(
        fault=fault.name,
        categories=fault.covered(captured),
        fidelity=fault.fidelity,
        risk=fault.risk,
        heals=fault.heals,
        is_undoable=fault.is_undoable,
        needs=fault.needs,
    )


def render_lines(entries: Sequence[CatalogueEntry], *, root: Path) -> Iterator[str]:
    """Yield the catalogue for a terminal of 80 columns, by target; paths as seen from ``root``."""
    for kind in [*KIND_TITLES, *sorted({entry.kind for entry in entries} - {*KIND_TITLES})]:
        if of_kind := [entry for entry in entries if entry.kind == kind]:
            yield from _kind_lines(KIND_TITLES.get(kind, kind), of_kind, root)
    yield "back: from the fault on, or from its undo where only that ends it"
    yield ", ".join(f"{rung} {words}" for rung, words in LADDER.items())


def _kind_lines(title: str, entries: Sequence[CatalogueEntry], root: Path) -> Iterator[str]:
    yield title
    needs = [{*one.needs} for entry in entries for one in entry.breaks]
    common = set.intersection(*needs) if needs else set()
    folder = None
    for entry in entries:
        if entry.path.parent != folder:
            folder = entry.path.parent
            yield f"in {folder.relative_to(root) if folder.is_relative_to(root) else folder}"
            yield f"  {'experiment':<24} {'brings about':<21}   {'risk':<6} {'healed by':<16} back"
        yield from _entry_lines(entry, common)
    yield ""


def _entry_lines(entry: CatalogueEntry, common: set[str]) -> Iterator[str]:
    name = one_line(entry.path.stem, 24)
    for number, one in enumerate(entry.breaks):
        about = wrap(", ".join(one.categories) or DECLARED_BY_FILE, 21, break_on_hyphens=False)
        healer = one.heals.partition(":")[0].removeprefix("the ")
        heals = wrap(one_line(healer or NOBODY, 48), 16, break_on_hyphens=False)
        is_ours = one.fidelity in LADDER
        rung, risk = (one.fidelity, one.risk) if is_ours else ("?", "?")
        within = "" if number else f"{entry.recovery_s:g} s"
        yield (
            f"  {'' if number else name:<24} {about[0]:<21} {rung} {risk:<6} {heals[0]:<16} {within}"
        ).rstrip()
        for row in range(1, max(len(about), len(heals))):
            cells = [words[row] if row < len(words) else "" for words in (about, heals)]
            yield f"  {'':24} {cells[0]:<21}   {'':6} {cells[1]}".rstrip()
        notes = [] if one.is_undoable else ["cannot be undone"]
        needs = [need for need in one.needs if need not in common]  # the title says what all of them need
        notes += [f"needs {', '.join(needs)}"] if needs else []
        if notes:
            yield from wrap(
                one_line("; ".join(notes)), WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6
            )


def catalogue_document(entries: Sequence[CatalogueEntry]) -> JsonObject:
    """Return what ``--json`` prints."""
    return {
        "experiments": [
            asdict(entry) | {"path": str(entry.path), "name": entry.path.stem} for entry in entries
        ]
    }
