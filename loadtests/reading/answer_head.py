"""What an answer's head says: refused, sent elsewhere, or answered by another kind of thing."""

from __future__ import annotations

from loadtests.reading.stream import Head


def content_type_of(head: Head) -> str:
    """Return the media type alone, in lower case."""
    return head.fields.get("content-type", "").partition(";")[0].strip().lower()


def judge_head(head: Head, *, is_streamed: bool, shown: str) -> tuple[str | None, str]:
    """Return error kind and detail, where the head alone decides; ``shown`` is the beginning of the body."""
    if head.status != 200:
        retry_after = head.fields.get("retry-after")
        extra = f" (Retry-After: {retry_after})" if retry_after else ""
        extra += f" (Location: {head.fields['location'][:100]})" if head.fields.get("location") else ""
        return _kind_of_status(head.status), f"HTTP {head.status}{extra}: {shown}"
    if head.fields.get("content-encoding", "identity").lower() != "identity":
        return "content_type", f"content-encoding {head.fields['content-encoding']!r} was not asked for"
    wanted, got = "text/event-stream" if is_streamed else "application/json", content_type_of(head)
    return (None, "") if got == wanted else ("content_type", f"wanted {wanted}, got {got!r}: {shown}")


def retry_after_s(head: Head | None) -> float | None:
    """Return the seconds that Retry-After names; a date is left to the error's detail."""
    value = "" if head is None else head.fields.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def _kind_of_status(status: int) -> str:
    if status == 429:
        return "http_429"
    return {2: "content_type", 3: "redirect", 4: "http_4xx"}.get(status // 100, "http_5xx")
