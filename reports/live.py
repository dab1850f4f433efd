"""Live progress on standard error while a run is going on; the result itself goes to standard output.

On a terminal one calm region that is redrawn in place, never wider or higher than the terminal; anywhere else
one plain line per change, and none twice.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from reports.text import one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.table import Table

REFRESHES_PER_S = 4
ROWS_MAX = 16  # of a table; a screen is no longer
PLAIN_EVERY_S = 15.0  # a step whose detail keeps changing is told this often where there is no terminal
_SIGNS = {
    "waiting": ("·", "dim"),
    "running": ("▸", "bold"),
    "pass": ("✓", "green"),
    "done": ("✓", ""),
    "inconclusive": ("?", "yellow"),
    "fail": ("✗", "red"),
}
_MARKS = {"✓": "green", "✗": "red"}  # colours of cells that begin so
_FOLDED = ("done", "pass", "waiting")  # states whose steps share a line where there is no room for one each
_NO_SCREEN = ("", "dumb", "unknown")  # values of TERM of what cannot draw in place

Rows = Sequence[Sequence[str]]


class Progress:
    """One row per step.

    ``with Progress("burn-in") as progress: progress.step("matmul", "running", "3 s of 10")``
    """

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self.title = title
        self._quiet = quiet
        self._rows: dict[str, tuple[str, str]] = {}
        self._told: dict[str, tuple[float, str]] = {}  # when the last line of a step was written, and which
        self._started = time.monotonic()
        self._console: Console | None = None  # None: no terminal, or not entered
        self._live: Live | None = None  # the same
        self._headers: Sequence[str] = ()
        self._lines: Callable[[], Rows] = lambda: ()
        self._left_columns = 2
        self._widths: list[int] = []  # of the table's columns, the most so far
        self._size: tuple[int, int] | None = None  # of the terminal, when it was last drawn on

    @property
    def is_drawn(self) -> bool:
        """Whether there is a terminal to draw on: elsewhere nobody sees a table."""
        return self._live is not None

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    def states(self) -> dict[str, str]:
        """Return the state of each step."""
        return {name: state for name, (state, _) in list(self._rows.items())}

    def show_table(self, headers: Sequence[str], rows: Callable[[], Rows], *, left_columns: int = 2) -> None:
        """Draw a table below the steps, on a terminal only; ``rows`` is asked whenever it is drawn.

        The columns after ``left_columns`` hold figures, and end where their headers end.
        """
        self._headers, self._lines, self._left_columns = headers, rows, left_columns

    def step(self, name: str, state: str, detail: str = "") -> None:
        """Set the row of a step; ``state`` is waiting, running, pass, inconclusive, fail or done."""
        has_changed = self._rows.get(name, ("", ""))[0] != state
        self._rows[name] = (state, detail)
        if not self._quiet and self._live is None:
            self._tell(name, f"{one_line(name)}: {one_line(state)} {one_line(detail)}".rstrip(), has_changed)

    def _tell(self, name: str, line: str, has_changed: bool) -> None:
        at_s, last = self._told.get(name, (0.0, ""))
        elapsed_s = self.elapsed_s
        if line != last and (has_changed or elapsed_s - at_s >= PLAIN_EVERY_S):
            self._told[name] = (elapsed_s, line)
            sys.stderr.write(f"{elapsed_s:6.1f} s  {line}\n")

    def _render(self) -> RenderableType:
        """Return the region as it is to be drawn now."""
        from rich.console import Group
        from rich.control import Control

        assert self._console is not None
        before, self._size = self._size, (self._console.size.width, self._console.size.height)
        # A terminal of another size breaks the lines that are there anew: nobody knows how many they are.
        wiped = () if before in (None, self._size) else (Control.home(), Control.clear())
        return Group(*wiped, *self.draw(height=self._size[1] - 1))

    def draw(self, *, height: int) -> Iterator[RenderableType]:
        """Yield steps and table within ``height`` lines; steps that wait or are done share one if need be."""
        rows = list(self._lines())
        wanted = min(len(rows), ROWS_MAX + 1) + 2 if rows else 0
        steps = list(self._rows.items())
        if 1 + len(steps) + wanted > height:
            steps = list(_folded(steps))
        yield self._steps(steps)
        room = height - 1 - len(steps) - 2  # for rows, below an empty line and the headers
        if rows and room > 1:
            yield ""
            yield self._table(rows, rows_max=min(room, ROWS_MAX + 1))

    def _table(self, rows: Rows, *, rows_max: int) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        shown = rows if len(rows) <= rows_max else rows[: rows_max - 1]
        widths = self._widths_of(shown)
        for index, (header, width) in enumerate(zip(self._headers, widths, strict=True)):
            side: Literal["left", "right"] = "left" if index < self._left_columns else "right"
            table.add_column(header, justify=side, no_wrap=True, overflow="ellipsis", min_width=width)
        for row in shown:
            table.add_row(*(Text(one_line(cell), style=_MARKS.get(cell[:1], "")) for cell in row))
        if len(rows) > len(shown):
            table.add_row(Text(f"and {len(rows) - len(shown)} more", style="dim"))
        return table

    def _widths_of(self, rows: Rows) -> list[int | None]:
        """Return how wide each column is at least: as wide as it ever was, so that nothing jumps about."""
        from rich.cells import cell_len

        cells = zip(*([*row] for row in rows), strict=True)
        now = [max(cell_len(one_line(cell)) for cell in column) for column in cells]
        before = self._widths or [0] * len(now)
        self._widths = [max(pair) for pair in zip(before, now, strict=True)]
        has_room = self._size is None or sum(self._widths) + 2 * len(self._widths) <= self._size[0]
        return [width if has_room else None for width in self._widths]

    def _steps(self, steps: Sequence[tuple[str, tuple[str, str]]]) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(max_width=24, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_row(
            "", Text(one_line(self.title), style="bold"), Text(f"{self.elapsed_s:.0f} s", style="dim")
        )
        for name, (state, detail) in steps:
            sign, style = _SIGNS.get(state, ("·", ""))
            shown = (
                one_line(detail) if detail else state if state in ("waiting", "fail", "inconclusive") else ""
            )
            quiet_style = "dim" if state == "waiting" else ""
            table.add_row(
                Text(sign, style=style),
                Text(one_line(name), style=quiet_style),
                Text(shown, style=quiet_style),
            )
        return table

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty() and os.environ.get("TERM", "") not in _NO_SCREEN:
            from rich.console import Console
            from rich.live import Live

            self._console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
            self._live = Live(
                console=self._console,
                get_renderable=self._render,
                refresh_per_second=REFRESHES_PER_S,
                redirect_stdout=False,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()


def _folded(steps: Sequence[tuple[str, tuple[str, str]]]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the steps with those that wait, and those that are done, on one line each."""
    names = {state: [name for name, (said, _) in steps if said == state] for state in _FOLDED}
    done, waiting = [*names["done"], *names["pass"]], names["waiting"]
    if done:
        yield f"{len(done)} done", ("done", ", ".join(done))
    yield from (step for step in steps if step[1][0] not in _FOLDED)
    if waiting:
        yield f"{len(waiting)} to come", ("waiting", ", ".join(waiting))
