"""The drift table: each fingerprint of a fleet's hosts and parts, against the majority and what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.fleet_tables import FleetTables

# What differs from part to part by its nature.
IDENTITIES = ("serial", "slot", "uuid")
HOSTS_NAMED_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One value of a fingerprint, and who has it."""

    value: str
    hosts: tuple[str, ...]
    parts: int
    is_majority: bool
    is_wanted: bool | None  # None: nobody said what is wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One fingerprint: of the hosts, of the GPUs of one model, or of the adapters of one kind."""

    key: str
    model: str  # of the GPUs; empty: it is of hosts or adapters
    variants: tuple[Variant, ...]  # the most frequent first
    wanted: str | None  # None: nobody said
    lacking: tuple[str, ...]  # finished hosts that did not tell it, although others did or it was wanted

    @property
    def label(self) -> str:
        """What a reader calls it."""
        return f"{self.key} of {self.model}" if self.model else self.key

    @property
    def has_majority(self) -> bool:
        """Whether one value is that of more hosts than any other."""
        return any(variant.is_majority for variant in self.variants)


_VARIANTS = """
WITH models AS (SELECT host, gpu AS part, max(model) AS model FROM gpu_result GROUP BY host, gpu),
told AS (
  SELECT f.host, f.part, f.key, coalesce(m.model, '') AS model, arg_max(f.value, f.t_ns) AS value
  FROM fingerprint f LEFT JOIN models m USING (host, part)
  WHERE f.value IS NOT NULL AND f.key NOT IN (SELECT unnest(?)) GROUP BY ALL
)
SELECT key, model, value, count(*) AS parts, list(DISTINCT host ORDER BY host) AS hosts FROM told
GROUP BY key, model, value ORDER BY key, model, len(hosts) DESC, value
"""


def read_drift(tables: FleetTables, wanted: Mapping[str, str]) -> list[Drift]:
    """Return each fingerprint with its variants."""
    found: dict[tuple[str, str], list[tuple[str, int, tuple[str, ...]]]] = {}
    for key, model, value, parts, hosts in tables.rows(_VARIANTS, list(IDENTITIES)):
        assert isinstance(hosts, list)
        entry = (str(value), int(str(parts)), tuple(map(str, hosts)))
        found.setdefault((str(key), str(model)), []).append(entry)
    finished = {str(row[0]) for row in tables.rows("SELECT host FROM host WHERE state = 'finished'")}
    drifts = [_drift(key, model, rows, wanted, finished) for (key, model), rows in found.items()]
    untold = [key for key in wanted if not any(_names(drift.key, key) for drift in drifts)]
    never = tuple(sorted(finished))
    return drifts + [
        Drift(key=key, model="", variants=(), wanted=wanted[key], lacking=never) for key in untold if never
    ]


def _drift(
    key: str,
    model: str,
    rows: Sequence[tuple[str, int, tuple[str, ...]]],
    wanted: Mapping[str, str],
    finished: set[str],
) -> Drift:
    want = next((value for name, value in wanted.items() if _names(key, name)), None)
    is_clear = len(rows) == 1 or len(rows[0][2]) > len(rows[1][2])
    told = {host for _, _, hosts in rows for host in hosts}
    is_of_hosts = not model and "(" not in key  # hosts differ in the adapters and GPUs that they have
    return Drift(
        key=key,
        model=model,
        wanted=want,
        lacking=tuple(sorted(finished - told)) if is_of_hosts else (),
        variants=tuple(
            Variant(
                value=value,
                hosts=hosts,
                parts=parts,
                is_majority=is_clear and index == 0,
                is_wanted=None if want is None else value == want,
            )
            for index, (value, parts, hosts) in enumerate(rows)
        ),
    )


def _names(key: str, name: str) -> bool:
    """Say whether a wanted version is meant for this: ``nic firmware`` is, for every kind of adapter."""
    return key.lower() == name.lower() or key.lower().startswith(f"{name.lower()} (")
