"""What an XID means and calls for, as data with its source: ``xids.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import RootModel

from probes.outcome import Outcome
from probes.spec import Spec

_FILE = Path(__file__).with_name("xids.yaml")
_NEXT_STEPS = {
    "isolate": "take this GPU out of service and open a case with the vendor",
    "reset": "reset the GPU or reboot the node, then run it again",
    "count": "reset the GPU so that pending remaps take effect, then run it again",
    "application": "run it again; the same XID on the same GPU twice makes it a suspect",
    "unknown": "look it up in NVIDIA's XID catalog, reset the GPU, then run it again",
}


class XidSpec(Spec):
    """One line of the table."""

    action: Literal["isolate", "reset", "count", "application"]
    meaning: str


class _Table(RootModel[dict[int, XidSpec]]):
    """The whole file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XidAction:
    """What to conclude from an XID."""

    outcome: Outcome
    meaning: str
    next_step: str


@cache
def _table() -> dict[int, XidSpec]:
    return _Table.model_validate(yaml.safe_load(_FILE.read_text(encoding="utf-8"))).root


def xid_action(xid: int) -> XidAction:
    """Return what an XID calls for; none that comes during a burn-in passes, known to the table or not."""
    spec = _table().get(xid)
    action = spec.action if spec else "unknown"
    return XidAction(
        outcome=Outcome.FAIL,
        meaning=spec.meaning if spec else "not in our table",
        next_step=_NEXT_STEPS[action],
    )
