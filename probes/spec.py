"""YAML files of the user, checked before anything is touched.

An error names file, line, key, value, and what would be right. YAML is loaded safely: nothing is evaluated.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from probes.errors import ConfigError

Location = tuple[int | str, ...]


class Spec(BaseModel):
    """A shape of the user's YAML; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Spec)


def load_spec(path: Path, shape: type[S]) -> S:
    """Read and check one YAML file.

    Raises:
        ConfigError: it cannot be read, is not YAML, is empty, or does not have this shape.
    """
    text, root = _parse(path)
    return check_spec(_construct(path, text), shape, path=path, root=root)


def load_yaml(path: Path) -> object:
    """Read one YAML file whose shape is checked elsewhere, with the same errors for what is not YAML."""
    text, _ = _parse(path)
    return _construct(path, text)


def check_spec(data: object, shape: type[S], *, path: Path, root: yaml.Node | None = None) -> S:
    """Check data that came from ``path``; ``root`` gives the lines."""
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        problems = [_describe(problem, shape, path, root) for problem in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from error


def _parse(path: Path) -> tuple[str, yaml.Node]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file: {error}") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{_where(path, error)}: not YAML: {_what(error)}") from error
    if root is None:
        raise ConfigError(f"{path}: the file is empty; `overproof schema` shows what belongs in it")
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(
            f"{path}:{root.start_mark.line + 1}: wanted keys with values, got {root.value!r:.80}"
        )
    _refuse_duplicates(path, root)
    return text, root


def _construct(path: Path, text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:  # an unknown tag, such as !!python/object
        raise ConfigError(f"{_where(path, error)}: not plain YAML: {_what(error)}") from error


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


def _describe(problem: object, shape: type[Spec], path: Path, root: yaml.Node | None) -> str:
    assert isinstance(problem, dict)
    location = tuple(problem["loc"])
    line = find_line(root, location)
    where = f"{path}:{line}" if line is not None else str(path)
    key = ".".join(str(part) for part in location) or "(whole file)"
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
        else:  # pydantic puts the tag or name of a union's member into the location
            found += _fields_at(candidate, location[1:])
    return found


def _skip_index(location: Location) -> Location:
    return location[1:] if location and isinstance(location[0], int) else location


def _shapes_in(annotation: object) -> list[type[Spec]]:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return [annotation]
    return [shape for part in getattr(annotation, "__args__", ()) for shape in _shapes_in(part)]


def find_line(node: yaml.Node | None, location: Location) -> int | None:
    """Return the line (from 1) of the deepest part of a location that the file has."""
    if node is None:
        return None
    line = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if entry is None:
                continue
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
