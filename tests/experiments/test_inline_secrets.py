"""Secrets of an experiment: where they lie is kept, they themselves only where nothing else is stated."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from experiments.chaos.activity import carry_out
from experiments.declared.fault import Declared, captured_of, without_secrets
from experiments.declared.inline_secrets import inline_secrets, warnings_about
from experiments.injecting.ledger import Ledger, read_ledger
from experiments.targets.target import Target
from probes.errors import TargetError
from probes.json_types import JsonObject

UNDO: JsonObject = {
    "name": "go on",
    "type": "action",
    "provider": {
        "type": "http",
        "url": "http://127.0.0.1:1",
        "headers": {"Authorization": "Bearer of-the-header"},
        "secrets": ["site"],
    },
}
SECRETS: JsonObject = {
    "site": {
        "token": {"type": "env", "key": "SITE_TOKEN"},
        "password": {"type": "vault", "path": "site/password"},
        "pin": "4711",
        "nested": {"deep": "0815"},
    }
}


def captured() -> JsonObject:
    fault = Declared(
        action="stop it", subject="process:x", ends_by="undo", verify=None, undo=UNDO, within_s=1.0
    )
    return captured_of(fault, Target(name="site"), {"secrets": SECRETS, "configuration": None})


def test_the_ledger_keeps_where_a_secret_lies_and_not_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_TOKEN", "of-the-environment")
    with Ledger(tmp_path) as ledger:
        ledger.arm("declared", "process:x", captured())
    (entry,) = read_ledger(tmp_path)
    file = tmp_path / "undo.ndjson"

    assert entry.captured["secrets"]["site"]["token"] == {"type": "env", "key": "SITE_TOKEN"}
    assert "of-the-environment" not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_an_inline_secret_is_named_with_its_line_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({"title": "t", "secrets": SECRETS}, sort_keys=False))
    lines = path.read_text().splitlines()

    pin, deep = warnings_about(path, SECRETS)

    assert list(inline_secrets(SECRETS)) == [("site", "pin"), ("site", "nested", "deep")]
    assert pin.startswith(
        f"{path}:{next(i for i, line in enumerate(lines, 1) if 'pin' in line)}: secret site.pin"
    )
    assert "secret site.nested.deep stands inline" in deep
    assert "4711" not in pin
    assert warnings_about(path, None) == []


def test_the_timeline_holds_no_secret_of_an_activity() -> None:
    said = str(without_secrets(captured()))

    assert "go on" in said
    assert "of-the-header" not in said
    assert "4711" not in said


def test_undoing_says_which_variable_is_missing_where_it_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SITE_TOKEN", raising=False)
    context = captured() | {"secrets": {"site": {"token": SECRETS["site"]["token"]}}}

    with pytest.raises(TargetError, match="environment key that does not exist: SITE_TOKEN"):
        carry_out(UNDO, context, timeout_s=5)
