"""Names for what JSON can hold, used wherever bytes enter or leave."""

from __future__ import annotations

from typing import Any

# ``Any`` stops at this line: whoever takes a JsonObject narrows what he reads from it.
JsonObject = dict[str, Any]
