"""Lines of any length by SQL, thinned to what a screen can show: of each column its extremes, and every gap.

A line that has more points than ``panel.POINTS_MAX`` is cut into columns of equally many points; of each the
first, the lowest and the highest are kept, so that a spike of a single sample is never lost.
"""

from __future__ import annotations

from collections import defaultdict

import duckdb

from reports.panel import POINTS_MAX, SILENCE_INTERVALS, Point

_THINNED = """
WITH points AS ({points}),
placed AS (
    SELECT line, t_ns, v, row_number() OVER (PARTITION BY line ORDER BY t_ns) - 1 AS place,
        count(*) OVER (PARTITION BY line) AS total
    FROM points
),
columns AS (
    SELECT line, t_ns, v, CASE WHEN total <= {most} THEN place
        ELSE place // CAST(ceil(total / ({most} / 3)) AS BIGINT) END AS number FROM placed
)
SELECT line, min(t_ns), arg_min(v, t_ns), arg_min(t_ns, v), min(v), arg_max(t_ns, v), max(v)
FROM columns GROUP BY line, number
"""
# Where a line fell silent for too long: one of its usual steps after its last point there.
_SILENT = """
WITH points AS ({points}),
stepped AS (SELECT *, t_ns - lag(t_ns) OVER (PARTITION BY line ORDER BY t_ns) AS step FROM points),
usual AS (SELECT line, quantile_disc(step, 0.5) AS usual FROM stepped WHERE step IS NOT NULL GROUP BY line)
SELECT line, t_ns - step + usual FROM stepped JOIN usual USING (line)
WHERE usual > 0 AND step > {intervals} * usual
"""


def thinned_lines(
    connection: duckdb.DuckDBPyConnection,
    points: str,
    *,
    t0_ns: int,
    has_gaps: bool = True,
    most: int = POINTS_MAX,
) -> dict[str, tuple[Point, ...]]:
    """Return the lines of a query that yields ``line``, ``t_ns`` and ``v``, in seconds since ``t0_ns``."""
    lines: dict[str, set[tuple[int, float | None]]] = defaultdict(set)
    rows = connection.execute(_THINNED.format(points=points, most=most)).fetchall()
    for line, first_ns, first, low_ns, low, high_ns, high in rows:
        lines[line] |= {(first_ns, first), (low_ns, low), (high_ns, high)}
    silent = _SILENT.format(points=points, intervals=SILENCE_INTERVALS)
    for line, t_ns in connection.execute(silent).fetchall() if has_gaps else ():
        lines[line].add((t_ns, None))
    return {
        line: tuple(((t_ns - t0_ns) / 1e9, v) for t_ns, v in sorted(found, key=lambda point: point[0]))
        for line, found in lines.items()
    }
