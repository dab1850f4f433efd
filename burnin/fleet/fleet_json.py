"""A fleet as plain JSON values, for the record: from them a run is resumed and judged again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from burnin.fleet.host import Access, ClusterJobs, Expected, Fleet, Host, Place, PowerCap
from probes.json_types import JsonObject


def fleet_to_json(fleet: Fleet) -> JsonObject:
    """Return the fleet as plain values; it holds no secret, only where keys lie."""
    return asdict(fleet)


def fleet_from_json(data: Mapping[str, Any]) -> Fleet:
    """Read it back."""
    return Fleet(
        name=data["name"],
        hosts=tuple(_host(host) for host in data["hosts"]),
        power_caps=tuple(PowerCap(**cap) for cap in data["power_caps"]),
        expected_versions=dict(data["expected_versions"]),
        salloc_options=tuple(data.get("salloc_options", ())),
        kubernetes=_jobs(data["kubernetes"]) if data.get("kubernetes") else None,
    )


def _jobs(data: Mapping[str, Any]) -> ClusterJobs:
    return ClusterJobs(**{**data, "host_paths": tuple(data.get("host_paths", ()))})


def _host(data: Mapping[str, Any]) -> Host:
    access, place = dict(data["access"]), dict(data["place"])
    access["wrapper"], place["rails"] = tuple(access["wrapper"]), tuple(place["rails"])
    parts = {
        "access": Access(**access),
        "place": Place(**place),
        "expected": Expected(**data["expected"]),
    }
    return Host(**{**data, **parts})
