"""Outliers: a GPU, or a whole host, that does less than the others of its model with its driver.

Two lines must be crossed. The practical floor says what is too slow to accept. The second says that chance
does not explain it, over all GPUs and metrics of the fleet together: heavy-tailed, since what healthy parts
differ by is no normal distribution, and 100,000 of them reach far into its tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from burnin.rules.speed import RATIO_MIN
from burnin.rules.transfer import RATIO_MIN as COPY_RATIO_MIN
from probes.finding import Finding
from probes.json_types import JsonObject
from probes.outcome import Outcome
from probes.student_t import quantile, upper_tail
from reports.fleet_tables import FleetTables

# How far below the median is too slow: the lines that are drawn between the GPUs of one node.
_DROP = {"cuda": 1 - RATIO_MIN["cuda"], "cpu": 1 - RATIO_MIN["cpu"]}
_COPY_DROP = {"cuda": 1 - COPY_RATIO_MIN["cuda"], "cpu": 1 - COPY_RATIO_MIN["cpu"]}
# By the beginning of the metric's name. More is better in all of them.
DROPS = {
    "tflops": _DROP,
    "hbm_gbps": _DROP,
    "allreduce_busbw_gbps": _DROP,
    "h2d_gbps": _COPY_DROP,
    "d2h_gbps": _COPY_DROP,
}
# Told, not judged: nothing is wrong with a GPU that is only warmer than the others (its own limits are judged
# on its host). NVIDIA's and Meta's checks warn at 10 °C above the median.
WARMER_C = 10.0
FALSE_ALARMS_MAX = 0.01  # of healthy fleets may have a FAIL by chance, over all GPUs and metrics
GPUS_MIN, HOSTS_MIN = 8, 3
# Fewer GPUs say little about their own tail, which may be heavier than that of 5 degrees of freedom.
TAIL_KNOWN_FROM, TAIL_USUAL = 1000, 5.0
STANDARD_ERROR = 2.2  # of the ratio by which a tail is told, relative, times the root of the count
TAILS = (3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)
POPULATION_SHARE_MAX = 0.1  # when more of a group lie below, they are a second population and no outliers
_SLOW = "look at its clocks, temperature and power limit; if they are normal, replace it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What may be compared: one metric of one model with one driver."""

    number: int
    level: str  # "gpu" or "host": the GPUs, or the medians of whole hosts
    metric: str
    unit: str
    model: str
    driver: str  # "any": too few hosts have this one's, so that all of the model are compared
    count: int
    hosts: int
    median: float
    quarter: float  # a quarter of the group lies below
    fortieth: float  # 2.5 % of the group lie below
    drop: float

    @property
    def floor(self) -> float:
        """What is too slow to accept."""
        return self.median * (1 - self.drop)


def judge_outliers(tables: FleetTables, *, fleet: str) -> list[Finding]:
    """Compare every figure of every GPU and host with its like."""
    _prepare(tables)
    groups = [group for group in _groups(tables) if group.median > 0]
    judged = [group for group in groups if group.count >= _least(group) and group.hosts >= HOSTS_MIN]
    tests = sum(group.count for group in judged)
    floors = [(group.number, group.floor) for group in judged]
    tables.fill("line", {"number": "BIGINT", "floor": "DOUBLE"}, floors)
    slow = _slow_ones(tables)
    chance = chance_max([p for group in judged for p in _chances(group, slow.get(group.number, []))], tests)
    findings = []
    for group in judged:
        findings += _judge_group(group, critical_value(group, chance), slow.get(group.number, []), fleet)
    told = _fold(findings)
    warm = _warm(tables)
    lacking = _lacking(tables)
    return [*told, *lacking, *warm, _summary(fleet, groups, judged, tests, told)]


def _least(group: Group) -> int:
    return GPUS_MIN if group.level == "gpu" else HOSTS_MIN + 2


def chance_max(chances: Sequence[float], tests: int) -> float:
    """Return the chance up to which a part is accused (Benjamini and Hochberg 1995).

    ``chances`` are those of the parts that are too slow, among so many figures. Of a healthy fleet as few are
    accused as by Bonferroni; where many parts are bad, a hundredth of those accused may be so by chance.
    """
    ranked = sorted(chances)
    able = [
        rank for rank, chance in enumerate(ranked, 1) if chance <= FALSE_ALARMS_MAX * rank / max(tests, 1)
    ]
    return FALSE_ALARMS_MAX * max(able, default=1) / max(tests, 1)


def critical_value(group: Group, chance: float) -> float:
    """Return what a healthy part goes below with this chance, by the group's own spread and tail."""
    freedom = tail_of(group)
    return group.median - _spread(group) * quantile(chance, freedom) / quantile(0.25, freedom)


def _spread(group: Group) -> float:
    return max(group.median - group.quarter, 1e-6 * group.median)


def _chances(group: Group, slow: Sequence[tuple[str, str, float]]) -> list[float]:
    """Return the chance that a healthy part is as slow, for each slow one; none of a second population."""
    if _are_many(group, slow):
        return []
    freedom = tail_of(group)
    scale = quantile(0.25, freedom) / _spread(group)
    return [upper_tail((group.median - value) * scale, freedom) for _, _, value in slow]


def _are_many(group: Group, slow: Sequence[tuple[str, str, float]]) -> bool:
    hosts = {host for host, _, _ in slow}
    return len(hosts) > max(POPULATION_SHARE_MAX * group.hosts, HOSTS_MIN - 1)


def tail_of(group: Group) -> float:
    """Return the degrees of freedom of the Student's t that reaches as far as the lower half of this group.

    Taken two standard errors to the heavy side: a tail that is thought too light makes false alarms. Few GPUs
    would have the heaviest of all then; one error is taken for them, and no tail lighter than usual.
    """
    is_known = group.count >= TAIL_KNOWN_FROM
    spread = group.median - group.quarter
    if spread <= 0:
        return TAILS[0]
    ratio = (
        (group.median - group.fortieth)
        / spread
        * (1 + (2 if is_known else 1) * STANDARD_ERROR / math.sqrt(group.count))
    )
    able = [freedom for freedom in TAILS if quantile(0.025, freedom) / quantile(0.25, freedom) >= ratio]
    found = max(able, default=TAILS[0])
    return found if is_known else min(found, TAIL_USUAL)


def _prepare(tables: FleetTables) -> None:
    """Lay the figures out by what may be compared."""
    metrics = [str(row[0]) for row in tables.rows("SELECT DISTINCT metric FROM gpu_result")]
    rows: list[tuple[object, ...]] = []
    for metric in metrics:
        drop = next((drops for name, drops in DROPS.items() if metric.startswith(name)), None)
        if drop is not None:
            rows.append((metric, drop["cuda"], drop["cpu"]))
    columns = {"metric": "VARCHAR", "drop_gpu": "DOUBLE", "drop_cpu": "DOUBLE"}
    tables.fill("judged_metric", columns, rows)
    tables.run(_FIGURES)
    tables.run(_COMPARED)


_FIGURES = """
CREATE OR REPLACE TEMP TABLE figure AS
WITH driver AS (
  SELECT host, max(value) AS driver FROM fingerprint WHERE part = '' AND key = 'driver' GROUP BY host
),
latest AS (
  SELECT host, gpu, metric, arg_max(coalesce(model, ''), t_ns) AS model,
         arg_max(coalesce(unit, ''), t_ns) AS unit, last(value ORDER BY t_ns) AS value
  FROM gpu_result JOIN judged_metric USING (metric) GROUP BY host, gpu, metric
),
placed AS (
  SELECT latest.*, coalesce(driver, '') AS driver,
         CASE WHEN starts_with(gpu, 'cpu') THEN drop_cpu ELSE drop_gpu END AS d
  FROM latest JOIN judged_metric USING (metric) LEFT JOIN driver USING (host)
),
both_levels AS (
  SELECT 'gpu' AS level, host, gpu, metric, model, unit, driver, d, value FROM placed
  UNION ALL
  SELECT 'host', host, '', metric, model, max(unit), max(driver), max(d), median(value)
  FROM placed GROUP BY host, metric, model HAVING count(value) > 1
),
common AS (SELECT model, driver, count(DISTINCT host) AS hosts FROM placed GROUP BY model, driver)
SELECT both_levels.* EXCLUDE (driver), CASE WHEN hosts >= 3 THEN driver ELSE 'any' END AS driver
FROM both_levels LEFT JOIN common USING (model, driver)
"""
# Hosts of a rare driver are compared with all of their model; nobody else's median is moved by them.
_COMPARED = """
CREATE OR REPLACE TEMP TABLE grouped AS
WITH own AS (
  SELECT level, metric, model, driver, max(unit) AS unit, max(d) AS d, count(value) AS n,
         count(DISTINCT host) AS hosts, quantile_cont(value, [0.025, 0.25, 0.5]) AS q
  FROM figure WHERE driver <> 'any' GROUP BY level, metric, model, driver
),
every AS (
  SELECT level, metric, model, 'any' AS driver, max(unit) AS unit, max(d) AS d, count(value) AS n,
         count(DISTINCT host) AS hosts, quantile_cont(value, [0.025, 0.25, 0.5]) AS q
  FROM figure GROUP BY level, metric, model HAVING bool_or(driver = 'any')
)
SELECT row_number() OVER (ORDER BY level, metric, model, driver) AS number, *
FROM (FROM own UNION ALL FROM every)
"""


def _groups(tables: FleetTables) -> list[Group]:
    query = (
        "SELECT number, level, metric, unit, model, driver, n, hosts, q[3], q[2], q[1], d FROM grouped"
        " WHERE n > 0 ORDER BY number"
    )
    names = (
        "number",
        "level",
        "metric",
        "unit",
        "model",
        "driver",
        "count",
        "hosts",
        "median",
        "quarter",
        "fortieth",
    )
    rows = tables.rows(query)
    return [Group(**dict(zip((*names, "drop"), row, strict=True))) for row in rows]  # type: ignore[arg-type]


def _slow_ones(tables: FleetTables) -> dict[int, list[tuple[str, str, float]]]:
    """Return host, GPU and value of all that lie below their floor, the slowest first, by group."""
    query = """
    SELECT number, host, gpu, value FROM figure
    JOIN grouped USING (level, metric, model, driver) JOIN line USING (number)
    WHERE value < floor ORDER BY number, value
    """
    found: dict[int, list[tuple[str, str, float]]] = {}
    for number, host, gpu, value in tables.rows(query):
        found.setdefault(int(str(number)), []).append((str(host), str(gpu), float(str(value))))
    return found


def _judge_group(
    group: Group, line: float, slow: Sequence[tuple[str, str, float]], fleet: str
) -> list[Finding]:
    if _are_many(group, slow):
        return [_second_population(group, slow, fleet)] if group.level == "gpu" else []
    return [_judge_one(group, line, host, gpu, value) for host, gpu, value in slow]


def _judge_one(group: Group, line: float, host: str, gpu: str, value: float) -> Finding:
    is_rare = value < line
    # Another driver may be why: what is the part's, and what the driver's, nobody can tell then.
    outcome = Outcome.FAIL if is_rare and group.driver != "any" else Outcome.INCONCLUSIVE
    whom = f"{group.count} {'GPUs' if group.level == 'gpu' else 'hosts'} of {group.model}"
    like = f"{whom} with driver {group.driver}" if group.driver not in ("", "any") else whom
    figure = f"{group.metric}: {value:.4g} {group.unit}"
    below = f"{1 - value / group.median:.0%} below the median of {like}"
    observed = f"on {host}: {figure}, {below}" if gpu else f"{figure}, {below}"
    if group.driver == "any":
        step = "give it the driver that the others have, then run it again"
    elif is_rare:
        step = _SLOW
    else:
        observed += f", whose spread alone reaches down to {max(line, 0):.4g}"
        step = "run it again: the others differ so much that this may be chance"
    return Finding(
        rule="fleet-outlier",
        subject=subject_of_part(host, gpu),
        outcome=outcome,
        observed=observed,
        expected=f"at least {group.floor:.4g}: {1 - group.drop:.0%} of the median of {group.median:.4g}",
        unit=group.unit,
        evidence={
            "hosts": [host],
            "metric": group.metric,
            "value": value,
            "median": group.median,
            "line_of_chance": line,
            "tail_freedom": tail_of(group),
            "group": group.count,
            "severity": 1 - value / group.median,
        },
        next_step=step,
    )


def subject_of_part(host: str, gpu: str) -> str:
    """Return the subject of a finding about a GPU or, without one, about the host."""
    if not gpu:
        return f"host:{host}"
    return f"gpu:{gpu}" if gpu.startswith(("GPU-", "MIG-")) else f"device:{host}/{gpu}"


def _second_population(group: Group, slow: Sequence[tuple[str, str, float]], fleet: str) -> Finding:
    hosts = sorted({host for host, _, _ in slow})
    return Finding(
        rule="fleet-outlier",
        subject=f"fleet:{fleet}/{group.metric}",
        outcome=Outcome.INCONCLUSIVE,
        observed=f"{len(slow)} of {group.count} {group.model} on {len(hosts)} of {group.hosts} hosts lie "
        f"below {group.floor:.4g} {group.unit}: too many to be outliers of one population",
        expected=f"at most {POPULATION_SHARE_MAX:.0%} of the hosts below {1 - group.drop:.0%} of the median",
        unit=group.unit,
        evidence={"hosts": hosts, "metric": group.metric, "median": group.median},
        next_step="see what those hosts have in common: drift table, rack, power cap, cooling",
    )


def _fold(findings: Sequence[Finding]) -> list[Finding]:
    """Let a slow host stand for its GPUs, and the worst metric of a part for its other ones."""
    hosts = {(f.subject, f.evidence["metric"]) for f in findings if f.subject.startswith("host:")}
    kept: dict[str, Finding] = {}
    for finding in sorted(findings, key=_weight):
        about = finding.evidence["hosts"]
        is_within = not finding.subject.startswith(("host:", "fleet:")) and any(
            (f"host:{host}", finding.evidence["metric"]) in hosts for host in about
        )
        if is_within:
            continue
        first = kept.get(finding.subject)
        if first is None:
            kept[finding.subject] = finding
        else:
            first.evidence.setdefault("also", []).append(finding.observed)
    return list(kept.values())


def _weight(finding: Finding) -> tuple[bool, float]:
    return finding.outcome is not Outcome.FAIL, -float(finding.evidence.get("severity", 0.0))


def _lacking(tables: FleetTables) -> list[Finding]:
    """Name the hosts with a GPU that lacks a figure which nearly all of its model have."""
    query = """
    WITH gpus AS (SELECT DISTINCT host, gpu, model FROM figure WHERE level = 'gpu'),
    known AS (SELECT host, gpu, metric FROM figure WHERE level = 'gpu' AND value IS NOT NULL),
    usual AS (
      SELECT metric, model, count(value) AS have FROM figure WHERE level = 'gpu' GROUP BY metric, model
    ),
    size AS (SELECT model, count(*) AS n FROM gpus GROUP BY model)
    SELECT host, gpu, list(metric ORDER BY metric) FROM gpus JOIN size USING (model) JOIN usual USING (model)
    LEFT JOIN known USING (host, gpu, metric)
    WHERE known.metric IS NULL AND have >= 0.9 * n GROUP BY host, gpu ORDER BY host, gpu
    """
    found = []
    for host, gpu, metrics in tables.rows(query):
        assert isinstance(metrics, list)
        evidence: JsonObject = {"hosts": [host], "metrics": metrics}
        found.append(
            Finding(
                rule="fleet-outlier",
                subject=subject_of_part(str(host), str(gpu)),
                outcome=Outcome.INCONCLUSIVE,
                observed=f"on {host}: no {', '.join(map(str, metrics))}, which others of its model have",
                expected="every figure that the others have",
                evidence=evidence,
                next_step="see what ended that stage on this host, then run it again",
            )
        )
    return found


def _warm(tables: FleetTables) -> list[Finding]:
    """Tell, without judging, which GPUs are far warmer than the others of their model."""
    query = """
    WITH usual AS (
      SELECT model, median(value) AS usual FROM gpu_result WHERE metric = 'temperature_c' GROUP BY model
    )
    SELECT host, gpu, value, usual FROM gpu_result JOIN usual USING (model)
    WHERE metric = 'temperature_c' AND value > usual + ? ORDER BY value DESC LIMIT 20
    """
    return [
        Finding(
            rule="fleet-outlier",
            subject=subject_of_part(str(host), str(gpu)),
            outcome=None,
            observed=f"on {host}: {value:.0f} °C under load, while the median of its model is {usual:.0f} °C",
            expected=f"at most {WARMER_C:.0f} °C above the median; told, not judged",
            unit="°C",
            evidence={"hosts": [host], "metric": "temperature_c"},
        )
        for host, gpu, value, usual in tables.rows(query, WARMER_C)
    ]


def _summary(
    fleet: str, groups: Sequence[Group], judged: Sequence[Group], tests: int, told: Sequence[Finding]
) -> Finding:
    """Say what was compared; nothing comparable is not applicable, which is no pass."""
    gpus = max((g.count for g in judged if g.level == "gpu"), default=0)
    slow = sum(1 for f in told if f.outcome is Outcome.FAIL)
    if not judged:
        hosts = max((g.hosts for g in groups), default=0)
        observed = f"figures of {hosts} hosts of one kind at most: too few to say who is the outlier"
    else:
        metrics = len({g.metric for g in judged})
        largest = f"{metrics} metrics, {gpus:,} GPUs in the largest group"
        observed = f"{tests:,} figures compared: {largest}; {slow} too slow"
    return Finding(
        rule="fleet-outlier",
        subject=f"fleet:{fleet}",
        outcome=Outcome.PASS if judged else None,
        observed=observed,
        expected=f"none far below its like; by chance in at most {FALSE_ALARMS_MAX:.0%} of healthy fleets",
        evidence={"tests": tests, "groups": len(judged)},
    )
