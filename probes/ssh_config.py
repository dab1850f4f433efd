"""What the user's SSH configuration says about a host, and what overrides it."""

from __future__ import annotations

import getpass
import glob
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import paramiko

from probes.errors import ConfigError
from probes.known_hosts import SSH_PORT

SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
_INCLUDES_MAX = 16  # one inside another
_INCLUDE = re.compile(r"^\s*include[\s=]+(.+)$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """A host as somebody names it; None: what the configuration says, or the default."""

    name: str
    address: str | None = None  # None: the name
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    proxy_jump: str | None = None  # "none" for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How a host is reached, all questions answered."""

    name: str
    address: str
    port: int
    user: str
    key_name: str  # under which its key is known
    identity_files: tuple[str, ...]  # empty: the usual ones
    is_agent_asked: bool
    jumps: tuple[str, ...]  # [user@]host[:port], the first hop first
    proxy_command: str | None
    known_hosts_files: tuple[Path, ...]


def load_ssh_config(home: Path | None = None, system: Path = SYSTEM_CONFIG) -> paramiko.SSHConfig:
    """Read the user's configuration and the system's, with what they include.

    Raises:
        ConfigError: OpenSSH could not read it either, or only by running a command.
    """
    user = (home or Path.home()) / ".ssh" / "config"
    text = f"{_read(user, user.parent, 0)}\nHost *\n{_read(system, system.parent, 0)}"
    try:
        return paramiko.SSHConfig.from_text(text)
    except (paramiko.SSHException, ValueError) as error:
        raise ConfigError(f"{user}: {error}; see man ssh_config") from error


def _read(path: Path, folder: Path, depth: int) -> str:
    """Return a file's text with each ``Include`` replaced by what it names: paramiko knows no such word."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    if depth >= _INCLUDES_MAX:
        raise ConfigError(f"{path}: included more than {_INCLUDES_MAX} deep")

    def included(found: re.Match[str]) -> str:
        names = (str(folder / Path(word).expanduser()) for word in shlex.split(found[1], comments=True))
        found_files = (Path(each) for name in names for each in sorted(glob.glob(name)))  # noqa: PTH207
        return "\n".join(_read(file, folder, depth + 1) for file in found_files)

    return _INCLUDE.sub(included, text)


def find_route(target: SshTarget, config: paramiko.SSHConfig) -> Route:
    """Answer every question about how to reach a host.

    Raises:
        ConfigError: the configuration says something that is not supported, or wrong.
    """
    try:
        found = dict(config.lookup(target.address or target.name))
    except (paramiko.SSHException, ImportError, ValueError) as error:
        raise ConfigError(f"{target.name}: the SSH configuration cannot be used: {error}") from error
    address = str(found.get("hostname", target.address or target.name))
    jump = target.proxy_jump if target.proxy_jump is not None else str(found.get("proxyjump", ""))
    command = None if target.proxy_jump is not None else found.get("proxycommand")
    if target.identity_file and not Path(target.identity_file).expanduser().exists():
        raise ConfigError(f"{target.name}: identity_file {target.identity_file!r} is not there")
    files = [target.identity_file] if target.identity_file else list(found.get("identityfile", ()))
    is_own_key = bool(target.identity_file) or str(found.get("identitiesonly", "no")).lower() == "yes"
    return Route(
        name=target.name,
        address=address,
        port=target.port or _port(target, found),
        user=target.user or str(found.get("user") or getpass.getuser()),
        key_name=str(found.get("hostkeyalias", address)),
        identity_files=tuple(str(Path(file).expanduser()) for file in files),
        is_agent_asked=not is_own_key,
        jumps=() if jump in ("", "none") else tuple(word.strip() for word in jump.split(",")),
        proxy_command=str(command) if command and command != "none" and not jump else None,
        known_hosts_files=_known_hosts_files(found),
    )


def _port(target: SshTarget, found: Mapping[str, object]) -> int:
    given = str(found.get("port", SSH_PORT))
    if not given.isdecimal() or not 0 < int(given) < 1 << 16:
        raise ConfigError(f"{target.name}: the SSH configuration gives port {given!r}; it must be 1 to 65535")
    return int(given)


def _known_hosts_files(found: Mapping[str, object]) -> tuple[Path, ...]:
    user = str(found.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"))
    system = str(found.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"))
    return tuple(Path(word).expanduser() for word in (*shlex.split(user), *shlex.split(system)))


def jump_target(word: str) -> SshTarget:
    """Read one hop: ``[user@]host[:port]``, an IPv6 address in brackets.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"(?:ssh://)?(?:([^@]+)@)?(\[[^\]]+\]|[^:@\[\]]+)(?::(\d{1,5}))?", word)
    if found is None:
        raise ConfigError(f"ProxyJump: {word!r} is no [user@]host[:port]")
    user, host, port = found.groups()
    return SshTarget(name=host.strip("[]"), user=user, port=int(port) if port else None)
