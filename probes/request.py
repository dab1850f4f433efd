"""One request, as the load client saw it: the row that every rule over traffic reads.

Times are CLOCK_REALTIME in nanoseconds of the client's host. Arrivals of stream data carry the kernel's
receive timestamp where the kernel gave one; ``lag_ms_max`` says how far the client itself was behind.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from probes.json_types import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One row of ``requests/*.parquet``."""

    index: int  # position in the run's one schedule of arrivals
    worker: int  # which load process sent it
    endpoint: str  # the address it was sent to
    t_intended_ns: int  # when the schedule wanted it sent
    t_sent_ns: int | None  # None: it was never sent (dropped, or the connection failed)
    t_first_ns: int | None  # first event with content or reasoning; None: there was none
    t_last_ns: int | None  # last event with content or reasoning
    t_end_ns: int | None  # end of the answer, or when it was given up; None: it was never begun
    connect_ms: float | None  # None: the connection was reused or never made
    status: int | None  # HTTP status; None: no answer head came
    error: str | None  # kind of failure, as in ``probes.traffic.ERRORS``; None: the request succeeded
    error_detail: str = ""  # first 200 characters of what went wrong
    replica: str = ""  # who answered, where a header says so
    finish_reason: str = ""
    is_done: bool = False  # ``[DONE]`` came
    events: int = 0  # stream events with content or reasoning
    chars: int = 0
    tokens_in: int | None = None  # from the server's ``usage``; None: it sent none
    tokens_out: int | None = None
    gaps_us: tuple[int, ...] = ()  # between successive content events; 0: in one read with the one before
    reads: int = 0
    reads_unstamped: int = 0  # reads without a kernel timestamp: the clock was used
    reads_coalesced: int = 0  # reads that held several events: their gaps are censored
    lag_ms_max: float = 0.0  # longest time that received data waited for the client
    first_uncertain_ms: float = 0.0  # the first content may have come this much before ``t_first_ns``
    last_uncertain_ms: float = 0.0  # and the last this much before ``t_last_ns``
    is_hung_up: bool = False  # the client left in the middle on purpose: neither good nor failed
    session: int | None = None  # user or conversation that it belongs to; None: it stands alone
    turn: int | None = None  # its place there, from 0
    retry_after_s: float | None = None  # what a refusal asks for; None: nothing, or a date
    choices: int = 1  # answers to the one prompt (``n``)
    tokens_cached: int | None = None  # of ``tokens_in``, as the server's ``usage`` says
    tls_ms: float | None = None  # of the TLS handshake, after ``connect_ms``; None: none was made
    gaps_censored: int = 0  # of ``gaps_us``, those known only as lying within an interval
    task: int | None = None  # number of the checked task that it asks; None: an ordinary request
    text: str = ""  # what was answered, of checked tasks only
    endpoint_name: str | None = None  # where it went; None: there is only one endpoint
    endpoint_planned: str | None = None  # where the schedule wanted it; another than it went to: fail-over
    events_garbled: int = 0  # content with U+FFFD: cut UTF-8 in the server, or what the model said

    @property
    def is_good(self) -> bool:
        """Whether the answer came whole; says nothing of how fast."""
        return self.error is None


_NAMES = frozenset(field.name for field in fields(Request))


def request_from_json(row: JsonObject) -> Request:
    """Read a row back; columns of a newer version are dropped."""
    known = {name: value for name, value in row.items() if name in _NAMES}
    return Request(**known | {"gaps_us": tuple(known.get("gaps_us") or ())})
