"""``alerts`` of an experiment's extension: where the site's Alertmanager is, and which alert has to fire."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from experiments.alerts.noticed import Alerts
from probes.page import is_web_address
from probes.spec import Spec

_FILTER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\s*(=~|!~|!=|=)\s*\S.*", re.DOTALL)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class AlertsSpec(Spec):
    """The alerts of the site that are to notice the fault."""

    url: str = Field(description="Address of Alertmanager, as http://alertmanager:9093, with its prefix.")
    filters: tuple[str, ...] = Field(
        min_length=1, description='Matchers that all have to hold, as alertname="ReplicaDown".'
    )
    within_s: float = Field(gt=0, le=3600, description="Seconds from the injection until one has to fire.")
    every_s: float = Field(default=1.0, ge=0.2, le=30, description="Seconds between two questions.")
    timeout_s: float = Field(default=3.0, gt=0, le=30, description="Seconds that one answer may take.")
    authorization_env: str = Field(
        default="", description="Environment variable that holds the whole Authorization header."
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if not is_web_address(url):
            raise ValueError(
                "wanted an address such as http://alertmanager:9093, without a password: "
                "authorization_env names the variable that holds one"
            )
        return url.rstrip("/")

    @field_validator("filters")
    @classmethod
    def _are_matchers(cls, filters: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [text for text in filters if not _FILTER.fullmatch(text)]:
            raise ValueError(f'{wrong[0]!r} is no matcher; wanted one such as alertname="ReplicaDown"')
        return filters

    @field_validator("authorization_env")
    @classmethod
    def _is_a_variable(cls, name: str) -> str:
        if name and not _VARIABLE.fullmatch(name):
            raise ValueError("wanted the name of an environment variable, never the secret itself")
        return name

    def to_alerts(self) -> Alerts:
        """Return what to ask and what to wait for."""
        return Alerts(
            url=self.url, filters=self.filters, within_s=self.within_s, every_s=self.every_s,
            timeout_s=self.timeout_s, authorization_env=self.authorization_env,
        )  # fmt: skip
