"""What nvidia-smi tells of one GPU, and how it is told to change it. A GPU is named by its UUID alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from experiments.host_agent.fault import Refused, run_command

WITHIN_S = 30.0  # a driver that takes longer is in trouble of its own
_UUID = re.compile(r"GPU-[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def missing_smi(program: str) -> list[str]:
    """Say why GPUs cannot be asked for, as sentences; empty: they can."""
    status, said = run_command([program, "-L"], deadline_s=WITHIN_S)
    if status == 127:
        return ["nvidia-smi is not installed"]
    return [] if status == 0 else [f"nvidia-smi does not answer: {said}"]


def gpu_of(arguments: dict[str, Any]) -> str:
    """Return the UUID that was given.

    Raises:
        Refused: it is none.
    """
    uuid = str(arguments.get("gpu") or "")
    if not _UUID.fullmatch(uuid):
        raise Refused(f"gpu: wanted the UUID of one GPU, as nvidia-smi -L shows it, got {uuid!r}")
    return uuid


def read_gpu(program: str, uuid: str, fields: Sequence[str]) -> dict[str, str]:
    """Return these fields of nvidia-smi's query for one GPU, without units.

    Raises:
        Refused: it did not answer with one row for that very GPU.
    """
    query = f"--query-gpu=uuid,{','.join(fields)}"
    status, said = run_command(
        [program, "-i", uuid, query, "--format=csv,noheader,nounits"], deadline_s=WITHIN_S
    )
    cells = [cell.strip() for cell in said.split(",")]
    if status or len(cells) != len(fields) + 1 or cells[0] != uuid:
        raise Refused(f"{uuid}: nvidia-smi does not tell {', '.join(fields)}: {said}")
    return dict(zip(fields, cells[1:], strict=True))


def number(row: dict[str, str], field: str) -> float:
    """Return a field as a number.

    Raises:
        Refused: this GPU has none, which nvidia-smi writes as [N/A].
    """
    try:
        return float(row[field])
    except ValueError as error:
        raise Refused(f"this GPU does not tell its {field}: {row[field]}") from error


def tell_gpu(program: str, uuid: str, *words: str) -> tuple[bool, str]:
    """Change a setting; return whether nvidia-smi says that it did, and what it said."""
    status, said = run_command([program, "-i", uuid, *words], deadline_s=WITHIN_S)
    return status == 0, said
