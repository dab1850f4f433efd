"""Five hundred hosts over SSH: connected, sent the archive, followed for a minute; one sshd plays them all.

The hosts are loopback addresses of one sshd. What runs on each is no agent but a stand-in, started the same
way with the same archive: it says what an agent of eight GPUs says each second, answers for its clock and
leaves with its line. All of it shares this machine's cores with the controller, whose own CPU time and memory
are given. Needs root and sshd.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from probes.child import wait_until
from tests.benchmarks.figure import Figure

HOSTS, SECONDS, GPUS, AT_ONCE, PORT = 500, 60, 8, 32, 22522
START_S = 90  # in which all are to be there; each host speaks for this long and the measured minute
_SSHD = """\
Port {port}
ListenAddress 0.0.0.0
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
MaxStartups 1000
LogLevel ERROR
"""
_START = """\
mount --bind {folder}/passwd /etc/passwd && mount -t tmpfs tmpfs /run && mkdir /run/sshd
exec {sshd} -D -e -f {folder}/sshd_config
"""
# One second of eight GPUs as the sampler says it, the heartbeat, an answer to each question for the clock.
_STAND_IN = """\
import json, os, select, sys, time
gpu = {"power_w": 689.123, "power_max_w": 701.4, "sm_clock_mhz": 1755.0, "sm_clock_min_mhz": 1740,
       "event_reasons": 4, "held_hw_slowdown_pct": 0.0, "held_sw_thermal_pct": 0.0,
       "held_hw_thermal_pct": 0.0, "held_power_brake_pct": 0.0, "temperature_c": 64,
       "memory_temperature_c": 78, "util_pct": 100,
       "memory_clock_mhz": 2619, "pcie_replays": 0}
def say(source, kind, data):
    event = {"t_ns": time.time_ns(), "host": "x", "source": source, "kind": kind, "data": data}
    os.write(1, (json.dumps(event, separators=(",", ":")) + "\\n").encode())
say("agent", "agent.started", {})
began, second, rest = time.monotonic(), 0, b""
while second < int(sys.argv[2]):
    if select.select([0], [], [], max(began + second - time.monotonic(), 0))[0]:
        data = os.read(0, 4096)
        if not data:
            os._exit(1)
        *lines, rest = (rest + data).split(b"\\n")
        for line in lines:
            if line.startswith(b'{"clock"'):
                say("agent", "clock", {"asked_ns": json.loads(line)["clock"], "heard_ns": time.time_ns()})
        continue
    second += 1
    say("agent", "heartbeat", {})
    for index in range(int(sys.argv[3])):
        say("gpu", "sample", {"gpu": "GPU-%032x" % index, **gpu})
say("agent", "agent.finished", {})
"""


def figures() -> Iterator[Figure]:
    """Yield what connecting to all hosts takes, beside other clients, and what following them takes."""
    if os.geteuid() != 0 or shutil.which("sshd", path="/usr/sbin:/usr/bin") is None:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = _serve(folder)
        try:
            yield from _connects(folder)
            told = json.loads(_run([sys.executable, "-m", __name__, str(folder)], folder, timeout_s=900))
        finally:
            server.kill()
            server.wait()
    wanted = HOSTS * GPUS * (START_S + SECONDS)
    beside = f"{told['rows']:,} of {wanted:,} rows arrived; {told['finished']} hosts finished"
    for what, unit in (
        ("started_s", "s"),
        ("start_cpu_s", "s of CPU"),
        ("cpu_pct", "% of one core"),
        ("rss_mib", "MiB"),
    ):
        yield Figure(name=f"{HOSTS} hosts, {what}", median=told[what], unit=unit, repeats=1, beside=beside)
        beside = ""


def _connects(folder: Path) -> Iterator[Figure]:
    """Log in to every host and run ``true``, at most 32 at once."""
    ours = [sys.executable, "-m", __name__, str(folder), "connect"]
    known = f"-o UserKnownHostsFile={folder}/.ssh/known_hosts -o StrictHostKeyChecking=yes -o BatchMode=yes"
    openssh = f"xargs -P {AT_ONCE} -I% ssh {known} -p {PORT} -i {folder}/key % true < {folder}/hosts"
    clients = {"paramiko, as we use it": ours, "OpenSSH through xargs": ["sh", "-c", openssh]}
    if other := os.environ.get("PSSH_PYTHON"):  # a Python that has parallel-ssh
        clients["parallel-ssh (checks no host keys)"] = [
            other,
            "-c",
            _PSSH,
            str(folder),
            str(PORT),
            str(AT_ONCE),
        ]
    for client, command in clients.items():
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        _run(command, folder, timeout_s=600)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        name = f"log in to {HOSTS} hosts and run true: {client}"
        yield Figure(
            name=name,
            median=time.monotonic() - began,
            unit="s",
            repeats=1,
            beside=f"{cpu_s:.1f} s of CPU in the client",
        )


_PSSH = """\
import sys
from pssh.clients import ParallelSSHClient
hosts = open(sys.argv[1] + "/hosts").read().split()
client = ParallelSSHClient(
    hosts, user="root", port=int(sys.argv[2]), pkey=sys.argv[1] + "/key", pool_size=int(sys.argv[3])
)
output = client.run_command("true")
client.join()
assert [o.exit_code for o in output] == [0] * len(hosts)
"""


def _run(command: list[str], folder: Path, *, timeout_s: float) -> str:
    environment = os.environ | {"HOME": str(folder), "SSH_AUTH_SOCK": ""}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _serve(folder: Path) -> subprocess.Popen[bytes]:
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    addresses = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(HOSTS)]
    (folder / "hosts").write_text("\n".join(addresses) + "\n")
    (folder / ".ssh").mkdir()
    key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / ".ssh" / "known_hosts").write_text("".join(f"[{a}]:{PORT} {key}\n" for a in addresses))
    (folder / "passwd").write_text(
        f"root:x:0:0:root:{folder}:/bin/sh\nsshd:x:104:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    (folder / "sshd_config").write_text(_SSHD.format(folder=folder, port=PORT))
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin") or "sshd"
    script = _START.format(folder=folder, sshd=sshd)
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(unshare, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    assert wait_until(lambda: _is_open(), timeout_s=10), (folder / "log").read_text()
    return server


def _is_open() -> bool:
    import socket

    try:
        socket.create_connection(("127.1.0.1", PORT), timeout=1).close()
    except OSError:
        return False
    return True


def _connect_all(folder: Path) -> None:
    from probes.ssh import SshConnections
    from probes.ssh_config import SshTarget

    connections = SshConnections(connects_max=AT_ONCE)

    def log_in(address: str) -> None:
        target = SshTarget(name=address, user="root", port=PORT, identity_file=str(folder / "key"))
        client = connections.connect(target, within_s=60)
        channel = client.get_transport().open_session()  # type: ignore[union-attr]
        channel.exec_command("true")
        assert channel.recv_exit_status() == 0
        client.close()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(log_in, (folder / "hosts").read_text().split()))


def _follow_all(folder: Path) -> None:
    """Run the fleet with its real conductor, launcher and records; nothing is judged."""
    from typing import Any

    from burnin.fleet.archive import build_archive
    from burnin.fleet.conductor import Conductor
    from burnin.fleet.host import Access, Fleet, Host
    from burnin.fleet.host_run import HostJob
    from burnin.fleet.launchers.channel import ARCHIVE, Program
    from burnin.fleet.launchers.ssh import SshLauncher
    from burnin.node.order import Order
    from reports.record import create_run

    access = Access(user="root", port=PORT, identity_file=str(folder / "key"), python=sys.executable)
    hosts = tuple(
        Host(name=a, access=access, permission="listed") for a in (folder / "hosts").read_text().split()
    )
    writer = create_run(folder / "runs", kind="fleet", spec={}, seed=1)
    program = Program(
        arguments=("-c", _STAND_IN, ARCHIVE, str(START_S + SECONDS), str(GPUS)), archive=build_archive()
    )
    job = HostJob(
        fleet_run=writer.path, program=program, seed=1, spec={}, start_within_s=300, stop=threading.Event()
    )
    launcher = SshLauncher(connects_max=AT_ONCE)
    order = Order(device="cuda", stages=(), left_out=(), seed=1, stall_s=10)

    class NoJudges:
        def judge(self, folder: Path) -> dict[str, Any]:
            return {}

    conductor = Conductor(
        fleet=Fleet(name="bench", hosts=hosts),
        order=order,
        job=job,
        writer=writer,
        launcher_of=lambda host: launcher,
    )
    began, marks = time.monotonic(), {}

    def mark() -> None:
        states = [line.state for line in conductor.lines.values()]
        if "started" not in marks and not {"waiting", "connecting"} & set(states):
            marks["started"] = (time.monotonic(), _cpu_s())
        if "ending" not in marks and "started" in marks and time.monotonic() > marks["started"][0] + SECONDS:
            marks["ending"] = (time.monotonic(), _cpu_s())

    conductor.on_change = mark
    results = conductor.run(hosts, NoJudges())  # type: ignore[arg-type]
    launcher.close()
    (started, start_cpu), (ending, end_cpu) = (
        marks["started"],
        marks.get("ending", (time.monotonic(), _cpu_s())),
    )
    span_s = max(ending - started, 1e-9)
    print(  # noqa: T201
        json.dumps(
            {
                "started_s": started - began,
                "start_cpu_s": start_cpu,
                "cpu_pct": 100 * (end_cpu - start_cpu) / span_s,
                "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "rows": sum(
                    path.read_bytes().count(b"\n") for path in writer.path.glob("hosts/*/series/gpu.ndjson")
                ),
                "finished": sum(result.state == "finished" for result in results),
                "span_s": span_s,
                "lost": sorted({r.detail for r in results if r.state != "finished"}),
            }
        )
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    (_connect_all if "connect" in sys.argv[2:] else _follow_all)(Path(sys.argv[1]))
