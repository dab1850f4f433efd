"""Starts a golden endpoint as a child, and gets its record from it."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests.calibration.golden_certificate import write_certificate
from loadtests.calibration.golden_record import GoldenRecord, read_golden
from probes.child import end_child, python_module, start_child
from probes.errors import TargetError

_START_S = 20.0
_RECORD_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A golden endpoint that runs."""

    child: subprocess.Popen[str]
    port: int
    record_path: Path
    ca_file: Path | None = None  # None: it speaks plain HTTP

    @property
    def url(self) -> str:
        """Return where it answers."""
        return f"{'http' if self.ca_file is None else 'https'}://127.0.0.1:{self.port}"

    def stop(self) -> GoldenRecord:
        """Have it write its record, and return that.

        Raises:
            RecordError: it died, or its record is not whole.
        """
        assert self.child.stdin is not None
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # it may have died: no record then
            self.child.stdin.write("stop\n")
            self.child.stdin.flush()
            self.child.wait(timeout=_RECORD_S)
        return read_golden(self.record_path)


@contextlib.contextmanager
def golden_endpoint(
    record_path: Path, *, core: int | None = None, port: int = 0, is_tls: bool = False
) -> Iterator[Golden]:
    """Run a golden endpoint for as long as the block; it leaves with us in any case.

    With ``is_tls`` it gets a certificate that lies beside its record.

    Raises:
        TargetError: it did not start, and why.
    """
    options = ["--record", str(record_path), "--port", str(port)]
    if core is not None:
        options += ["--core", str(core)]
    ca_file = record_path.with_suffix(".pem") if is_tls else None
    if ca_file is not None:
        write_certificate(ca_file)
        options += ["--tls", str(ca_file)]
    child = start_child(python_module("loadtests.calibration.golden", *options), stderr=subprocess.STDOUT)
    try:
        yield Golden(child=child, port=_port(child), record_path=record_path, ca_file=ca_file)
    finally:
        end_child(child)
        if child.stdout is not None:
            child.stdout.close()


def _port(child: subprocess.Popen[str]) -> int:
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], _START_S)
    said = child.stdout.readline() if ready else ""
    try:
        return int(json.loads(said)["port"])
    except (ValueError, KeyError, TypeError) as error:
        raise TargetError(
            f"the golden endpoint did not start: {said.strip() or 'it said nothing'}"
        ) from error
