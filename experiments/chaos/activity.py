"""One activity of the user's in a process of its own: ``python -m experiments.chaos.activity``.

Verifying and undoing what is not ours calls other people's code, which may hang or end its process. Here it
has a deadline, and does neither to us. Its answer is the last line on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

from probes.child import end_child, python_module, read_first_line, start_child, watch_lifeline
from probes.errors import TargetError
from probes.json_types import JsonObject

START_S = 15.0  # imports, on a busy machine
BETWEEN_LOOKS_S = 0.5
OUTPUT_KEPT = 300  # characters of what an activity said


def carry_out(activity: JsonObject, context: Mapping[str, object], *, timeout_s: float) -> str:
    """Carry an activity out once; return what it said.

    Raises:
        TargetError: it failed, or had no end in time.
    """
    answer = _ask({"activity": activity, "is_wanted": None, "within_s": 0.0}, context, timeout_s=timeout_s)
    return str(answer["observed"])


def look_until(
    probe: JsonObject, context: Mapping[str, object], *, is_wanted: bool, within_s: float, timeout_s: float
) -> tuple[bool, str]:
    """Look with a probe until it is within its tolerance, or out of it; return whether that came, and what.

    A probe that breaks says neither, so what was wanted has not come.
    """
    job = {"activity": probe, "is_wanted": is_wanted, "within_s": within_s}
    try:
        answer = _ask(job, context, timeout_s=timeout_s + within_s)
    except TargetError as error:
        return False, str(error)
    return bool(answer["is_met"]), str(answer["observed"])


def _ask(job: JsonObject, context: Mapping[str, object], *, timeout_s: float) -> JsonObject:
    name = job["activity"].get("name")
    given = json.dumps(job | {k: context.get(k) for k in ("configuration", "secrets")}, default=str)
    with tempfile.TemporaryFile("w+") as said:
        child = start_child(python_module("experiments.chaos.activity"), stdout=said)
        assert child.stdin is not None
        try:
            child.stdin.write(given + "\n")
            child.stdin.flush()
            child.wait(timeout=START_S + timeout_s)
        except subprocess.TimeoutExpired:
            end_child(child)
            raise TargetError(f"{name!r}: had no end within {timeout_s:g} s") from None
        except OSError:
            child.wait()  # it ended before it read; what it said follows
        except BaseException:
            end_child(child)
            raise
        child.stdin.close()  # what it has started, such as a server, may stay: its group is left alone
        said.seek(0)
        lines = said.read().strip().splitlines() or ["{}"]
    try:
        answer = json.loads(lines[-1])
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not answer:
        raise TargetError(f"{name!r}: its process ended without an answer (exit {child.returncode})")
    if "error" in answer:
        raise TargetError(f"{name!r}: {answer['error']}")
    return answer


def _carry_out_here(job: JsonObject) -> JsonObject:
    from chaoslib.activity import run_activity
    from chaoslib.configuration import load_configuration
    from chaoslib.hypothesis import within_tolerance
    from chaoslib.secret import load_secrets

    try:
        configuration = load_configuration(job["configuration"] or {})
        secrets = load_secrets(job["secrets"] or {}, configuration)
    except Exception as error:  # of a vault that cannot be reached, whatever its client raises
        return {"error": f"{error}"[:OUTPUT_KEPT]}
    activity, is_wanted = job["activity"], job["is_wanted"]
    deadline = time.monotonic() + float(job["within_s"])
    while True:
        try:
            value = run_activity(activity, configuration, secrets)
            observed = json.dumps(value, default=str)[:OUTPUT_KEPT]
            if is_wanted is None:
                return _answer_of(value, observed)
            is_within = bool(within_tolerance(activity["tolerance"], value, configuration, secrets))
            observed = (
                f"{activity['name']!r} said {observed}, {'within' if is_within else 'out of'} tolerance"
            )
            is_met = is_within == is_wanted
        except Exception as error:  # whatever other people's code raises: the probe could not say
            if is_wanted is None:
                return {"error": f"{type(error).__name__}: {error}"[:OUTPUT_KEPT]}
            is_met, observed = False, f"{activity['name']!r} broke: {error}"[:OUTPUT_KEPT]
        if is_met or time.monotonic() >= deadline:
            return {"is_met": is_met, "observed": observed}
        time.sleep(BETWEEN_LOOKS_S)


def _answer_of(value: object, observed: str) -> JsonObject:
    """A process or HTTP activity that says so has failed; Chaos Toolkit itself takes any for a success."""
    status = value.get("status") if isinstance(value, dict) else None
    if isinstance(value, dict) and "stdout" in value and status:
        return {"error": f"exit {status}: {observed}"}
    if isinstance(value, dict) and "headers" in value and isinstance(status, int) and status >= 400:
        return {"error": f"HTTP {status}: {observed}"}
    return {"observed": observed}


def main() -> int:
    """Carry out the activity that comes as one line of JSON."""
    job = json.loads(read_first_line(within_s=START_S))
    watch_lifeline(lambda: os._exit(1))
    answer = _carry_out_here(job)
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # a thread that the activity has left must not hold us


if __name__ == "__main__":
    sys.exit(main())
