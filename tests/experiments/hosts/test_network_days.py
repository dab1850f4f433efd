"""Game days on real hosts under traffic: a cut network shows in the requests, and in what coverage counts."""

from __future__ import annotations

import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from experiments.coverage import shown_by
from probes.child import wait_until
from probes.json_types import JsonObject
from probes.outcome import Outcome
from reports.run import Run, load_run
from tests.experiments.hosts.real_hosts import real_hosts, start_host, start_program, target_of
from tests.processes import Job, start_job
from tests.ssh_hosts import SshHost

pytestmark = [pytest.mark.needs("root", "sshd", "ip", "nft"), pytest.mark.timeout(400)]
PORT = 8400
LINK = "svc0"  # beside the one that carries SSH
FAULTS: dict[str, JsonObject] = {
    "link_down": {"interface": LINK},
    "network_blackhole": {"ports": [PORT]},
}
ROOT = Path(__file__).parents[3]


def serve(host: SshHost, number: int) -> str:
    """Join a host with us by a link of its own, start an endpoint behind it, and return its address."""
    ours, network = f"sv{secrets.token_hex(3)}", f"10.79.{number}"
    for words in (
        ["link", "add", ours, "type", "veth", "peer", "name", LINK, "netns", host.namespace],
        ["addr", "add", f"{network}.1/24", "dev", ours],
        ["link", "set", ours, "up"],
        ["-n", host.namespace, "addr", "add", f"{network}.2/24", "dev", LINK],
        ["-n", host.namespace, "link", "set", LINK, "up"],
    ):
        subprocess.run(["ip", *words], check=True)
    start_program(
        host, f"cd {ROOT} && {sys.executable} -m overproof load endpoint --host {network}.2 --port {PORT}"
    )
    url = f"http://{network}.2:{PORT}"
    assert wait_until(lambda: _answers(url), timeout_s=60)
    return url


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def write_day(folder: Path, function: str, hosts: list[SshHost], url: str) -> Path:
    """Write a day on which the network of the first host is cut for some seconds."""
    kept = [{"metric": "goodput", "objective": 0.5}]
    arguments = FAULTS[function] | {"host": hosts[0].name, "undo_after_s": 90}
    ours = {"type": "python", "module": "experiments.hosts.actions"}
    undo = {"type": "action", "name": "mend", "timeout": 60, "provider": ours | {"func": "undo_faults"}}
    workload: JsonObject = {
        "name": "chat",
        "endpoint": {"url": url, "connect_timeout_s": 1, "first_byte_timeout_s": 2, "timeout_s": 4},
        "arrivals": {"kind": "poisson", "rate_per_s": 10},
        "duration_s": 60,
        "prompt": {
            "input_tokens": {"kind": "constant", "value": 16},
            "output_tokens": {"kind": "constant", "value": 4},
        },
    }
    document: JsonObject = {
        "title": "A cut network",
        "description": "Requests fail while the network of a host is cut, and are good again afterwards.",
        "runtime": {"rollbacks": {"strategy": "always"}},
        "method": [
            {
                "type": "action",
                "name": "cut",
                "timeout": 60,
                "pauses": {"after": 4},
                "provider": ours | {"func": function, "arguments": arguments},
            }
        ],
        "rollbacks": [undo],
        "extensions": [
            {
                "name": "overproof",
                "target": {
                    "name": "service",
                    "endpoint": url,
                    "hosts": [host.to_json() for host in target_of(*hosts).hosts],
                },
                "workload": "workload.yaml",
                "steady_s": 4,
                "recovery_s": 30,
                "after_s": 4,
                "slos": {
                    "before": kept,
                    "during": [{"metric": "goodput", "objective": 0.01}],
                    "after": kept,
                },
            }
        ],
    }
    folder.mkdir()
    (folder / "workload.yaml").write_text(yaml.safe_dump(workload))
    path = folder / "day.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Run, str]]]:
    """One day for each fault, at the same time, each on two hosts of its own."""
    folder = tmp_path_factory.mktemp("network")
    jobs: dict[str, Job] = {}
    with real_hosts(folder / "hosts") as hosts:
        for number, function in enumerate(FAULTS):
            name = function.replace("_", "-")
            pair = [start_host(hosts, f"{name}-{n}") for n in (1, 2)]
            path = write_day(folder / name, function, pair, serve(pair[0], number))
            jobs[function] = start_job(["gameday", "run", path.name], path.parent)
        ended = {}
        try:
            for function, job in jobs.items():
                job.wait(timeout_s=300)
                (path,) = job.log.parent.glob("runs/*-gameday-*/run.json")
                ended[function] = load_run(path.parent), job.text()
            yield ended
        finally:
            for job in jobs.values():
                job.process.kill()
                job.process.wait()


@pytest.mark.parametrize(
    ("function", "categories"),
    [("link_down", {"network-link", "nic"}), ("network_blackhole", {"network-link"})],
)
def test_a_cut_network_is_noticed_by_requests_and_undone(
    days: dict[str, tuple[Run, str]], function: str, categories: set[str]
) -> None:
    run, said = days[function]
    outcomes = {finding.rule: finding.outcome for finding in run.findings}

    assert {outcomes.get(rule) for rule in ("fault", "detection", "undo", "collateral")} == {Outcome.PASS}, (
        said
    )
    assert {(one.category, one.fidelity, one.how) for one in shown_by(run)} == {
        (category, "N", "found by detection") for category in categories
    }
