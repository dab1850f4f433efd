"""Game days on real hosts: the shipped experiments, on the hosts of a test."""

from __future__ import annotations

from pathlib import Path

import yaml

from experiments.hosts.choice import Target
from probes.json_types import JsonObject

CATALOGUE = Path(__file__).parents[3] / "experiments/catalogue/hosts"


def write_day(name: str, target: Target, folder: Path, *, arguments: JsonObject, **extension: object) -> Path:
    """Write a shipped experiment for these hosts, with other arguments of its fault and of its probes."""
    document = yaml.safe_load((CATALOGUE / f"{name}.yaml").read_text())
    document["extensions"][0] |= {
        "target": {"name": folder.name, "hosts": [host.to_json() for host in target.hosts]}
    } | extension
    action = document["method"][0]
    action["provider"]["arguments"] = arguments
    if "pauses" in action:
        action["pauses"] = {"after": 1}
    for probe in document["steady-state-hypothesis"]["probes"]:
        if "arguments" in probe["provider"]:
            probe["provider"]["arguments"] = {"pattern": arguments["pattern"]}
    for probe in document["method"][1:]:
        if "arguments" in probe["provider"]:
            probe["provider"]["arguments"] = {"within_s": 4}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
