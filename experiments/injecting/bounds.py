"""How much one fault may hit, and what a plan has said that it hits: checked at the moment of injection."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from experiments.faults.fault import Fault, FaultRefused
from experiments.injecting.ledger import read_ledger
from experiments.lab.control import read_lab
from probes.errors import ConfigError
from probes.json_types import JsonObject

PLAN_FILE = "plan.json"  # of a game day's run
MAX_SHARE = 0.5  # of the replicas, for a fault with several victims where the experiment states nothing

_planned: ContextVar[list[tuple[Fault, JsonObject]] | None] = ContextVar("planned", default=None)


@contextlib.contextmanager
def planning() -> Iterator[list[tuple[Fault, JsonObject]]]:
    """Within it nothing is injected: what would be is collected."""
    found: list[tuple[Fault, JsonObject]] = []
    token = _planned.set(found)
    try:
        yield found
    finally:
        _planned.reset(token)


def being_planned() -> list[tuple[Fault, JsonObject]] | None:
    """Return where to put what would be injected; None: it is in earnest."""
    return _planned.get()


def share_of(captured: JsonObject) -> float:
    """Return the share of the capacity that a fault takes at any one time; of requests, at the gateway."""
    if "trouble" in captured:
        return float(captured["trouble"].get("share", 1.0))
    victims = len(captured["victims"])
    return int(captured.get("at_once", victims)) / max(1, victims + len(captured["others"]))


def refusal_of(fault: Fault, captured: JsonObject, max_share: float | None) -> str:
    """Say why a selection is empty or too wide; empty: it is neither."""
    victims = captured["victims"]
    if not victims and "trouble" not in captured:
        return f"{fault.name}: the selection is empty"
    share = share_of(captured)
    is_several = max(len(victims), int(captured.get("at_once", 0))) > 1
    limit = max_share if max_share is not None else MAX_SHARE if is_several else 1.0
    if share > limit:
        return (
            f"{fault.name}: would hit {share:.0%} at once, at most {limit:.0%} may be; "
            "the experiment's extension can state another max_share"
        )
    return ""


def check_bounds(fault: Fault, captured: JsonObject, folder: Path) -> None:
    """Refuse what is too wide, and, where a plan was confirmed, what it did not say.

    Raises:
        FaultRefused: nothing may be injected.
    """
    plan = read_plan(folder)
    if plan is None:  # plain ``chaos run``: the fault's own bounds have to do
        return
    if refusal := refusal_of(fault, captured, plan["max_share"]):
        raise FaultRefused(refusal)
    if plan["is_confirmed"]:
        _check_against_plan(plan["targets"], fault, captured, folder)


def read_plan(folder: Path) -> JsonObject | None:
    """Return what a game day has planned; None: this is none, or it has no plan yet."""
    path = folder / PLAN_FILE
    if not path.exists():
        return None
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read, so nothing is injected: {error}") from error
    assert isinstance(plan, dict)
    return plan


def _check_against_plan(targets: list[JsonObject], fault: Fault, captured: JsonObject, folder: Path) -> None:
    before = read_ledger(folder)
    planned = targets[len(before)] if len(before) < len(targets) else None
    if planned is None or planned["fault"] != fault.name:
        raise FaultRefused(f"{fault.name}: is not what the plan says comes next; nothing is injected")
    hit = {str(victim["name"]) for entry in before for victim in entry.captured.get("victims", ())}
    found = [_named(victim, hit) for victim in captured["victims"]]
    wanted = [_named(victim, hit) for victim in planned["victims"]]
    if found != wanted:
        raise FaultRefused(
            f"{fault.name}: the plan says {_text(planned['victims'])}, by now it would be "
            f"{_text(captured['victims'])}; nothing is injected, make a new plan"
        )
    if share_of(captured) > planned["share"]:
        raise FaultRefused(
            f"{fault.name}: would take {share_of(captured):.0%}, the plan says {planned['share']:.0%}; "
            "make a new plan"
        )
    if "lab" not in captured:
        return
    victims = {str(victim["name"]) for victim in captured["victims"]}
    if "job" in captured:  # of a training job, whose processes were looked at just now
        serving = sum(str(other["name"]) not in victims | hit for other in captured["others"])
    else:
        serving = sum(r.name not in victims | hit for r in read_lab(Path(captured["lab"])).serving)
    if serving < planned["others_serving"] - len(hit - victims):
        raise FaultRefused(
            f"{fault.name}: {serving} others serve, the plan says {planned['others_serving']}; "
            "nothing is injected"
        )


def _named(victim: JsonObject, hit: set[str]) -> tuple[object, ...]:
    """Return what names a victim: its process too, unless an earlier fault of this day hit it."""
    if victim["name"] in hit:
        return (victim["name"],)
    return (victim["name"], victim.get("pid"), victim.get("start_time"), victim.get("identity"))


def _text(victims: list[JsonObject]) -> str:
    named = (
        f"{v['name']} ({v['what']})" if "what" in v else f"{v['name']} (pid {v['pid']})" for v in victims
    )
    return ", ".join(named) or "nobody"
