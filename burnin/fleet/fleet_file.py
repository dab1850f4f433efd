"""A fleet file: which hosts go through acceptance together, where they stand, how they are reached.

What a group says goes above the defaults. Where ``placement`` and a group, or two entries of it, say
different things of one host, that is an error: nobody knows which is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from burnin.fleet.host import Access, ClusterJobs, Expected, Fleet, Host, Place, PowerCap
from burnin.fleet.host_range import HOSTS_MAX, expand_hosts
from probes.errors import ConfigError
from probes.spec import Location, Spec, find_line, load_spec

LISTED = "listed"
Label = Annotated[str, Field(min_length=1, max_length=120)]
_BY_TAG = {"docker", "podman", "nerdctl"}  # programs that fetch an image by its name
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_FIXED = re.compile(r"(?:^|@)sha256:[0-9a-f]{64}$")  # an image that no registry knows goes by its own number
_PLACES = ("rack", "pdu", "hall", "switch", "nvlink_domain", "rails")


class AskSpec(Spec):
    """Who is asked whether a host is drained or reserved for us."""

    ask: Literal["slurm", "kubernetes", "kubernetes-idle"]


class PlaceSpec(Spec):
    """Where hosts stand; in ``placement`` a name may hold {block} or a group of ``match``."""

    rack: Label | None = None
    pdu: Label | None = None
    hall: Label | None = None
    switch: Annotated[Label | None, Field(description="leaf switch, where one serves all rails")] = None
    nvlink_domain: Annotated[Label | None, Field(description="GB200, GB300: hosts that share NVSwitches")] = (
        None
    )
    rails: Annotated[tuple[Label, ...] | None, Field(description="leaf switch of each rail, in order")] = None


class HostsSpec(PlaceSpec):
    """What is true of some hosts; a key that is left out is what the level above says."""

    launcher: Literal["local", "ssh", "slurm", "kubernetes"] | None = None
    address: Annotated[str | None, Field(description="for a single host; else its name")] = None
    user: Label | None = None
    port: Annotated[int | None, Field(ge=1, le=65535)] = None
    identity_file: Annotated[str | None, Field(description="a file that holds the key")] = None
    proxy_jump: Label | None = None
    python: Annotated[Label | None, Field(description="interpreter on the host; else python3")] = None
    wrapper: Annotated[
        tuple[Label, ...] | None, Field(description="words before the interpreter; an image goes by digest")
    ] = None
    gpus: Annotated[int | None, Field(ge=0, le=1024, description="how many the host should have")] = None
    model: Annotated[Label | None, Field(description="of its GPUs, as NVML names it")] = None
    nics: Annotated[int | None, Field(ge=0, le=1024)] = None
    permission: Annotated[
        Literal["listed"] | AskSpec | None,
        Field(description="listed: you say that it is free; or who is asked. Without it the host is refused"),
    ] = None

    @field_validator("wrapper")
    @classmethod
    def _names_its_image_by_digest(cls, words: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if words and Path(words[0]).name in _BY_TAG and not any(_FIXED.search(word) for word in words):
            raise ValueError(
                "name the image by digest, as NAME@sha256:... (a tag may mean another image tomorrow);"
                " `docker inspect --format '{{index .RepoDigests 0}}' IMAGE` prints it"
            )
        return words


class GroupSpec(HostsSpec):
    """Some hosts, and what is true of them."""

    hosts: Annotated[
        str | tuple[str, ...], Field(description="a name, a range such as gpu[001-256], or a list of them")
    ]

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, hosts: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not expand_all(hosts):
            raise ValueError("no host is named")
        return hosts


class PlacementSpec(PlaceSpec):
    """Where hosts stand that are named above: by range, or by a pattern over their names."""

    hosts: Annotated[str | tuple[str, ...] | None, Field(description="a name, a range, or a list")] = None
    match: Annotated[
        str | None, Field(description="regular expression over whole names, with groups as (?P<row>...)")
    ] = None
    block_size: Annotated[
        PositiveInt | None, Field(description="{block} counts from 1 and grows after so many hosts")
    ] = None

    @field_validator("match")
    @classmethod
    def _is_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _says_whom(self) -> PlacementSpec:
        if (self.hosts is None) == (self.match is None):
            raise ValueError("give hosts or match, one of the two")
        if self.hosts is not None:
            expand_all(self.hosts)
        return self


class PowerCapSpec(Spec):
    """How much load a rack, PDU or hall bears."""

    rack: Label | None = None
    pdu: Label | None = None
    hall: Label | None = None
    watts: PositiveFloat

    @model_validator(mode="after")
    def _is_of_one(self) -> PowerCapSpec:
        if sum(value is not None for value in (self.rack, self.pdu, self.hall)) != 1:
            raise ValueError("give one of rack, pdu, hall, with watts")
        return self

    def to_power_cap(self) -> PowerCap:
        """Return what the conductor works with."""
        kind = next(kind for kind in ("rack", "pdu", "hall") if getattr(self, kind) is not None)
        return PowerCap(kind=kind, name=getattr(self, kind), watts=self.watts)


class KubernetesSpec(Spec):
    """How hosts that are reached through Kubernetes run our program."""

    image: Annotated[str, Field(description="with Python and torch, as NAME@sha256:...")]
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] = "overproof-burnin"
    gpu_resource: Label = "nvidia.com/gpu"
    resources: Annotated[
        dict[str, str], Field(description='limits beside the GPUs, such as rdma/hca: "1"')
    ] = Field(default_factory=dict)
    host_paths: Annotated[
        tuple[Annotated[str, Field(pattern="^/")], ...],
        Field(description="folders of the node that the container sees, read-only, at the same place"),
    ] = ()

    @field_validator("image")
    @classmethod
    def _goes_by_digest(cls, image: str) -> str:
        if not _DIGEST.search(image):
            raise ValueError("name the image by digest, as NAME@sha256:... (a tag may mean another tomorrow)")
        return image

    def to_jobs(self) -> ClusterJobs:
        """Return what the launcher works with."""
        return ClusterJobs(
            image=self.image,
            namespace=self.namespace,
            gpu_resource=self.gpu_resource,
            resources=dict(self.resources),
            host_paths=self.host_paths,
        )


class FleetSpec(Spec):
    """A fleet."""

    name: Label
    defaults: HostsSpec = HostsSpec()
    groups: Annotated[tuple[GroupSpec, ...], Field(min_length=1)]
    placement: tuple[PlacementSpec, ...] = ()
    power_caps: tuple[PowerCapSpec, ...] = ()
    expected_versions: Annotated[
        dict[str, str],
        Field(description="kernel, driver, nccl, ...: the version that every host should have"),
    ] = Field(default_factory=dict)
    salloc_options: Annotated[
        tuple[Label, ...], Field(description="for the launcher slurm, such as --reservation=intake")
    ] = ()
    kubernetes: Annotated[
        KubernetesSpec | None, Field(description="for the launcher kubernetes: which image, and where")
    ] = None


class _Problem(Exception):
    def __init__(self, location: Location, message: str) -> None:
        super().__init__(message)
        self.location = location


def expand_all(hosts: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return every name that a range or a list of them stands for.

    Raises:
        ValueError: as ``expand_hosts``; or they are too many together.
    """
    names: list[str] = []
    for text in (hosts,) if isinstance(hosts, str) else hosts:
        names += expand_hosts(text)
        if len(names) > HOSTS_MAX:
            raise ValueError(f"more than {HOSTS_MAX} hosts together")
    return tuple(names)


def load_fleet(path: Path) -> Fleet:
    """Read a fleet file.

    Raises:
        ConfigError: with file, line, key and value, and what would be right.
    """
    spec = load_spec(path, FleetSpec)
    try:
        return to_fleet(spec)
    except _Problem as problem:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        key = ".".join(str(part) for part in problem.location)
        line = find_line(root, problem.location) or 1
        raise ConfigError(f"{path}:{line}: {key}: {problem}") from problem


def to_fleet(spec: FleetSpec) -> Fleet:
    """Return the fleet that a checked file describes."""
    hosts: dict[str, Host] = {}
    for number, group in enumerate(spec.groups):
        for host in _hosts_of(spec.defaults, group, number):
            if host.name in hosts:
                raise _Problem(
                    ("groups", number, "hosts"), f"{host.name!r} stands in the file twice; keep one"
                )
            hosts[host.name] = host
    if len(hosts) > HOSTS_MAX:
        raise _Problem(("groups",), f"more than {HOSTS_MAX} hosts")
    _place(spec, hosts)
    fleet = Fleet(
        name=spec.name,
        hosts=tuple(hosts.values()),
        power_caps=tuple(cap.to_power_cap() for cap in spec.power_caps),
        expected_versions=dict(spec.expected_versions),
        salloc_options=spec.salloc_options,
        kubernetes=None if spec.kubernetes is None else spec.kubernetes.to_jobs(),
    )
    _check_caps(fleet)
    return fleet


def _hosts_of(defaults: HostsSpec, group: GroupSpec, number: int) -> Iterator[Host]:
    names = expand_all(group.hosts)
    if group.address is not None and len(names) > 1:
        raise _Problem(
            ("groups", number, "address"),
            f"got {group.address!r} for {len(names)} hosts; an address belongs to a single host",
        )
    said = {
        key: value
        for source in (defaults, group)
        for key, value in source
        if value is not None and key != "hosts"
    }
    permission = said.pop("permission", None)
    place = {key: said.pop(key) for key in _PLACES if key in said}
    expected = {key: said.pop(key) for key in ("gpus", "model", "nics") if key in said}
    host = Host(
        name="",
        access=Access(**said),
        place=Place(**place),
        expected=Expected(**expected),
        permission=permission if isinstance(permission, str) else None,
        ask=permission.ask if isinstance(permission, AskSpec) else None,
    )
    for name in names:
        yield replace(host, name=name)


def _place(spec: FleetSpec, hosts: dict[str, Host]) -> None:
    said_by: dict[tuple[str, str], int] = {}
    for number, entry in enumerate(spec.placement):
        for index, (name, words) in enumerate(_matched(entry, number, hosts)):
            block = str(index // entry.block_size + 1) if entry.block_size else ""
            for key in _PLACES:
                value = getattr(entry, key)
                if value is None:
                    continue
                filled = _filled(value, words | {"block": block}, (number, key))
                _say(hosts, name, key, filled, number, said_by)


def _matched(entry: PlacementSpec, number: int, hosts: dict[str, Host]) -> list[tuple[str, dict[str, str]]]:
    if entry.hosts is not None:
        names = expand_all(entry.hosts)
        unknown = next((name for name in names if name not in hosts), None)
        if unknown is not None:
            raise _Problem(("placement", number, "hosts"), f"{unknown!r} is in no group of this file")
        return [(name, {}) for name in names]
    pattern = re.compile(entry.match or "")
    found = [(name, match.groupdict()) for name in hosts if (match := pattern.fullmatch(name))]
    if not found:
        raise _Problem(("placement", number, "match"), f"got {entry.match!r}; no host of this file matches")
    return [(name, {key: text or "" for key, text in words.items()}) for name, words in found]


def _filled(
    value: str | tuple[str, ...], words: dict[str, str], where: tuple[int, str]
) -> str | tuple[str, ...]:
    if isinstance(value, tuple):
        return tuple(str(_filled(item, words, where)) for item in value)

    def fill(match: re.Match[str]) -> str:
        word = match.group(1)
        if not words.get(word):
            known = (
                ", ".join(f"{{{name}}}" for name in words if words[name]) or "none; block_size gives {block}"
            )
            raise _Problem(
                ("placement", *where), f"got {value!r}; {{{word}}} is unknown here; known: {known}"
            )
        return words[word]

    return re.sub(r"\{(\w+)\}", fill, value)


def _say(
    hosts: dict[str, Host],
    name: str,
    key: str,
    value: str | tuple[str, ...],
    number: int,
    said_by: dict[tuple[str, str], int],
) -> None:
    place = hosts[name].place
    before = getattr(place, key)
    if (name, key) in said_by and before != value:
        raise _Problem(
            ("placement", number, key),
            f"puts {name} at {value!r}, placement.{said_by[name, key]} at {before!r}; keep one",
        )
    if (name, key) not in said_by and before not in (None, (), value):
        raise _Problem(
            ("placement", number, key), f"puts {name} at {value!r}, its group at {before!r}; keep one"
        )
    said_by[name, key] = number
    stated: dict[str, Any] = {key: value}
    hosts[name] = replace(hosts[name], place=replace(place, **stated))


def _check_caps(fleet: Fleet) -> None:
    for number, cap in enumerate(fleet.power_caps):
        names = {getattr(host.place, cap.kind) for host in fleet.hosts}
        if cap.name not in names:
            known = ", ".join(sorted(name for name in names if name)[:5]) or "none"
            raise _Problem(
                ("power_caps", number, cap.kind),
                f"got {cap.name!r}; no host stands there (known: {known}), so it would cap nothing",
            )
