"""A host that an experiment may hit, and how it is reached."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probes.json_types import JsonObject

if TYPE_CHECKING:
    from probes.ssh_config import SshTarget

FOLDER = "/var/lib/overproof"  # on the host; its owner allows game days by a file in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host of a target; None: what the user's SSH configuration says."""

    name: str
    address: str | None = None
    user: str | None = None
    port: int | None = None
    key_file: str | None = None
    proxy_jump: str | None = None
    python: str = "python3"
    wrapper: tuple[str, ...] = ()  # words before the interpreter, such as sudo -n
    folder: str = FOLDER

    def to_target(self) -> SshTarget:
        """Return how it is reached; a key that is not on this machine is left out, for the user's own."""
        from probes.ssh_config import SshTarget  # imports paramiko, which most game days never need

        key_file = self.key_file
        if key_file is not None and not Path(key_file).expanduser().exists():
            key_file = None
        return SshTarget(
            name=self.name,
            address=self.address,
            user=self.user,
            port=self.port,
            identity_file=key_file,
            proxy_jump=self.proxy_jump,
        )

    def to_json(self) -> JsonObject:
        """Return it as plain JSON, for plan and ledger."""
        return asdict(self) | {"wrapper": list(self.wrapper)}


def host_from_json(row: JsonObject) -> Host:
    """Return the host that ``to_json`` wrote."""
    return Host(**(row | {"wrapper": tuple(row.get("wrapper", ()))}))
