"""What a load run comes to, in a dozen figures with their own uncertainty: all that comparing needs.

A baseline file holds these and no requests, so that it can be committed to a repository.
"""

from __future__ import annotations

import bisect
import itertools
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from probes.distribution import Counted, count_gaps
from probes.errors import ConfigError
from probes.finding import Finding
from probes.in_order import ascending
from probes.json_types import JsonObject
from probes.metric import ITL, METRICS
from probes.outcome import Outcome
from probes.request import Request
from probes.request_columns import keep, of
from probes.slo import GOODPUT, Slo, is_good
from probes.slo_spec import SloSpec
from reports.block_spread import BLOCKS_MAX, BLOCKS_MIN, Pair, block_edges, ratio, ratio_spread
from reports.figure_kind import PERCENTILE_METRICS, PERCENTS
from reports.run import Run, load_run
from reports.table import read_columns

# History of the form of a baseline file. 1 (2026-11-21): first form.
SCHEMA_VERSION = 1
# So many values must lie beyond a percentile, or it says nothing: p99 needs 500.
TAIL_VALUES_MIN = 5
# The rule that counts right answers to checked tasks, idle and under load.
CORRECTNESS_RULE = "answers-right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of one run; ``spread`` is its standard error within the run, of the log or the share."""

    value: float
    spread: float
    values: int  # how many it rests on


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """One run as it is compared."""

    id: str
    kind: str
    workload: str
    started_ns: int
    outcome: str
    host: str
    endpoint: str
    model: str
    seed: int
    duration_s: float
    versions: dict[str, str]
    load: JsonObject  # what shapes the load: runs with another one cannot be compared
    promises: list[JsonObject]
    problems: list[str]  # why its figures cannot be trusted; empty: they can
    requests: int
    figures: dict[str, Figure] = field(default_factory=dict)


# What a workload file says beside the shape of the load.
_NOT_SHAPE = {
    "name",
    "slos",
    "failed_share_max",
    "calibration",
    "baseline",
    "duration_s",
    "guards",
    "allowed_hosts",
}
_NOT_SHAPE_OF_ENDPOINT = {"url", "model", "api_key_env", "api_key_file", "headers", "ca_file", "replicas"}
_FILES = {"file", "pairs_file", "path"}  # by their names: the folder differs from machine to machine


def load_shape(spec: JsonObject) -> JsonObject:
    """Return what of a workload decides which requests come when; absent keys stand for their defaults."""
    shape = {key: _by_name(value) for key, value in spec.items() if key not in _NOT_SHAPE}
    endpoint = spec.get("endpoint")
    if isinstance(endpoint, dict):
        shape["endpoint"] = {k: v for k, v in endpoint.items() if k not in _NOT_SHAPE_OF_ENDPOINT}
    if shape.get("endpoints"):
        shape["endpoints"] = [
            {k: v for k, v in one.items() if k not in _NOT_SHAPE_OF_ENDPOINT}
            for one in spec["endpoints"]
            if isinstance(one, dict)
        ]
    # Earlier records do not have these keys.
    return {k: v for k, v in shape.items() if v or k not in ("endpoints", "fail_over")}


def _by_name(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: Path(item).name if key in _FILES and isinstance(item, str) else _by_name(item)
            for key, item in value.items()
        }
    return [_by_name(item) for item in value] if isinstance(value, (list, tuple)) else value


def read_figures(run: Run) -> RunFigures:
    """Return the figures of a recorded run of any kind; those of a load test come from its requests."""
    requests = read_columns(run.path) if run.header.kind == "load" else []
    state = run.state
    problems = [] if state == "finished" else [f"the run is {state}"]
    problems += [] if run.findings else ["nobody has judged it yet"]
    return measure(run, requests, findings=run.findings, outcome=run.outcome, problems=problems)


def measure(
    run: Run,
    requests: Sequence[Request],
    *,
    findings: Sequence[Finding],
    outcome: Outcome,
    problems: Sequence[str] = (),
) -> RunFigures:
    """Return the figures of a run whose requests and findings are at hand."""
    spec = run.header.spec
    answered = next((e.data for e in run.events_of("endpoint.answered")), {})
    slos = tuple(SloSpec.model_validate(slo).to_slo() for slo in spec.get("slos") or ()) if requests else ()
    return RunFigures(
        id=run.header.id,
        kind=run.header.kind,
        workload=str(spec.get("name") or spec.get("profile") or spec.get("title") or ""),
        started_ns=run.header.started_ns,
        outcome=outcome.value,
        host=run.header.host,
        endpoint=_endpoint(run, answered),
        model=str(answered.get("model") or ""),
        seed=run.header.seed,
        duration_s=float(spec.get("duration_s") or 0.0),
        versions=dict(run.header.versions),
        load=load_shape(spec) if run.header.kind == "load" else {},
        promises=list(spec.get("slos") or ()),
        problems=[*problems, *(_problem(finding) for finding in findings if _is_doubtful(finding))],
        requests=len(requests),
        figures=figures_of(requests, slos) | _correctness(findings),
    )


def _correctness(findings: Sequence[Finding]) -> dict[str, Figure]:
    """Return the share of checked answers that were right under load, as their rule counted them."""
    counted = [f.evidence.get("load") for f in findings if f.rule == CORRECTNESS_RULE]
    tables = [table for table in counted if isinstance(table, dict) and table.get("answers")]
    answers = sum(int(table["answers"]) for table in tables)
    if not answers:
        return {}
    right = sum(int(table["right"]) for table in tables)
    return {
        "correctness": Figure(value=right / answers, spread=_least_spread(right, answers), values=answers)
    }


def _endpoint(run: Run, answered: JsonObject) -> str:
    """Return the address; the simulated endpoint of the run itself has another port each time."""
    is_simulated = any(event.data.get("is_simulated") for event in run.events_of("endpoint.started"))
    if is_simulated:
        return "simulated"
    several = [e.data for e in run.events_of("endpoint.answered") if e.data.get("endpoint")]
    named = ", ".join(f"{data['endpoint']} {data.get('url')}" for data in several)
    return named or str(answered.get("url") or "")


def _is_doubtful(finding: Finding) -> bool:
    """Whether a finding says that the load or the client was not what the figures need."""
    is_ours = finding.subject.startswith(("client:", "run:"))
    return is_ours and finding.counts and finding.outcome is not Outcome.PASS


def _problem(finding: Finding) -> str:
    return f"{finding.rule}: {finding.observed}"


def figures_of(requests: Sequence[Request], slos: Sequence[Slo] = ()) -> dict[str, Figure]:
    """Return every figure that these requests can bear, by name."""
    counted = keep(requests, "is_hung_up", where=lambda is_hung_up: not is_hung_up)
    edges = block_edges(len(counted))
    blocks = [counted[start:end] for start, end in itertools.pairwise(edges)]
    if len(blocks) < BLOCKS_MIN:
        return {}
    found = dict(_latencies(counted, blocks))
    found["error_share"] = _share(blocks, lambda request: not request.is_good)
    bounded = [slo for slo in slos if slo.metric != GOODPUT]
    if bounded:
        found["goodput"] = _share(blocks, lambda request: is_good(request, bounded))
    rate = _token_rate(counted)
    return found | ({"tokens_per_s": rate} if rate is not None else {})


def _latencies(
    requests: Sequence[Request], blocks: Sequence[Sequence[Request]]
) -> Iterator[tuple[str, Figure]]:
    for metric in PERCENTILE_METRICS:
        merged = _Microseconds(metric, requests)
        percents = [percent for percent in PERCENTS if merged.is_known(percent / 100)]
        values_us = [merged.at(percent / 100) for percent in percents]
        below = [_count_below(metric, block, values_us) for block in blocks]
        for place, percent in enumerate(percents):
            pairs = [(float(one[place]), float(one[-1])) for one in below]
            figure = _percentile(merged, percent / 100, values_us[place], pairs)
            if figure is not None:
                yield f"{metric}_p{percent}", figure


class _Microseconds:
    """All values of a metric in whole microseconds."""

    def __init__(self, metric: str, requests: Sequence[Request]) -> None:
        self._gaps, self._ordered = Counted(Counter()), array("q")
        if metric == ITL:
            self._gaps = Counted(
                count_gaps(gaps for e, gaps in of(requests, "error", "gaps_us") if e is None)
            )
        else:
            self._ordered = ascending(array("q", _each_us(metric, requests)))

    def __len__(self) -> int:
        return len(self._gaps) or len(self._ordered)

    def is_known(self, share: float) -> bool:
        """Whether enough values lie beyond."""
        return len(self) * (1 - share) >= TAIL_VALUES_MIN

    def at(self, share: float) -> int:
        """Return the order statistic at a share."""
        rank = min(len(self), max(1, math.ceil(share * len(self))))
        return self._gaps.ranked(rank) if len(self._gaps) else self._ordered[rank - 1]


def _each_us(metric: str, requests: Sequence[Request]) -> Iterator[int]:
    if metric == ITL:
        return (gap for error, gaps in of(requests, "error", "gaps_us") if error is None for gap in gaps)
    read = METRICS[metric].read
    return (round(value * 1000) for request in requests if request.is_good for value in read(request))


def _count_below(metric: str, block: Sequence[Request], values_us: Sequence[int]) -> list[int]:
    """Return how many values of a block are at most each of these, and how many there are."""
    counts = [0] * (len(values_us) + 1)
    for value_us in _each_us(metric, block):
        counts[bisect.bisect_left(values_us, value_us)] += 1
    return list(itertools.accumulate(counts))


def _percentile(merged: _Microseconds, share: float, value_us: int, pairs: Sequence[Pair]) -> Figure | None:
    """Return a percentile and its spread; None: gaps of nothing.

    The spread of the share below it, by blocks, is carried over to the values there (Woodruff, 1952).
    """
    if value_us <= 0:
        return None
    spread = max(ratio_spread(pairs), math.sqrt(share * (1 - share) / len(merged)))
    low, high = merged.at(share - spread), merged.at(share + spread)
    return Figure(value=value_us / 1000, spread=math.log(high / max(low, 1)) / 2, values=len(merged))


def _share(blocks: Sequence[Sequence[Request]], is_counted: Callable[[Request], bool]) -> Figure:
    """Return a share; one of 0 or 1 is uncertain too."""
    pairs: list[Pair] = [(float(sum(map(is_counted, block))), float(len(block))) for block in blocks]
    total = sum(count for _, count in pairs)
    floor = _least_spread(sum(top for top, _ in pairs), total)
    return Figure(value=ratio(pairs), spread=max(ratio_spread(pairs), floor), values=round(total))


def _least_spread(top: float, total: float) -> float:
    """Return the standard error of a share if every one were independent, pulled away from 0 and 1."""
    pulled = (top + 2) / (total + 4)
    return math.sqrt(pulled * (1 - pulled) / (total + 4))


def _token_rate(requests: Sequence[Request]) -> Figure | None:
    """Return output tokens per second from the first arrival to the last answer; None: nothing came."""
    names = ("error", "t_end_ns", "tokens_out", "events")
    ends = (end for error, end, *_ in of(requests, *names) if error is None and end is not None)
    last_ns = max(ends, default=None)
    if last_ns is None:
        return None
    start_ns = requests[0].t_intended_ns
    span_ns = max(1, last_ns - start_ns)
    counts = [0.0] * BLOCKS_MAX
    for error, t_end_ns, tokens_out, events in of(requests, *names):
        if error is None and t_end_ns is not None:
            at_ns = (t_end_ns or start_ns) - start_ns
            place = min(BLOCKS_MAX - 1, max(0, at_ns * BLOCKS_MAX // span_ns))
            counts[place] += events if tokens_out is None else tokens_out
    pairs: list[Pair] = [(count, span_ns / BLOCKS_MAX / 1e9) for count in counts]
    rate = ratio(pairs)
    if not rate:
        return None
    return Figure(value=rate, spread=ratio_spread(pairs) / rate, values=round(sum(counts)))


def figures_to_json(figures: RunFigures) -> JsonObject:
    """Return plain JSON values."""
    return asdict(figures)


def figures_from_json(data: JsonObject) -> RunFigures:
    """Read the figures of a run back; keys of a newer version are dropped.

    Raises:
        ValueError: a key is missing or of the wrong kind.
    """
    known = {name: data[name] for name in RunFigures.__dataclass_fields__ if name in data}
    try:
        figures = {name: Figure(**figure) for name, figure in dict(known.get("figures", {})).items()}
        found = RunFigures(**known | {"figures": figures})
    except TypeError as error:
        raise ValueError(str(error)) from error
    for name, figure in figures.items():
        numbers = (figure.value, figure.spread)
        if not all(isinstance(n, (int, float)) and math.isfinite(n) and n >= 0 for n in numbers):
            raise ValueError(f"{name}: value and spread must be finite and not negative")
    return found


def baseline_document(runs: Sequence[RunFigures]) -> JsonObject:
    """Return the content of a baseline file.

    Raises:
        ConfigError: a run has no figures, cannot be trusted, or is of another load than the first.
    """
    for run in runs:
        if run.kind != "load" or not run.figures or run.problems:
            reason = run.problems[0] if run.problems else f"a {run.kind} run with {run.requests} requests"
            raise ConfigError(f"{run.id}: cannot be a baseline: {reason}")
        if run.load != runs[0].load:
            raise ConfigError(f"{run.id}: is of another load than {runs[0].id}; one baseline holds one load")
    if len({run.id for run in runs}) != len(runs):
        raise ConfigError("a run is named twice; it would look as if runs did not differ")
    return {
        "schema_version": SCHEMA_VERSION,
        "made_by": "overproof baseline",
        "runs": [figures_to_json(run) for run in runs],
    }


def parse_baseline(data: object, *, source: str) -> list[RunFigures]:
    """Read the content of a baseline file.

    Raises:
        ConfigError: it is none, or one of a newer overproof.
    """
    if not isinstance(data, dict) or not isinstance(data.get("runs"), list) or not data["runs"]:
        raise ConfigError(f"{source}: not a baseline: make one with `overproof baseline RUN --out FILE`")
    if data.get("schema_version") != SCHEMA_VERSION:
        raise ConfigError(
            f"{source}: schema_version {data.get('schema_version')!r}, this overproof reads {SCHEMA_VERSION}"
        )
    try:
        return [figures_from_json(run) for run in data["runs"]]
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{source}: not a baseline: {error}") from error


def load_figures(path: Path) -> list[RunFigures]:
    """Return the figures of a run folder, of a baseline file, or of every load run in a folder.

    Raises:
        ConfigError: there is nothing of the kind.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file or folder; wanted a run, a baseline file or a folder of runs"
        )
    if path.is_file():
        try:
            return parse_baseline(json.loads(path.read_text(encoding="utf-8")), source=str(path))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read as a baseline: {error}") from error
    if (path / "run.json").exists():
        return [read_figures(load_run(path))]
    found = [read_figures(run) for run in runs_in(path) if run.header.kind == "load"]
    if not found:
        raise ConfigError(f"{path}: holds no run of a load test and is none")
    return found


def load_bases(paths: Sequence[Path], run: RunFigures) -> list[RunFigures]:
    """Return the base runs to compare a run with: of a whole folder those before it with the same load.

    Raises:
        ConfigError: none is left, or one is named twice.
    """
    found: list[RunFigures] = []
    for path in paths:
        figures = load_figures(path)
        if path.is_dir() and not (path / "run.json").exists():
            figures = [f for f in figures if f.load == run.load and f.started_ns < run.started_ns]
        found += figures
    if not found:
        raise ConfigError(f"no run of the same load came before {run.id} in {', '.join(map(str, paths))}")
    ids = [figures.id for figures in found]
    twice = next((one for one in [*ids, run.id] if [*ids, run.id].count(one) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice: compared with itself a run shows nothing")
    return found


def folders_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Return by id the folders of the runs that these paths name or hold; those of a baseline have none."""
    folders = [path for path in paths if path.is_dir()]
    runs = [run for path in folders if not (path / "run.json").exists() for run in runs_in(path)]
    runs += [load_run(path) for path in folders if (path / "run.json").exists()]
    return {run.header.id: run.path for run in runs}


def runs_in(folder: Path, *, most: int | None = None) -> list[Run]:
    """Return the runs of a folder that can be opened, the oldest first; of many the latest ``most``."""
    runs = []
    for path in sorted(folder.iterdir()):
        if not path.is_symlink() and (path / "run.json").exists():
            try:
                runs.append(load_run(path))
            except ConfigError:
                continue  # one of a newer overproof, or not ours
    runs.sort(key=lambda run: run.header.started_ns)
    return runs if most is None else runs[-most:]
