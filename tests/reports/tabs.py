"""What a browser shows a moment after it was asked to: on a busy machine it is a long one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page


def once(page: Page, expression: str, is_so: Callable[[Any], bool]) -> Any:
    """Return an expression once it is so, and else the last of it: charts are drawn a moment later."""
    deadline = time.monotonic() + 20
    while not is_so(page.evaluate(expression)) and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    return page.evaluate(expression)
