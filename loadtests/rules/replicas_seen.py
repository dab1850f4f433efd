"""How many replicas answered in a load, by their ``x-replica`` header, from the rows by SQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loadtests.rules.autoscale import at_most
from loadtests.spec.expect import ExpectSpec, HeaderReplicas
from loadtests.watching.replica_watch import SERIES
from probes.json_types import JsonObject
from reports.record import RunWriter
from reports.request_table import open_requests

STEP_S = 0.5
_NAMED = "endpoint || ' ' || replica AS replica"
# A replica serves from the first content of a good answer to its end. Whether there are more is told by the
# requests sent in the window: each could have gone to any replica that served all the while.
_COUNTED = f"""
WITH looks AS (SELECT unnest(range(CAST($from AS BIGINT), CAST($until AS BIGINT), CAST($step AS BIGINT)))
    AS t),
served AS (SELECT {_NAMED}, coalesce(t_first_ns, t_end_ns) AS began, t_end_ns AS ended FROM requests
    WHERE error IS NULL AND replica <> '' AND t_end_ns IS NOT NULL),
drawn AS (SELECT {_NAMED}, t_sent_ns AS sent FROM requests WHERE replica <> '' AND t_sent_ns IS NOT NULL),
present AS (SELECT t, count(DISTINCT replica) AS seen FROM looks JOIN served
    ON began <= t AND ended > t - $window GROUP BY t),
asked AS (SELECT t, count(*) AS answers, count(DISTINCT replica) AS seen FROM looks JOIN drawn
    ON sent <= t AND sent > t - $window GROUP BY t)
SELECT t, coalesce(present.seen, 0), coalesce(asked.answers, 0), coalesce(asked.seen, 0)
FROM looks LEFT JOIN present USING (t) LEFT JOIN asked USING (t) ORDER BY t
"""  # noqa: S608  # nothing of a user's is in it


def write_replicas_seen(expected: ExpectSpec | None, writer: RunWriter) -> None:
    """Put the replicas that answered into the record, where the workload wants them seen by their header."""
    if expected is None or not isinstance(expected.autoscale.replicas, HeaderReplicas):
        return
    for row in read_replicas_seen(writer.path, window_s=expected.autoscale.window_s):
        writer.sample(SERIES, row)


def read_replicas_seen(folder: Path, *, window_s: float) -> Iterator[JsonObject]:
    """Yield a row for every half second, each about the window before it.

    Raises:
        RecordError: the rows cannot be read.
    """
    step_ns, window_ns = round(STEP_S * 1e9), round(window_s * 1e9)
    with open_requests(folder) as connection:
        span = connection.execute("SELECT min(t_intended_ns), max(t_end_ns) FROM requests").fetchone()
        if span is None or span[0] is None or span[1] is None:
            return
        # Not before the first window is over, and not beyond the last answer: nobody was asked then.
        limits = {"from": span[0] + window_ns, "until": span[1] + step_ns}
        found = connection.execute(_COUNTED, limits | {"step": step_ns, "window": window_ns}).fetchall()
    for t_ns, serving, answers, answered in found:
        row: JsonObject = {"t_ns": t_ns, "subject": "endpoint", "source": "header", "problem": ""}
        if serving:
            most = at_most(answers, answered)
            row |= {"replicas": serving, "replicas_at_most": None if most is None else max(most, serving)}
        else:
            row["problem"] = "no answer named its replica (x-replica)"
        yield row
