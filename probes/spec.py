"""YAML files of the user, checked before anything is touched.

An error names file, line, key, value, and what would be right. YAML is loaded safely: nothing is evaluated.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from probes.errors import ConfigError

Location = tuple[int | str, ...]
DEPTH_MAX = 60
NODES_MAX = 200_000  # with every alias written out: nine lines of aliases can stand for 10^9 values


class Spec(BaseModel):
    """A shape of the user's YAML; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=Spec)


def load_spec(path: Path, shape: type[S]) -> S:
    """Read and check one YAML file.

    Raises:
        ConfigError: it cannot be read, is not YAML, is empty, or does not have this shape.
    """
    text, root = _parse(path)
    return check_spec(_construct(path, text, root), shape, path=path, root=root)


def load_yaml(path: Path) -> object:
    """Read one YAML file whose shape is checked elsewhere, with the same errors for what is not YAML."""
    text, root = _parse(path)
    return _construct(path, text, root)


def load_documents(path: Path) -> list[tuple[object, yaml.Node]]:
    """Read every document of a YAML file, each with the nodes that give its lines."""
    text = _read(path)
    try:
        roots = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{_where(path, error)}: not YAML: {_what(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested deeper than {DEPTH_MAX} levels") from error
    for root in roots:
        _measure(path, root, {}, ())
        _refuse_duplicates(path, root)
    try:
        return list(zip(yaml.safe_load_all(text), roots, strict=True))
    except (yaml.YAMLError, *_SCALAR_ERRORS) as error:
        raise ConfigError(f"{path}: not plain YAML: {error}") from error


def check_spec(data: object, shape: type[S], *, path: Path, root: yaml.Node | None = None) -> S:
    """Check data that came from ``path``; ``root`` gives the lines."""
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        problems = [_describe(problem, shape, path, root) for problem in _to_the_point(error.errors(), root)]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file: {error}") from error


def _parse(path: Path) -> tuple[str, yaml.Node]:
    text = _read(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{_where(path, error)}: not YAML: {_what(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested deeper than {DEPTH_MAX} levels") from error
    if root is None:
        raise ConfigError(f"{path}: the file is empty; `overproof schema` shows what belongs in it")
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(
            f"{path}:{root.start_mark.line + 1}: wanted keys with values, got {root.value!r:.80}"
        )
    _measure(path, root, {}, ())
    _refuse_duplicates(path, root)
    return text, root


def _measure(path: Path, node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values a node stands for, aliases written out; refuse what would not end."""
    where = f"{path}:{node.start_mark.line + 1}"
    if id(node) in above:
        raise ConfigError(f"{where}: an alias stands inside what it stands for")
    if len(above) >= DEPTH_MAX:
        raise ConfigError(f"{where}: nested deeper than {DEPTH_MAX} levels")
    if id(node) not in sizes:
        below = (*above, id(node))
        sizes[id(node)] = 1 + sum(_measure(path, child, sizes, below) for child in _children(node))
    if sizes[id(node)] > NODES_MAX:
        raise ConfigError(f"{where}: stands for more than {NODES_MAX} values")
    return sizes[id(node)]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for entry in node.value for part in entry]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _construct(path: Path, text: str, root: yaml.Node) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:  # an unknown tag, such as !!python/object
        raise ConfigError(f"{_where(path, error)}: not plain YAML: {_what(error)}") from error
    except _SCALAR_ERRORS as error:
        line, value = _unreadable_scalar(root)
        raise ConfigError(
            f"{path}:{line}: YAML cannot read {value!r:.80}: {error}; put it in quotes"
        ) from error


# PyYAML lets these through for a scalar that looks like a date or a number and is none, such as 2026-13-45.
_SCALAR_ERRORS = (ValueError, TypeError, OverflowError, LookupError, AttributeError)


def _unreadable_scalar(node: yaml.Node) -> tuple[int, str]:
    """Return line and text of the first scalar that cannot be constructed."""
    if isinstance(node, yaml.ScalarNode):
        try:
            yaml.SafeLoader("").construct_object(node)
        except _SCALAR_ERRORS:
            return node.start_mark.line + 1, str(node.value)
    return next((found for child in _children(node) if (found := _unreadable_scalar(child))[1]), (1, ""))


def _refuse_duplicates(path: Path, node: yaml.Node) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(path, item)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if str(key.value) in first:
            raise ConfigError(
                f"{path}:{line}: key {key.value!r} stands here and in line {first[key.value]}; keep one"
            )
        first[str(key.value)] = line
        _refuse_duplicates(path, value)


def _where(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{path}:{mark.line + 1}" if mark is not None else str(path)


def _what(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or error).replace("\n", " ")


def _to_the_point(problems: list[ErrorDetails], root: yaml.Node | None) -> list[ErrorDetails]:
    """Leave out that a value is no member of a union, where it is told what is wrong inside it."""
    places = [problem["loc"] for problem in problems]
    return [
        problem
        for problem, place in zip(problems, places, strict=True)
        if _stands_in(root, place)
        or problem["type"] in ("extra_forbidden", "missing")
        or not any(len(other) > len(place) and other[: len(place) - 1] == place[:-1] for other in places)
    ]


def _stands_in(root: yaml.Node | None, location: Location) -> bool:
    """Say whether the last part of a location is in the file; if not, pydantic has put it there."""
    node = root
    for part in location[:-1]:
        below = None if node is None else _below(node, part)
        node = node if below is None else below[1]
    return node is None or not location or _below(node, location[-1]) is not None


def _describe(problem: object, shape: type[Spec], path: Path, root: yaml.Node | None) -> str:
    assert isinstance(problem, dict)
    location = tuple(problem["loc"])
    line = find_line(root, location)
    where = f"{path}:{line}" if line is not None else str(path)
    key = ".".join(str(part) for part in _written(root, location)) or "(whole file)"
    if problem["type"] == "extra_forbidden":
        return f"{where}: {key}: unknown key; {_nearest(str(location[-1]), _fields_at(shape, location[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: {key}: this key is missing"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {key}: got {problem['input']!r:.80}; {message[:1].lower()}{message[1:]}"


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(sorted(known))}" if known else "remove it"


def _fields_at(shape: object, location: Location) -> list[str]:
    """Return the keys that are known at a location, following nested shapes, lists and unions."""
    found: list[str] = []
    for candidate in _shapes_in(shape):
        fields = candidate.model_fields
        names = {field.alias or name: field for name, field in fields.items()}
        if not location:
            found += names
        elif location[0] in names:
            found += _fields_at(names[str(location[0])].annotation, _skip_index(location[1:]))
        elif _is_member(candidate, str(location[0])) or not _names_a_member(location[0], shape):
            found += _fields_at(
                candidate, location[1:]
            )  # a union's member, or a key of a table of this shape
    return found


def _is_member(shape: type[Spec], name: str) -> bool:
    """Say whether pydantic's name for a member of a union, its class name or its tag, means this shape."""
    tags = (arg for field in shape.model_fields.values() for arg in getattr(field.annotation, "__args__", ()))
    return name == shape.__name__ or name in (tag for tag in tags if isinstance(tag, str))


def _names_a_member(part: int | str, shape: object) -> bool:
    return any(_is_member(candidate, str(part)) for candidate in _shapes_in(shape))


def _skip_index(location: Location) -> Location:
    return location[1:] if location and isinstance(location[0], int) else location


def _shapes_in(annotation: object) -> list[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [shape for part in getattr(annotation, "__args__", ()) for shape in _shapes_in(part)]


def _written(node: yaml.Node | None, location: Location) -> Location:
    """Drop what pydantic puts into a location and the user's file does not have: names of union members."""
    if node is None:
        return location
    written: list[int | str] = []
    for index, part in enumerate(location):
        below = _below(node, part)
        if below is not None:
            node = below[1]
        elif index < len(location) - 1:
            continue
        written.append(part)
    return tuple(written)


def _below(node: yaml.Node, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the node that carries the line, and the value, of one part of a location; None: it has none."""
    if isinstance(node, yaml.MappingNode):
        return next((entry for entry in node.value if entry[0].value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def find_line(node: yaml.Node | None, location: Location) -> int | None:
    """Return the line (from 1) of the deepest part of a location that the file has."""
    if node is None:
        return None
    line = node.start_mark.line + 1
    for part in location:
        below = _below(node, part)
        if below is not None:
            line, node = below[0].start_mark.line + 1, below[1]
    return line
