"""A bench whose speaker keeps what is said: stages run in this process, on this machine's memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from burnin.node.bench import Bench
from burnin.node.pace import Pace


@dataclass
class FakeSpeaker:
    """Keeps every event instead of putting it on a line."""

    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def say(self, kind: str, **data: Any) -> None:
        self.said.append((kind, data))

    def sample(self, series: str, **row: Any) -> None:
        self.rows.append((series, row))

    def told(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        found = [data for said, data in self.said if said == kind]
        return [data for data in found if all(data.get(key) == value for key, value in wanted.items())]


def bench_with(*seeded: str, seed: int = 1, device: str = "cpu:0") -> tuple[Bench, FakeSpeaker]:
    """Return a bench on this machine's memory that shows these faults, and what it will say."""
    speaker: Any = FakeSpeaker()
    bench = Bench(
        device=device,
        kind="cpu",
        torch_device=torch.device("cpu"),
        speaker=speaker,
        pace=Pace(speaker, device),
        seed=seed,
        seeded=frozenset(seeded),
    )
    return bench, speaker
