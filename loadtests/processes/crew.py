"""Who drives one load: how many processes here, and how many workers that join from other machines."""

from __future__ import annotations

from dataclasses import dataclass

LISTEN_DEFAULT = "127.0.0.1"
PORT_DEFAULT = 5557  # Locust's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The load processes of one run; the schedule is split among all of them."""

    processes: int = 1  # started here
    joining: int = 0  # started elsewhere by `overproof load worker`
    listen: str = LISTEN_DEFAULT  # address that the master waits for workers on
    port: int = PORT_DEFAULT
    join_s: float = 120.0  # how long it waits

    @property
    def workers(self) -> int:
        """How many there are altogether."""
        return self.processes + self.joining

    @property
    def is_alone(self) -> bool:
        """Whether one process does it all, without a master."""
        return self.processes == 1 and not self.joining
