"""Positive controls of the rules on a fleet: a fault is planted into its tables, and has to be seen.

So a record in which a rule could see nothing, by a bug of ours or else, does not pass for one without faults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from burnin.fleet.digest_vote import judge_digest_vote
from burnin.fleet.outliers import judge_outliers
from probes.finding import Finding
from probes.outcome import Outcome
from reports.fleet_tables import FleetTables

Known = set[tuple[str, str, Outcome | None]]  # what was found without the planted fault
_NOTICED = (Outcome.FAIL, Outcome.INCONCLUSIVE)
_SLOWNESS = "0.05 * value"
# A figure that is compared between enough GPUs, and a product that three hosts have made.
_A_FIGURE = """
SELECT host, gpu, metric FROM figure
JOIN grouped USING (level, metric, model, driver) JOIN line USING (number)
WHERE level = 'gpu' AND value IS NOT NULL AND value >= floor ORDER BY n DESC, metric, host, gpu LIMIT 1
"""
_A_DIGEST = """
SELECT host, gpu, product FROM digest JOIN (
  SELECT product, count(DISTINCT host) AS hosts FROM digest GROUP BY product
  HAVING count(DISTINCT digest) = 1 AND hosts > 2
) USING (product) ORDER BY hosts DESC, product, host, gpu LIMIT 1
"""


def prove_fleet_rules(tables: FleetTables, known: Sequence[Finding], *, fleet: str) -> list[Finding]:
    """Plant a slow GPU, then a wrong digest; the rule on outliers has been asked before."""
    before = {(f.rule, f.subject, f.outcome) for f in known}
    return [*_prove_outlier(tables, fleet, before), *_prove_digest(tables, fleet, before)]


def _prove_outlier(tables: FleetTables, fleet: str, before: Known) -> list[Finding]:
    found = tables.rows(_A_FIGURE)
    if not found:
        return []
    host, gpu, metric = (str(value) for value in found[0])
    where = {"host": host, "gpu": gpu, "metric": metric}
    with tables.planted("gpu_result", "value", _SLOWNESS, where=where):
        return [_told("slow GPU of a fleet", host, lambda: judge_outliers(tables, fleet=fleet), before)]


def _prove_digest(tables: FleetTables, fleet: str, before: Known) -> list[Finding]:
    found = tables.rows(_A_DIGEST)
    if not found:
        return []
    host, gpu, product = (str(value) for value in found[0])
    where = {"host": host, "gpu": gpu, "product": product}
    with tables.planted("digest", "digest", "'planted'", where=where):
        return [
            _told("wrong digest in a fleet", host, lambda: judge_digest_vote(tables, fleet=fleet), before)
        ]


def _told(detector: str, host: str, judge: Callable[[], Sequence[Finding]], before: Known) -> Finding:
    new = [f for f in judge() if f.outcome in _NOTICED and (f.rule, f.subject, f.outcome) not in before]
    seen = [f for f in new if host in f.evidence.get("hosts", ())]
    return Finding(
        rule="control",
        subject=f"detector:{detector}",
        outcome=Outcome.PASS if seen else Outcome.INCONCLUSIVE,
        observed=f"seen on {host}: {seen[0].observed}" if seen else f"planted on {host}, and not seen",
        expected="a fault that is planted into the tables is seen",
        evidence={"fidelity": "parser only"},
        next_step="" if seen else "the figures differ so much that nothing could be found",
    )
