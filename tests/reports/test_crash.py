"""kill -9 and full disks, for real: whatever was written stays, opens and can be shown."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from probes.errors import ConfigError
from probes.outcome import Outcome
from reports.publish import publish
from reports.run import Run, load_run
from reports.session import rejudge
from reports.table import read_requests, read_series

KILLS = 10
SEED = 20261121

# Appends as fast as it can, in lines from a few bytes to some pages; after each write it says what is safe.
WRITER = """
import os, sys
from pathlib import Path
from reports.record import create_run
from tests.reports.recorded import request
from probes.event import to_json_line
writer = create_run(Path(sys.argv[1]), kind="load", spec={}, seed=0)
os.write(1, f"{writer.path}\\n".encode())
for k in range(10**9):
    writer.event("load", "tick", k=k, text="é" * (k * 7919 % 9000))
    writer.sample("client", {"t_ns": writer.header.started_ns + k, "subject": "client:0", "cpu_pct": k})
    row = request(writer.header.started_ns, k, k / 1000)
    line = to_json_line({name: getattr(row, name) for name in row.__slots__})
    writer.append_line("requests/worker-0.ndjson", line)
    os.write(1, f"{k}\\n".encode())
"""


def killed_at(delay_s: float, folder: Path) -> tuple[Path, int]:
    """Start the writer, kill -9 it this long after its first row; return its run and the last row it told."""
    said = folder / "said"
    with said.open("wb") as file:
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", WRITER, str(folder)], stdout=file, env=with_tests()
        )
    deadline = time.monotonic() + 20
    while said.read_bytes().count(b"\n") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay_s)
    os.kill(child.pid, signal.SIGKILL)
    child.wait(timeout=10)
    lines = said.read_text().splitlines()
    return Path(lines[0]), int(lines[-1])


def with_tests() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def judge_nothing(run: Run) -> list:  # type: ignore[type-arg]
    del run
    return []


def test_after_kill_9_at_any_moment_every_row_is_there_and_the_report_renders(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        folder.mkdir()
        path, last = killed_at(chance.uniform(0.0, 0.08), folder)

        run = load_run(path)
        ticks = [event.data["k"] for event in run.events]
        samples = [row["cpu_pct"] for row in read_series(run, "client")]
        requests = [request.index for request in read_requests(path)]

        assert run.state == "interrupted"
        assert run.outcome is Outcome.INCONCLUSIVE
        for found in (ticks, samples, requests):  # all that was told, at most the one under way beyond it
            assert found == list(range(len(found)))
            assert last + 1 <= len(found) <= last + 2

        rejudge(run, judge_nothing)
        publish(load_run(path))
        assert "interrupted" in (path / "report.html").read_text()
        assert 'errors="1"' in (path / "junit.xml").read_text()


@pytest.mark.parametrize(
    "torn", ["events.ndjson", "findings.ndjson", "series/client.ndjson", "requests/worker-0.ndjson"]
)
def test_a_file_cut_anywhere_still_opens_and_renders(torn: str, tmp_path: Path) -> None:
    path, _ = killed_at(0.03, tmp_path)
    rejudge(load_run(path), judge_nothing)
    whole = (path / torn).read_bytes()
    chance = random.Random(SEED)

    for _ in range(4):
        (path / torn).write_bytes(whole[: chance.randrange(len(whole))])
        run = load_run(path)
        publish(run)
        assert run.outcome is Outcome.INCONCLUSIVE
        assert "INCONCLUSIVE" in (path / "report.html").read_text()


@pytest.mark.parametrize("missing", ["series", "requests", "events.ndjson", "findings.ndjson"])
def test_a_record_with_a_part_missing_opens_and_renders(missing: str, tmp_path: Path) -> None:
    path, _ = killed_at(0.0, tmp_path)
    gone = path / missing
    if gone.is_dir():
        for part in gone.iterdir():
            part.unlink()
        gone.rmdir()
    else:
        gone.unlink(missing_ok=True)

    publish(load_run(path))

    assert "INCONCLUSIVE" in (path / "report.html").read_text()


def test_a_folder_that_died_before_its_first_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()

    with pytest.raises(ConfigError, match="not a run folder"):
        load_run(tmp_path)


# On a disk of 1 MiB: fill it with samples, as a job would, through the same session that jobs use.
FULL_DISK = """
mount -t tmpfs -o size=1m none "$1" || exit 99
"$2" -P -c '
import json, sys
from pathlib import Path
from probes.errors import RecordError
from probes.finding import Finding
from probes.outcome import Outcome
from reports.record import create_run
from reports.run import load_run
from reports.session import recording

def judge(run):
    return [Finding(rule="slo", subject="slo:x", outcome=Outcome.PASS, observed="fine", expected="fine")]

writer = create_run(Path(sys.argv[1]), kind="burnin", spec={}, seed=0)
told = 0
try:
    with recording(writer, judge):
        while told < 10**6:
            writer.sample("gpu", {"t_ns": told, "text": f"{told * 2654435761 % 2**32:x}" * 8})
            told += 1
except RecordError as error:
    print(json.dumps({"error": str(error), "notes": error.__notes__}))
run = load_run(writer.path)
from reports.table import read_series
print(json.dumps({
    "told": told, "kept": len(read_series(run, "gpu")), "state": run.state, "outcome": run.outcome.value,
    "findings": [[f.rule, f.observed] for f in run.findings],
    "files": sorted(p.name for p in run.path.iterdir()),
}))
' "$1"
"""


@pytest.mark.needs("root")
def test_on_a_full_disk_the_run_stops_with_a_finding_and_loses_no_row(tmp_path: Path) -> None:
    command = ["unshare", "-m", "sh", "-c", FULL_DISK, "sh", str(tmp_path), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    error, result = map(json.loads, done.stdout.splitlines())

    assert "No space left on device; the run stops here" in error["error"]
    assert error["notes"][0].startswith("record: ")
    assert result["told"] == result["kept"] > 1000
    assert (result["state"], result["outcome"]) == ("stopped", "inconclusive")
    [completeness] = [observed for rule, observed in result["findings"] if rule == "completeness"]
    assert re.match(r"stopped: .*series/gpu\.ndjson: cannot be written: No space left", completeness)
    assert "report.html" in result["files"]


# A process that only appends, such as a load worker: the reserve is given back, and lines fit again.
FULL_DISK_OF_A_WORKER = """
mount -t tmpfs -o size=1m none "$1" || exit 99
"$2" -P -c '
import json, sys
from pathlib import Path
from probes.errors import RecordError
from reports.record import RunWriter, create_run
from reports.run import load_run
from reports.table import read_series

path = create_run(Path(sys.argv[1]), kind="load", spec={}, seed=0).path
worker = RunWriter(path, load_run(path).header)
told = 0
try:
    while told < 10**6:
        worker.sample("client", {"t_ns": told, "text": "x" * 999})
        told += 1
except RecordError:
    worker.event("load", "load.stopped", reason="disk is full")
    worker.sample("client", {"t_ns": -1})
run = load_run(path)
rows = [row["t_ns"] for row in read_series(run, "client")]
print(json.dumps([rows == [*range(told), -1], [event.kind for event in run.events]]))
' "$1"
"""


@pytest.mark.needs("root")
def test_after_a_line_found_no_room_the_next_ones_are_whole(tmp_path: Path) -> None:
    command = ["unshare", "-m", "sh", "-c", FULL_DISK_OF_A_WORKER, "sh", str(tmp_path), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, ["load.stopped"]]
