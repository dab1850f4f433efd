"""What one writes with Locust alone: each user asks, reads lines, and takes the time when a token is seen."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from locust import FastHttpUser, HttpUser, events, task

SETTINGS = json.loads(os.environ["PLAIN_LOCUST"])
OFFSET_NS = time.time_ns() - time.perf_counter_ns()  # so that its times can be laid beside true ones
HEARD: list[tuple[str, int, list[int]]] = []
BODY = {
    "model": "m",
    "messages": [],
    "stream": True,
    "max_tokens": SETTINGS["tokens"],
    "golden": SETTINGS["golden"],
}
PATH = "/v1/chat/completions"


def _take(line: str | bytes, times: list[int]) -> None:
    text = line.decode() if isinstance(line, bytes) else line
    if not text.startswith("data: ") or text.startswith("data: [DONE]"):
        return
    choices = json.loads(text[6:])["choices"]
    if choices and choices[0]["delta"].get("content"):
        times.append(time.perf_counter_ns() + OFFSET_NS)


class _Plain:
    client: Any
    asked = 0

    def _request_id(self) -> str:
        self.asked += 1
        return f"{id(self)}-{self.asked}"


if SETTINGS["kind"] == "HttpUser":

    class Plain(_Plain, HttpUser):
        @task
        def chat(self) -> None:
            name, times = self._request_id(), []
            sent = time.perf_counter_ns() + OFFSET_NS
            with self.client.post(
                PATH, json=BODY, headers={"x-request-id": name}, stream=True, catch_response=True
            ) as response:
                for line in response.iter_lines():
                    _take(line, times)
            HEARD.append((name, sent, times))

else:

    class Plain(_Plain, FastHttpUser):  # type: ignore[no-redef]
        @task
        def chat(self) -> None:
            name, times = self._request_id(), []
            sent = time.perf_counter_ns() + OFFSET_NS
            for line in self.client.iter_lines(
                PATH, method="POST", json=BODY, headers={"x-request-id": name}
            ):
                _take(line, times)
            HEARD.append((name, sent, times))


@events.quitting.add_listener
def _write(**_: object) -> None:
    Path(SETTINGS["heard"]).write_text(json.dumps(HEARD))
