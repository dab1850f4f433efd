"""Request rows as columns: what every rule over rows may be given in the place of a list of them.

A million rows as objects take more than a gigabyte. Here a column takes what its values need: nothing while
they are all the same, a byte or two where they are few or small, eight at most; the gaps between tokens lie
in a file without a name. A row is made while a rule looks at it, and gone when it looks at the next.
"""

from __future__ import annotations

import itertools
import mmap
import tempfile
from array import array
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import IO, Any, Self, cast, overload

from probes.in_order import order_by
from probes.json_types import JsonObject
from probes.request import Request

_FIELDS = tuple(fields(Request))
_NAMES = tuple(field.name for field in _FIELDS)
_DEFAULTS = {f.name: None if f.default is MISSING else f.default for f in _FIELDS}
_GAPS, _BEGIN, _SIZE = "gaps_us", " gaps begin", " gaps size"  # no field is called like the last two
ROWS_AT_ONCE = 2048
_GAPS_READ = 2**20  # before the memory that they came through is given back
# What stands for None in a column of this type: no value that comes is the lowest one.
_NONE_OF: dict[str, Any] = {"d": float("-inf")} | {
    code: -(2 ** (8 * array(code).itemsize - 1)) for code in ("b", "h", "i", "q")
}
_WIDER = {"b": "h", "h": "i", "i": "q"}


class _Row(namedtuple("_Row", _NAMES)):  # type: ignore[misc]
    """Reads as a ``Request``, and is made ten times as fast."""

    __slots__ = ()
    is_good = Request.is_good


class _Column:
    """The values of one field; holds one value as long as all are the same."""

    def __init__(self) -> None:
        self.count = 0
        self._only: object = None  # the value of all, while there is no store

    def extend(self, values: Sequence[object]) -> None:
        """Add values at the end."""
        if not values:
            return
        if not self.count:
            self._only = values[0]
        if not self._has_store():
            if values.count(self._only) == len(values):
                self.count += len(values)
                return
            self._store(itertools.repeat(self._only, self.count))
        self._store(values)
        self.count += len(values)

    def _has_store(self) -> bool:
        raise NotImplementedError

    def _store(self, values: Iterable[object]) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[object]:
        return self._stored() if self._has_store() else itertools.repeat(self._only, self.count)

    def _stored(self, positions: Sequence[int] | None = None) -> Iterator[object]:
        raise NotImplementedError

    def at(self, positions: Sequence[int]) -> Iterator[object]:
        """Return the values of these rows."""
        if not self._has_store():
            return itertools.repeat(self._only, len(positions))
        return self._stored(positions)

    def put_in_order(self, positions: Sequence[int]) -> None:
        """Move every row to where it belongs."""
        raise NotImplementedError


class _Numbers(_Column):
    """Numbers or None, in the narrowest type that takes them all."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self._values: array[Any] = array(code)

    def _has_store(self) -> bool:
        return bool(self._values)

    def _store(self, values: Iterable[object]) -> None:
        values = list(values)
        while True:
            none = _NONE_OF[self._values.typecode]
            try:
                if none in values:
                    raise OverflowError
                self._values.extend([none if value is None else cast("float", value) for value in values])
                return
            except OverflowError:
                self._widen(len(self._values))

    def _widen(self, count: int) -> None:
        code = _WIDER[self._values.typecode]
        none, new = _NONE_OF[self._values.typecode], _NONE_OF[code]
        kept = itertools.islice(self._values, min(count, self.count))
        self._values = array(code, (new if value == none else value for value in kept))

    def _stored(self, positions: Sequence[int] | None = None) -> Iterator[object]:
        as_none: dict[object, object] = {_NONE_OF[self._values.typecode]: None}
        if positions is None:
            return map(as_none.get, self._values, self._values)
        values = (map(self._values.__getitem__, positions) for _ in range(2))
        return map(as_none.get, *values)

    def put_in_order(self, positions: Sequence[int]) -> None:
        if self._values:
            self._values = array(self._values.typecode, map(self._values.__getitem__, positions))


class _Words(_Column):
    """Texts, truths and whatever else comes again and again: each value is held once."""

    def __init__(self) -> None:
        super().__init__()
        self._codes: array[int] = array("B")
        self._known: dict[object, int] = {}

    def _has_store(self) -> bool:
        return bool(self._codes)

    def _store(self, values: Iterable[object]) -> None:
        codes = [self._known.setdefault(value, len(self._known)) for value in values]
        wanted = "B" if len(self._known) < 2**8 else "H" if len(self._known) < 2**16 else "I"
        if wanted != self._codes.typecode:
            self._codes = array(wanted, self._codes)
        self._codes.extend(codes)

    def _stored(self, positions: Sequence[int] | None = None) -> Iterator[object]:
        codes = self._codes if positions is None else map(self._codes.__getitem__, positions)
        return map([*self._known].__getitem__, codes)

    def put_in_order(self, positions: Sequence[int]) -> None:
        if self._codes:
            self._codes = array(self._codes.typecode, map(self._codes.__getitem__, positions))


class _Gaps:
    """The gaps of all rows, one after the other in a file without a name, which goes with this process."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._count = 0
        self._read = 0  # since memory was given back
        self._map: mmap.mmap | None = None
        self._view: memoryview[int] | None = None

    def add(self, gaps: Iterable[Sequence[int]]) -> list[int]:
        """Put gaps at the end; return where those of each row begin."""
        flat: array[int] = array("q")
        begins = []
        for one in gaps:
            begins.append(self._count + len(flat))
            flat.extend(one)
        flat.tofile(self._file)
        self._count += len(flat)
        return begins

    def seal(self) -> None:
        """Make what was added readable; the file may be closed then."""
        self._file.flush()
        if self._count:
            self._map = mmap.mmap(self._file.fileno(), 0, prot=mmap.PROT_READ)
            self._view = memoryview(self._map).cast("q")

    def of(self, begins: Iterable[object], sizes: Iterable[object]) -> Iterator[Sequence[int]]:
        """Yield the gaps of rows; nothing is copied."""
        view = self._view
        if view is None:
            return (() for _ in begins)
        pairs = cast("Iterator[tuple[int, int]]", zip(begins, sizes, strict=True))
        return self._slices(view, pairs)

    def _slices(self, view: memoryview[int], pairs: Iterator[tuple[int, int]]) -> Iterator[Sequence[int]]:
        for begin, size in pairs:
            yield view[begin : begin + size]
            self._read += size
            if self._read >= _GAPS_READ and self._map is not None:
                self._map.madvise(mmap.MADV_DONTNEED)  # what was read stays in the file, and leaves memory
                self._read = 0


class RequestColumns(Sequence[Request]):
    """Rows in a fixed order; those that were picked from others share their columns."""

    def __init__(self, columns: dict[str, _Column], gaps: _Gaps, chosen: Sequence[int] | None = None) -> None:
        self._columns, self._gaps, self._chosen = columns, gaps, chosen  # None: all of them

    def __len__(self) -> int:
        return self._columns[_SIZE].count if self._chosen is None else len(self._chosen)

    def __iter__(self) -> Iterator[Request]:
        return cast("Iterator[Request]", map(_Row._make, self.tuples(*_NAMES)))

    @overload
    def __getitem__(self, at: int) -> Request: ...
    @overload
    def __getitem__(self, at: slice) -> Self: ...
    def __getitem__(self, at: int | slice) -> Request | Self:
        places = range(len(self))[at]  # counts from the end as well, and knows the ends
        return next(iter(self.picked((places,)))) if isinstance(places, int) else self.picked(places)

    def tuples(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Return these fields of each row."""
        return zip(*map(self._values, names), strict=True)

    def _values(self, name: str) -> Iterator[object]:
        if name == _GAPS:
            return self._gaps.of(self._values(_BEGIN), self._values(_SIZE))
        column = self._columns[name]
        return iter(column) if self._chosen is None else column.at(self._chosen)

    def picked(self, positions: Sequence[int]) -> Self:
        """Return these rows, in this order."""
        if self._chosen is not None:
            positions = array("I", map(self._chosen.__getitem__, positions))
        return type(self)(self._columns, self._gaps, positions)

    def put_in_order(self, positions: Sequence[int]) -> None:
        """Move every row to where it belongs."""
        for column in self._columns.values():
            column.put_in_order(positions)


def to_columns(batches: Iterable[Mapping[str, Sequence[Any]]]) -> RequestColumns:
    """Put rows into columns by intended time; they come a few thousand at a time, as lists by field.

    Fields that a batch lacks have their defaults; what no field knows is passed over, and so are rows without
    an intended time: they are what torn lines leave.
    """
    columns = {name: _column_of(name) for name in _NAMES if name != _GAPS}
    places = {_BEGIN: _Numbers("b"), _SIZE: _Numbers("b")}
    with tempfile.TemporaryFile() as file:
        gaps = _Gaps(file)
        for batch in map(_whole, batches):
            count = len(batch.get("t_intended_ns", ()))
            for name, column in columns.items() if count else ():
                column.extend(batch.get(name) or (_DEFAULTS[name],) * count)
            found = [one or () for one in batch.get(_GAPS) or ((),) * count]
            places[_BEGIN].extend(gaps.add(found))
            places[_SIZE].extend([len(one) for one in found])
        gaps.seal()
    table = RequestColumns(columns | places, gaps)
    _put_in_time(table)
    return table


def _whole(batch: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    due = batch.get("t_intended_ns", ())
    if None not in due:
        return batch if due else {}
    places = [place for place, due_ns in enumerate(due) if due_ns is not None]
    return {name: [values[place] for place in places] for name, values in batch.items()} if places else {}


def batches_of(rows: Iterable[JsonObject]) -> Iterator[Mapping[str, Sequence[Any]]]:
    """Turn rows that come one by one, each with the fields that it has, into what ``to_columns`` takes."""
    coming = iter(rows)
    while batch := list(itertools.islice(coming, ROWS_AT_ONCE)):
        yield {name: [row.get(name, _DEFAULTS[name]) for row in batch] for name in _NAMES}


def _put_in_time(table: RequestColumns) -> None:
    """Order rows by intended time and index."""
    if all(before <= after for before, after in itertools.pairwise(table.tuples("t_intended_ns", "index"))):
        return
    times, indexes = (array("q", values_of(table, name)) for name in ("t_intended_ns", "index"))
    table.put_in_order(order_by(len(table), lambda place: (times[place], indexes[place])))


def _column_of(name: str) -> _Column:
    kind = str(next(field.type for field in _FIELDS if field.name == name)).removesuffix(" | None")
    return _Numbers("b") if kind == "int" else _Numbers("d") if kind == "float" else _Words()


def of(requests: Sequence[Request], *names: str) -> Iterator[tuple[Any, ...]]:
    """Yield these fields of each row: much less work than whole rows."""
    if isinstance(requests, RequestColumns):
        return requests.tuples(*names)
    return (tuple([getattr(request, name) for name in names]) for request in requests)


def values_of(requests: Sequence[Request], name: str) -> Iterator[Any]:
    """Yield one field of each row."""
    return (value for (value,) in of(requests, name))


def pick(requests: Sequence[Request], positions: Sequence[int]) -> Sequence[Request]:
    """Return the rows at these positions, in this order; columns stay columns."""
    if isinstance(requests, RequestColumns):
        return requests.picked(positions)
    return [requests[position] for position in positions]


def keep(requests: Sequence[Request], *names: str, where: Callable[..., bool]) -> Sequence[Request]:
    """Return the rows for whose fields ``where`` holds, in their order; columns stay columns."""
    positions = array("I", (n for n, values in enumerate(of(requests, *names)) if where(*values)))
    return requests if len(positions) == len(requests) else pick(requests, positions)


def in_time(requests: Sequence[Request]) -> Sequence[Request]:
    """Return the rows by intended time; those of the same moment as they stand."""
    times = array("q", values_of(requests, "t_intended_ns"))
    if all(before <= after for before, after in itertools.pairwise(times)):
        return requests
    return pick(requests, order_by(len(times), times.__getitem__))
