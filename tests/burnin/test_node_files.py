"""What travels to nodes imports only what nodes have, and runs on their Python."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from burnin.node_files import NODE_MODULES
from tests.burnin.pythons import oldest_python

ROOT = Path(__file__).parent.parent.parent
BROUGHT = {"pynvml", "torch"}


def _file(module: str) -> Path:
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imports(module: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(_file(module).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if _file(name).exists() else node.module for name in names}
    return found


@pytest.mark.parametrize("module", NODE_MODULES)
def test_a_module_that_travels_imports_nothing_that_stays_behind(module: str) -> None:
    for name in _imports(module):
        top = name.partition(".")[0]

        assert top in sys.stdlib_module_names or top in BROUGHT or name in NODE_MODULES, name


def test_everything_that_the_programs_of_a_node_need_travels() -> None:
    programs = {"agent", "worker", "sampler", "host_load", "trial", "trial_rank", "neighbours"}
    needed, seen = {f"burnin.node.{name}" for name in programs}, set()
    while needed - seen:
        module = (needed - seen).pop()
        seen.add(module)
        needed |= {name for name in _imports(module) if name.startswith(("burnin", "probes"))}

    assert seen <= set(NODE_MODULES)
    assert set(NODE_MODULES) - seen == {"burnin", "burnin.node", "probes"}


@pytest.mark.parametrize("module", NODE_MODULES)
def test_a_module_that_travels_is_valid_python_3_10(module: str) -> None:
    ast.parse(_file(module).read_text(), feature_version=(3, 10))


def test_the_agent_runs_from_what_travels_alone_and_names_what_the_node_lacks(tmp_path: Path) -> None:
    for module in NODE_MODULES:
        target = tmp_path / _file(module).relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_file(module), target)
    shutil.copy(pynvml.__file__, tmp_path)
    stages = [
        {"name": "matmul", "length_s": 4, "options": {"formats": ["fp32"]}},
        {"name": "aftermath", "length_s": 0},
    ]
    order = {"device": "cpu", "stages": stages, "left_out": [], "seed": 1, "stall_s": 5}
    start = "import runpy; runpy.run_module('burnin.node.agent', run_name='__main__')"
    with subprocess.Popen(
        [oldest_python(), "-c", start],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        assert agent.stderr is not None
        agent.stdin.write(json.dumps(order) + "\n")
        agent.stdin.flush()
        told = {event["kind"]: event["data"] for event in map(json.loads, agent.stdout)}
        errors = agent.stderr.read()

    assert {"agent.started", "nvml.inventory", "host.snapshot", "agent.finished"} <= told.keys(), errors
    assert "worker.done" in told or "No module named 'torch'" in told["worker.failed"]["error"]
