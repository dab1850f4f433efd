"""Asks the site's Alertmanager while a game day runs, in a thread of its own (``GET /api/v2/alerts``).

Whatever comes back, or does not, is a row; it neither stops the day nor slows it down.
"""

from __future__ import annotations

import datetime
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

from experiments.alerts.noticed import GONE_EVENT, SEEN_EVENT, SERIES, Alerts, AlertsSeen, find_detection
from experiments.impact.recovery import Detection
from experiments.injecting.permission import Condition
from probes.errors import ConfigError, RecordError
from probes.json_types import JsonObject
from probes.page import fetch
from reports.record import RunWriter

BYTES_MAX = 8 * 1024 * 1024
LABELS_MAX, LABEL_CHARS_MAX = 20, 100  # of one alert, on the timeline
EVENTS_MAX = 200  # a storm of alerts must not fill the record
ERROR_CHARS_MAX = 200
_STEPS = 7  # questions drift over the second, since its Date bounds a clock best where the second turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What Alertmanager said once."""

    alerts: tuple[JsonObject, ...]  # that match and have not ended
    date_s: int  # its own clock
    t_sent_ns: int
    t_head_ns: int


def read_authorization(alerts: Alerts) -> dict[str, str]:
    """Return the header that says who asks; nothing where none is wanted.

    Raises:
        ConfigError: the variable that should hold it is not set.
    """
    if not alerts.authorization_env:
        return {}
    if not (value := os.environ.get(alerts.authorization_env)):
        raise ConfigError(f"alerts: authorization_env names {alerts.authorization_env}, which is not set")
    return {"Authorization": value}


def ask(alerts: Alerts, headers: Mapping[str, str]) -> Answer:
    """Ask once which matching alerts fire.

    Raises:
        ValueError: no answer came, or not one of Alertmanager's.
    """
    query = urlencode([("filter", text) for text in alerts.filters])
    page = fetch(
        f"{alerts.url}/api/v2/alerts?{query}",
        headers={"Accept": "application/json", **headers},
        deadline_s=alerts.timeout_s,
        bytes_max=BYTES_MAX,
    )
    if page.status != 200:
        raise ValueError(
            f"HTTP {page.status}: {page.body[:ERROR_CHARS_MAX].decode(errors='replace').strip()}"
        )
    try:
        date_s = round(parsedate_to_datetime(page.headers["date"]).timestamp())
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("an answer without a Date: its clock cannot be compared with ours") from error
    try:
        listed = json.loads(page.body)
        found = tuple(_to_alert(item) for item in listed) if isinstance(listed, list) else None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no list of alerts: {type(error).__name__}: {error}") from error
    if found is None:
        raise ValueError(f"no list of alerts: {page.body[:60]!r}")
    return Answer(alerts=found, date_s=date_s, t_sent_ns=page.t_sent_ns, t_head_ns=page.t_head_ns)


def _to_alert(item: JsonObject) -> JsonObject:
    started = datetime.datetime.fromisoformat(item["startsAt"])
    if started.tzinfo is None:
        raise ValueError(f"startsAt without a time zone: {item['startsAt']!r}")
    labels = sorted(item["labels"].items(), key=lambda pair: (pair[0] != "alertname", pair[0]))
    return {
        "fingerprint": str(item["fingerprint"]),
        "labels": {str(k)[:LABEL_CHARS_MAX]: str(v)[:LABEL_CHARS_MAX] for k, v in labels[:LABELS_MAX]},
        "state": str(item["status"]["state"]),
        "starts_at": str(item["startsAt"]),
        "starts_at_ns": round(started.timestamp() * 1e6) * 1000,
    }


class AlertWatch:
    """Watches from ``start`` to ``stop``."""

    def __init__(self, alerts: Alerts, writer: RunWriter) -> None:
        self._alerts = alerts
        self._headers = read_authorization(alerts)
        self._writer = writer
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alert-watch", daemon=True)
        self._rows: list[JsonObject] = []
        self._seen: dict[tuple[str, str], JsonObject] = {}  # by fingerprint and start
        self._firing: set[tuple[str, str]] = set()
        self.error: RecordError | None = None  # what ended the watching, for the main thread to raise

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a question under way gets its time-out."""
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._alerts.timeout_s + 1)

    def detection(self, t_inject_ns: int) -> Detection | None:
        """Return what judging will make of it, as far as it is known now."""
        seen = AlertsSeen(wanted=self._alerts, rows=tuple(self._rows), alerts=tuple(self._seen.values()))
        return find_detection(seen, t_inject_ns)

    def is_worth_waiting_for(self, t_inject_ns: int) -> bool:
        """Say whether an alert may still come in time, from an Alertmanager that answers."""
        if self.detection(t_inject_ns) is not None or not self._rows or not self._rows[-1]["is_answered"]:
            return False
        return int(self._rows[-1]["t_ns"]) < t_inject_ns + round(self._alerts.within_s * 1e9)

    def _run(self) -> None:
        step = 0
        while not self._leaving.is_set():
            try:
                self._look()
            except RecordError as error:
                self.error = error
                return
            step += 1
            self._leaving.wait(self._alerts.every_s * (1 + step % _STEPS / _STEPS / 2))

    def _look(self) -> None:
        row: JsonObject = {"subject": f"alertmanager:{self._alerts.url}", "is_answered": False, "error": ""}
        row |= {"date_s": None, "t_sent_ns": time.time_ns(), "matching_alerts": None}
        answer: Answer | None = None
        try:
            answer = ask(self._alerts, self._headers)
        except ValueError as error:
            row |= {"t_ns": time.time_ns(), "error": str(error)[:ERROR_CHARS_MAX]}
            if self._leaving.is_set():
                return
        else:
            if self._leaving.is_set():
                return
            row |= {"t_ns": answer.t_head_ns, "t_sent_ns": answer.t_sent_ns, "date_s": answer.date_s}
            row |= {"is_answered": True, "matching_alerts": len(answer.alerts)}
        self._note_silence(row)
        if answer is not None:
            self._note(answer)
        self._writer.sample(SERIES, row)
        self._rows.append(row)

    def _note(self, answer: Answer) -> None:
        """Put what began and what ended on the timeline."""
        now = {(a["fingerprint"], a["starts_at"]): a for a in answer.alerts}
        for key in now.keys() - self._seen.keys():
            if len(self._seen) < EVENTS_MAX:
                event = self._writer.event("alertmanager", SEEN_EVENT, **now[key])
                self._seen[key] = now[key] | {"t_seen_ns": event.t_ns}
        for key in (self._firing - now.keys()) & self._seen.keys():
            gone = {name: self._seen[key][name] for name in ("fingerprint", "labels", "starts_at")}
            self._writer.event("alertmanager", GONE_EVENT, **gone)
        self._firing = set(now)

    def _note_silence(self, row: JsonObject) -> None:
        was_heard = self._rows[-1]["is_answered"] if self._rows else True
        if was_heard and not row["is_answered"]:
            self._writer.event("alertmanager", "alerts.silent", reason=row["error"])
        elif not was_heard and row["is_answered"]:
            self._writer.event("alertmanager", "alerts.heard")


def look_at_alerts(alerts: Alerts) -> Condition:
    """See whether Alertmanager can be asked, and whether what is to notice the fault is quiet."""
    try:
        answer = ask(alerts, read_authorization(alerts))
    except (ConfigError, ValueError) as error:
        return Condition(name="site's alerts", is_met=False, observed=f"{alerts.url}: {error}")
    names = sorted({str(alert["labels"].get("alertname", "")) for alert in answer.alerts})
    observed = f"{alerts.url} answers, none of {' and '.join(alerts.filters)} fires"
    if names:
        observed = f"{', '.join(names)} fires already; an alert that fired before the fault does not count"
    return Condition(name="site's alerts", is_met=not names, observed=observed)
