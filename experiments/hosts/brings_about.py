"""Which failures a fault stands for, where that depends on its arguments: unit, XID, field of DCGM."""

from __future__ import annotations

from typing import Final

from probes.json_types import JsonObject

# By the unit's name: a host without these is gone for its cluster; without that one NVLink is not set up.
_UNITS: Final = {"kubelet": "host-down", "slurmd": "host-down", "nvidia-fabricmanager": "nvlink"}
OF_SERVICES: Final = ("host-down", "nvlink", "software-crash")
# By the XID, after NVIDIA's catalogue of them (r580).
_XIDS: Final = {
    **dict.fromkeys((13, 31, 43, 45), "cuda-error"),
    **dict.fromkeys((48, 63, 64, 94, 95, 171), "gpu-memory"),
    172: "gpu-sram",
    74: "nvlink",
    79: "gpu-lost",
    **dict.fromkeys((119, 120), "gpu-system-processor"),
}
OF_XIDS: Final = tuple(sorted(set(_XIDS.values())))
_XID_FIELD: Final = 230
# By the number in dcgm_fields.h: double-bit errors, rows that were remapped or could not be; violations and
# temperature; the InfoROM.
_FIELDS: Final = {
    **dict.fromkeys((311, 313, 393, 394, 395, 396), "gpu-memory"),
    **dict.fromkeys((140, 150, 241), "gpu-thermal"),
    84: "gpu-lost",
}
OF_FIELDS: Final = tuple(sorted({*_FIELDS.values(), *OF_XIDS}))


def _told(captured: JsonObject) -> JsonObject:
    """Return the arguments; empty where somebody asks what the fault may stand for at all."""
    return dict(captured.get("arguments") or {})


def by_unit(captured: JsonObject) -> tuple[str, ...]:
    """Return what stopping a unit brings about."""
    unit = str(_told(captured).get("unit", "")).removesuffix(".service")
    return (_UNITS.get(unit, "software-crash"),)


def by_xid(captured: JsonObject) -> tuple[str, ...]:
    """Return what an XID says; nothing for one that says none of our categories."""
    found = _XIDS.get(int(_told(captured).get("xid", 0)))
    return (found,) if found else ()


def by_field(captured: JsonObject) -> tuple[str, ...]:
    """Return what a value of DCGM says."""
    field, value = (int(_told(captured).get(key, 0)) for key in ("field", "value"))
    found = _XIDS.get(value) if field == _XID_FIELD else _FIELDS.get(field)
    return (found,) if found else ()
