"""Which versions are at work: Python, kernel, driver, ourselves and the libraries that we are built on.

None of the libraries is imported to find out, and NVML is asked by a process of its own: on a node whose GPU
is dying a call may never return.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata

from probes.child import end_child, python_module, start_child
from probes.json_types import JsonObject
from reports.text import one_line

SCHEMA_VERSION = 1
_OURSELVES = "overproof"
_TORCH = "torch"
_DRIVER_WITHIN_S = 5.0


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each of these packages that is installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def version_document() -> JsonObject:
    """Return what ``overproof version --json`` prints; what is absent is named with the reason."""
    driver, why_no_driver = read_driver()
    wanted = [_OURSELVES, *dict.fromkeys((*_libraries(), _TORCH))]
    found = installed_versions(wanted)
    absent = {name: "not installed" for name in wanted if name not in found}
    if _TORCH in absent:
        absent[_TORCH] += "; a burn-in needs it: pip install 'overproof[burnin]'"
    versions = {"python": sys.version.split()[0], "kernel": os.uname().release} | found
    if driver:
        versions["driver"] = driver
    else:
        absent["driver"] = why_no_driver
    return {"schema_version": SCHEMA_VERSION, "versions": versions, "absent": absent}


def _libraries() -> Iterator[str]:
    """Yield the name of each package that an installed overproof asks for, without those of extras."""
    try:
        wanted = metadata.requires(_OURSELVES) or []
    except metadata.PackageNotFoundError:
        return  # run from its sources
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement)
        if name and "extra ==" not in requirement:
            yield name[0]


def read_driver(command: Callable[[], list[str]] = lambda: python_module("probes.driver")) -> tuple[str, str]:
    """Return the version of the NVIDIA driver by NVML, and why there is none."""
    child = start_child(command(), stderr=subprocess.DEVNULL)
    try:
        said = json.loads(child.communicate(timeout=_DRIVER_WITHIN_S)[0])
    except subprocess.TimeoutExpired:
        return "", f"NVML did not answer within {_DRIVER_WITHIN_S:g} s"
    except ValueError:
        return "", f"asking NVML ended with exit code {child.returncode}"
    finally:
        end_child(child)
    return str(said.get("driver", "")), one_line(str(said.get("absent", "")))


def render_lines(document: JsonObject) -> Iterator[str]:
    """Yield the terminal's lines."""
    width = max(map(len, [*document["versions"], *document["absent"]]))
    for name, version in document["versions"].items():
        yield f"{name:<{width}}  {version}"
    for name, why in document["absent"].items():
        yield f"{name:<{width}}  – {why}"
