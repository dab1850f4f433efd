"""Whole burn-ins in surroundings that keep something from them: a container, a user without rights, a
selection of GPUs, slices, company, a GPU that cannot be opened. What was not seen is said, and judged.

Containers and users are real ones; the GPUs are those of the twin of NVML. A run on GPUs ends early here,
since torch sees none; until then which worker is given which GPU is the agent's own doing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from probes.child import wait_until
from tests.processes import processes_with
from tests.twins.machine import FIRST_BUS, Machine, build_driver
from tests.twins.nvml import uuid

pytestmark = [pytest.mark.needs("gcc"), pytest.mark.needs("root"), pytest.mark.needs("unshare")]
RUN = (sys.executable, "-P", "-m", "overproof", "burnin", "run", "--plan", "plan.yaml", "--json")
CPU_PLAN = "device: cpu\nonly: [matmul]\nmatmul: {length_s: 2, formats: [fp32]}\n"
ONE_PLAN = f"{CPU_PLAN}cpu_devices: 1\n"
GPU_PLAN = "device: auto\nonly: [matmul]\nmatmul: {length_s: 2, formats: [fp32]}\n"
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
# What a container runtime makes of a machine: namespaces, a /dev of a few devices, masked files, no DMI.
CONTAINER = r"""
set -e
mount --make-rprivate /
mount -t proc proc /proc
for path in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do
    if [ -e $path ]; then mount --bind /dev/null $path; fi
done
for path in /proc/scsi /proc/acpi /sys/firmware /sys/devices/virtual/dmi /sys/class/dmi; do
    if [ -d $path ]; then mount -t tmpfs -o ro tmpfs $path; fi
done
mkdir -p "$1/dev"
mount -t tmpfs tmpfs "$1/dev"
for device in null zero full random urandom; do
    touch "$1/dev/$device"
    mount --bind /dev/$device "$1/dev/$device"
done
mkdir "$1/dev/shm"
mount -t tmpfs -o size=1g tmpfs "$1/dev/shm"
ln -s /proc/self/fd "$1/dev/fd"
mount --rbind "$1/dev" /dev
mount --bind "$2" "$3"
shift 3
exec "$@"
"""
JOURNAL = """#!/bin/sh
# A stand-in for journalctl: the boot's first message, and what stands in the file once --since is asked for.
case "$*" in
*--since=*) cat "{journal}" ;;
*) echo "Linux version 6.8.0 (seeded by a test)" ;;
esac
"""


@dataclass(frozen=True, kw_only=True)
class Burning:
    """One run of the command, and the folder that it writes to."""

    process: subprocess.Popen[str]
    folder: Path
    mark: str

    def has_told(self, kind: str) -> bool:
        return any(f'"{kind}"' in path.read_text() for path in self.folder.glob("runs/2*/events.ndjson"))

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> Ended:
        said, errors = self.process.communicate(timeout=120)
        assert said, errors
        return Ended(exit_code=self.process.returncode, document=json.loads(said))


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a run came to."""

    exit_code: int
    document: dict[str, Any]
    given: frozenset[str] = frozenset()  # GPUs by the environment of the workers, where somebody watched

    def having(self, outcome: str | None) -> dict[tuple[str, str], str]:
        """Return what was observed by rule and subject."""
        found = [f for f in self.document["findings"] if f["outcome"] == outcome]
        return {(f["rule"], f["subject"]): f["observed"] for f in found}

    def told(self, rule: str) -> dict[str, Any]:
        """Return the one finding of a rule."""
        (finding,) = [f for f in self.document["findings"] if f["rule"] == rule]
        return dict(finding)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_driver(tmp_path_factory.mktemp("driver"), 580)
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Return a folder that any user can reach, unlike pytest's own."""
    folder = Path("/tmp") / f"overproof-surroundings-{os.getpid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def _begin(
    home: Path, name: str, driver: Path, *faults: str, around: Sequence[str] = (), plan: str, **env: str
) -> Burning:
    folder = home / name
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    machine = Machine(folder=folder, library=home / "driver", gpus=4)
    if not machine.library.exists():
        shutil.copytree(driver, machine.library)
    machine.write(*faults)
    (folder / "plan.yaml").write_text(plan)
    process = subprocess.Popen(
        [*around, *RUN],
        cwd=folder,
        env=os.environ | machine.environment() | {"OVERPROOF_TEST_JOB": str(folder)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Burning(process=process, folder=folder, mark=f"OVERPROOF_TEST_JOB={folder}")


def _container(home: Path, group: tuple[str, str]) -> list[str]:
    script = home / "container.sh"
    script.write_text(CONTAINER)
    root = home / "container-root"
    root.mkdir()
    spaces = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork")
    no_rights = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    into = ("sh", "-c", f'echo $$ > {group[0]}/cgroup.procs; exec "$@"', "sh")
    return [*into, *spaces, "sh", str(script), str(root), *group, *no_rights]


@pytest.fixture(scope="module")
def one_core() -> Iterator[tuple[str, str]]:
    """Make a control group that may use one core; return its folder, and where a container sees it."""
    top = Path("/sys/fs/cgroup")
    is_new = (top / "cgroup.controllers").exists()
    place = top if is_new else top / "cpu"
    group = place / f"overproof-test-{os.getpid()}"
    try:
        group.mkdir()
        if is_new:
            (group / "cpu.max").write_text("100000 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text("100000")
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield str(group), str(place)
    assert wait_until(lambda: not (group / "cgroup.procs").read_text(), timeout_s=10)
    group.rmdir()


def _locked_log(home: Path) -> list[str]:
    """Return a prefix that keeps the kernel's log from all but root, and then becomes nobody.

    An interpreter below root's own folder is made reachable first, in the same mount namespace.
    """
    (home / "kmsg").touch(mode=0o600)
    (home / "python").mkdir()
    real = Path(sys.base_prefix).resolve()
    above = [folder for folder in reversed(real.parents) if not folder.stat().st_mode & 0o001]
    open_up = (
        f"mount --bind {real} {home}/python && mount -t tmpfs -o mode=755 tmpfs {above[0]} && "
        f"mkdir -p {real} && mount --bind {home}/python {real} && "
        if above
        else ""
    )
    lock = f'mount --make-rprivate / && {open_up}mount --bind {home}/kmsg /dev/kmsg && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", lock, "sh", *NOBODY]


@pytest.fixture(scope="module")
def ends(home: Path, driver: Path, one_core: tuple[str, str]) -> dict[str, Ended]:
    """Run all of them at once: they wait most of the time."""
    locked = _locked_log(home)
    reads = (
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-P', '-m', 'burnin.node.order']))"
    )
    if subprocess.run([*locked, sys.executable, "-P", "-c", reads], check=False).returncode:
        pytest.skip("the user nobody cannot read this checkout")
    journal = home / "bin" / "journalctl"
    journal.parent.mkdir()
    log = home / "journal.log"
    log.touch()
    journal.write_text(JOURNAL.format(journal=log))
    journal.chmod(0o755)
    path = f"{journal.parent}:{os.environ['PATH']}"
    begun = {
        "container": _begin(
            home, "container", driver, around=_container(home, one_core), plan=CPU_PLAN, PATH="/usr/bin:/bin"
        ),
        "nobody": _begin(home, "nobody", driver, around=locked, plan=ONE_PLAN),
        "journal": _begin(home, "journal", driver, around=locked, plan=ONE_PLAN, PATH=path),
        "slices": _begin(home, "slices", driver, "mig.1 1", plan=GPU_PLAN),
        "company": _begin(home, "company", driver, "processes.2 4242", plan=GPU_PLAN),
        "unopened": _begin(home, "unopened", driver, "unopened.3 15", "processes.2 4242", plan=ONE_PLAN),
        "selection": _begin(
            home, "selection", driver, plan=GPU_PLAN, CUDA_VISIBLE_DEVICES=f"{uuid(2)},{uuid(1)}"
        ),
    }
    try:
        given = _given(begun["selection"])
        assert wait_until(
            lambda: begun["journal"].has_told("worker.ready") or begun["journal"].has_ended(), timeout_s=90
        )
        gone = (
            f"NVRM: Xid (PCI:0000:{FIRST_BUS + 3:02x}:00): 79, pid='<unknown>', GPU has fallen off the bus."
        )
        log.write_text(f"{gone}\n")
        with ThreadPoolExecutor(max_workers=len(begun)) as pool:
            ended = dict(zip(begun, pool.map(Burning.end, begun.values()), strict=True))
    finally:
        for burning in begun.values():
            burning.process.kill()  # where something here failed; its children end themselves
    return ended | {"selection": replace(ended["selection"], given=given)}


def test_a_healthy_machine_in_a_container_fails_nothing_and_says_that_there_is_no_kernel_log(
    ends: dict[str, Ended],
) -> None:
    end = ends["container"]
    undecided = {rule for rule, _ in end.having("inconclusive")}

    assert end.having("fail") == {}
    # Two devices share one core with whatever else runs on this machine: they may come to too little load.
    assert undecided <= {"load-reached"}
    assert end.exit_code == (3 if undecided else 0)
    assert end.told("kernel-log")["outcome"] is None
    assert "there is none here: /dev/kmsg" in end.told("kernel-log")["observed"]


def test_in_a_container_only_the_cores_of_its_quota_are_counted(ends: dict[str, Ended]) -> None:
    assert " 1 cores," in ends["container"].told("room")["observed"]


def test_a_kernel_log_that_is_kept_from_us_leaves_the_host_undecided_and_nothing_else(
    ends: dict[str, Ended],
) -> None:
    end, told = ends["nobody"], ends["nobody"].told("kernel-log")

    assert (end.exit_code, end.having("fail")) == (3, {})
    # Too little load is the doing of what else runs on this machine.
    assert {rule for rule, _ in end.having("inconclusive")} - {"load-reached"} == {"kernel-log"}
    assert "not for this user: /dev/kmsg: Permission denied" in told["observed"]
    assert "group adm" in told["next_step"]


def test_where_only_the_journal_may_be_read_an_xid_in_it_fails_the_gpu(ends: dict[str, Ended]) -> None:
    end = ends["journal"]

    assert set(end.having("fail")) == {("xid", f"gpu:{uuid(3)}")}
    assert end.told("kernel-log")["observed"] == "followed by journalctl -k"
    assert (end.exit_code, end.told("kernel-log")["outcome"]) == (1, "pass")


def test_a_gpu_in_slices_keeps_the_run_from_loading_anything_and_is_named(ends: dict[str, Ended]) -> None:
    end = ends["slices"]
    events = (Path(end.document["run"]) / "events.ndjson").read_text()

    assert (end.exit_code, end.having("fail")) == (3, {})
    assert end.told("devices")["observed"] == f"MIG is on: {uuid(1)}"
    assert ("mig", f"gpu:{uuid(1)}") in end.having("inconclusive")
    assert "worker." not in events


def test_a_process_that_is_there_at_the_start_keeps_the_run_from_touching_any_gpu(
    ends: dict[str, Ended],
) -> None:
    end = ends["company"]
    events = (Path(end.document["run"]) / "events.ndjson").read_text()

    assert (end.exit_code, end.having("fail")) == (3, {})
    assert end.told("devices")["observed"] == f"in use: {uuid(2)} by pid 4242"
    assert "worker." not in events


def test_beside_a_load_of_the_cores_only_the_gpu_with_company_is_undecided(ends: dict[str, Ended]) -> None:
    told = ends["unopened"].having("inconclusive")

    assert "4242" in told["foreign-process", f"gpu:{uuid(2)}"]
    assert {subject for _, subject in told if subject.startswith("gpu:")} == {f"gpu:{uuid(2)}"}


def test_a_gpu_that_nvml_counts_and_cannot_open_fails_the_run_and_the_others_are_judged(
    ends: dict[str, Ended],
) -> None:
    end = ends["unopened"]

    assert end.exit_code == 1
    assert set(end.having("fail")) == {("gpu-lost", "gpu:number 3 of NVML")}
    assert "GPU is lost" in end.having("fail")["gpu-lost", "gpu:number 3 of NVML"]
    assert {subject for rule, subject in end.having("pass") if rule == "required-evidence"} == {
        f"gpu:{uuid(n)}" for n in range(3)
    }


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_gpus_that_nvml_lists_and_torch_cannot_use_fail_the_run(ends: dict[str, Ended]) -> None:
    assert ends["selection"].exit_code == 1
    assert ends["selection"].told("devices")["observed"] == "torch can use 0 of 2 devices"


def test_of_a_selection_each_worker_is_given_its_own_gpu_and_the_hidden_ones_are_undecided(
    ends: dict[str, Ended],
) -> None:
    end = ends["selection"]
    inventory = next(e for e in _events(end) if e["kind"] == "inventory")["data"]
    hidden = {subject for rule, subject in end.having("inconclusive") if rule == "visible-devices"}

    assert end.given == {uuid(1), uuid(2)}
    assert [device["name"] for device in inventory["devices"]] == [uuid(2), uuid(1)]
    assert hidden == {f"gpu:{uuid(0)}", f"gpu:{uuid(3)}"}


def _given(burning: Burning) -> frozenset[str]:
    """Watch which GPUs the workers of a run are given; each has one, by its UUID."""
    given: set[str] = set()

    def has_seen_both() -> bool:
        workers = [pid for pid, command in processes_with(burning.mark) if "burnin.node.worker" in command]
        given.update(visible for pid in workers if (visible := _environment(pid, "CUDA_VISIBLE_DEVICES")))
        return len(given) > 1 or burning.has_ended()

    wait_until(has_seen_both, timeout_s=60, interval_s=0.02)
    return frozenset(given)


def _environment(pid: int, name: str) -> str | None:
    try:
        entries = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None  # it ended meanwhile
    found = [entry.decode() for entry in entries if entry.startswith(f"{name}=".encode())]
    return found[0].partition("=")[2] if found else None


def _events(end: Ended) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (Path(end.document["run"]) / "events.ndjson").read_text().splitlines()
    ]
