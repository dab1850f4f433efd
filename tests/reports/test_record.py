"""The record on disk: what it holds, what it hides, and how it says that it cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.errors import ConfigError, RecordError
from probes.finding import Finding
from probes.outcome import Outcome
from reports.record import (
    SCHEMA_VERSION,
    create_run,
    load_header,
    make_folder,
    mask_arguments,
    mask_secrets,
    write_atomically,
)
from reports.run import load_run


def test_a_new_run_names_its_process_its_seed_and_its_versions(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="burnin", spec={"profile": "gate"}, seed=7) as writer:
        header = load_header(writer.path)

    assert header == writer.header
    assert (header.pid, header.seed, header.schema_version) == (os.getpid(), 7, SCHEMA_VERSION)
    assert {"python", "kernel", "overproof"} <= header.versions.keys()


def test_latest_points_at_the_newest_top_level_run_only(tmp_path: Path) -> None:
    first = create_run(tmp_path, kind="gameday", spec={}, seed=0)
    assert (tmp_path / "latest").resolve() == first.path.resolve()

    create_run(tmp_path, kind="load", spec={}, seed=0, is_child=True, path=first.path / "load")
    assert (tmp_path / "latest").resolve() == first.path.resolve()

    second = create_run(tmp_path, kind="load", spec={}, seed=0)
    assert (tmp_path / "latest").resolve() == second.path.resolve()


def test_runs_that_start_in_one_second_do_not_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    assert make_folder(tmp_path, ["taken", "free", "later"]) == tmp_path / "free"
    with pytest.raises(FileExistsError):
        make_folder(tmp_path, ["taken", "free"])


def test_a_run_is_called_by_its_folder(tmp_path: Path) -> None:
    run = create_run(tmp_path, kind="load", spec={}, seed=0)

    assert run.path.name == run.header.id


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_folder_under_a_file_cannot_be_written_and_is_named(where: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ConfigError, match=r"the run folder cannot be made: (Not a directory|File exists)"):
        create_run(tmp_path / where, kind="load", spec={}, seed=0)


READ_ONLY = """
mount -t tmpfs -o size=1m none "$1" && mount -o remount,ro "$1" || exit 99
exec "$2" -P -c '
import sys
from pathlib import Path
from probes.errors import ConfigError
from reports.record import create_run
try:
    create_run(Path(sys.argv[1]), kind="load", spec={}, seed=0)
except ConfigError as error:
    print(error)
' "$1"
"""


@pytest.mark.needs("root")
def test_a_read_only_disk_is_named_also_to_root(tmp_path: Path) -> None:
    command = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", str(tmp_path), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert done.stdout.strip().endswith("the run folder cannot be made: Read-only file system"), done.stderr


def test_secrets_are_masked_in_spec_and_command_but_not_where_they_are_looked_up() -> None:
    spec = {"api_key": "sk-1", "api_key_env": "KEY", "ssh": [{"password": "p", "user": "u"}], "Secret": ""}

    assert mask_secrets(spec) == {
        "api_key": "***",
        "api_key_env": "KEY",
        "ssh": [{"password": "***", "user": "u"}],
        "Secret": "",
    }
    assert mask_arguments(["load", "--api-key", "sk-1", "--password=p", "--api-key-env", "KEY", "x"]) == [
        "load", "--api-key", "***", "--password=***", "--api-key-env", "KEY", "x",
    ]  # fmt: skip


@given(
    st.text(min_size=8, alphabet="abcdef0123456789"),
    st.sampled_from(["--api-key", "--db-password", "--secret"]),
)
def test_no_secret_of_a_command_line_is_ever_kept(secret: str, flag: str) -> None:
    assert secret not in " ".join(mask_arguments(["run", flag, f"{secret}!"])).replace("!", "")
    assert f"{secret}!" not in " ".join(mask_arguments(["run", f"{flag}={secret}!"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "not a run folder"),
        ("{", "not JSON"),
        ("[]", "has no schema_version"),
        ('{"id": "x"}', "has no schema_version"),
        ('{"schema_version": 999}', "this overproof reads up to"),
        ('{"schema_version": 1}', "incomplete"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_with_the_reason(
    text: str | None, said: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)

    with pytest.raises(ConfigError, match=said):
        load_run(tmp_path)


def test_what_a_newer_minor_version_added_to_the_header_is_passed_over(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="load", spec={}, seed=3) as writer:
        data = json.loads((writer.path / "run.json").read_text())
        (writer.path / "run.json").write_text(json.dumps(data | {"colour": "red"}))

    assert load_header(writer.path) == writer.header


def test_a_reader_sees_the_old_findings_or_the_new_and_leftovers_of_a_crash_do_no_harm(
    tmp_path: Path,
) -> None:
    with create_run(tmp_path, kind="load", spec={}, seed=0) as writer:
        old = [Finding(rule="a", subject="s", outcome=Outcome.FAIL, observed="", expected="")]
        writer.write_findings(old)
        (writer.path / ".findings.ndjson.123").write_text('{"rule":"half')

    assert load_run(writer.path).findings == old


def test_writing_atomically_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()

    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "target", "text")

    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_record_whose_folder_is_gone_says_so(tmp_path: Path) -> None:
    with create_run(tmp_path, kind="load", spec={}, seed=0) as writer:
        (writer.path / "series").rmdir()
        (writer.path / "series").write_text("in the way")

        with pytest.raises(
            RecordError, match=r"series/gpu\.ndjson: cannot be written: .*; the run stops here"
        ):
            writer.sample("gpu", {"t_ns": 1})


def test_lines_of_two_processes_never_mix(tmp_path: Path) -> None:
    writer = create_run(tmp_path, kind="load", spec={}, seed=0)
    code = (
        "import sys; from pathlib import Path; from reports.record import RunWriter, load_header\n"
        "path = Path(sys.argv[1]); writer = RunWriter(path, load_header(path))\n"
        "for k in range(400): writer.event(sys.argv[2], 'tick', k=k, text='x' * (k % 300))\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-P", "-c", code, str(writer.path), name])
        for name in ("a", "b", "c")
    ]

    assert [child.wait(timeout=30) for child in children] == [0, 0, 0]
    events = load_run(writer.path).events
    assert {name: [e.data["k"] for e in events if e.source == name] for name in "abc"} == {
        name: list(range(400)) for name in "abc"
    }
    writer.close()
