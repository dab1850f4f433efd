"""Live progress on standard error while a run is going on; the result itself goes to standard output.

On a terminal one calm table that is redrawn in place; anywhere else one plain line per change.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from reports.text import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
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


class Progress:
    """One row per step.

    ``with Progress("burn-in") as progress: progress.step("matmul", "running", "3 s of 10")``
    """

    def __init__(self, title: str, *, quiet: bool = False) -> None:
        self.title = title
        self._quiet = quiet
        self._rows: dict[str, tuple[str, str]] = {}
        self._told: dict[str, float] = {}
        self._started = time.monotonic()
        self._live: Live | None = None  # None: no terminal, or not entered
        self._headers: Sequence[str] = ()
        self._lines: Callable[[], Sequence[Sequence[str]]] = lambda: ()

    def show_table(self, headers: Sequence[str], rows: Callable[[], Sequence[Sequence[str]]]) -> None:
        """Draw a table below the steps, on a terminal only; ``rows`` is asked whenever it is drawn."""
        self._headers, self._lines = headers, rows

    def step(self, name: str, state: str, detail: str = "") -> None:
        """Set the row of a step; ``state`` is waiting, running, pass, inconclusive, fail or done."""
        has_changed = self._rows.get(name, ("", ""))[0] != state
        self._rows[name] = (state, detail)
        if self._quiet or self._live is not None:
            return
        elapsed_s = time.monotonic() - self._started
        if has_changed or elapsed_s - self._told.get(name, 0.0) >= PLAIN_EVERY_S:
            self._told[name] = elapsed_s
            line = f"{elapsed_s:6.1f} s  {one_line(name)}: {one_line(state)} {one_line(detail)}"
            sys.stderr.write(line.rstrip() + "\n")

    def _render(self) -> RenderableType:
        from rich.console import Group

        rows = self._lines()
        return Group(self._steps(), "", self._table(rows)) if rows else self._steps()

    def _table(self, rows: Sequence[Sequence[str]]) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        for index, header in enumerate(self._headers):
            table.add_column(
                header, justify="left" if index < 2 else "right", no_wrap=True, overflow="ellipsis"
            )
        for row in rows[:ROWS_MAX]:
            table.add_row(*(Text(one_line(cell)) for cell in row))
        if len(rows) > ROWS_MAX:
            table.add_row(Text(f"and {len(rows) - ROWS_MAX} more", style="dim"))
        return table

    def _steps(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(max_width=24, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        elapsed_s = time.monotonic() - self._started
        table.add_row("", Text(one_line(self.title), style="bold"), Text(f"{elapsed_s:.0f} s", style="dim"))
        for name, (state, detail) in list(self._rows.items()):
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
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
            self._live = Live(
                console=console,
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
