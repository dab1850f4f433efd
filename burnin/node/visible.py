"""CUDA_VISIBLE_DEVICES, as whoever started us has set it: what they keep us away from, we do not touch."""

from __future__ import annotations

from collections.abc import Sequence

from probes.json_types import JsonObject


def split_visible(
    gpus: Sequence[JsonObject], visible: str | None, *, is_pci_order: bool
) -> tuple[list[JsonObject], list[JsonObject], str]:
    """Return the GPUs that are visible, those that are hidden, and why it cannot be told; empty: it can.

    Numbers are CUDA's, which follow the bus only if asked to, or where all GPUs are alike; NVML numbers them
    otherwise. As CUDA does, an entry that names nothing ends the list.
    """
    if visible is None:
        return list(gpus), [], ""
    on_bus = sorted(gpus, key=lambda gpu: str(gpu.get("pci_bus_id")))
    models = {gpu.get("name") for gpu in gpus}
    seen: list[JsonObject] = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.startswith("MIG"):
            return [], list(gpus), f"CUDA_VISIBLE_DEVICES={visible} names a slice of a GPU"
        if entry.isdigit() and len(models) > 1 and not is_pci_order:
            problem = (
                f"CUDA_VISIBLE_DEVICES={visible} names GPUs of different models by number; name their UUIDs"
            )
            return [], list(gpus), problem
        found = _find(on_bus, entry)
        if found is None:
            break
        seen.append(found)
    hidden = [gpu for gpu in gpus if gpu not in seen]
    return seen, hidden, "" if seen else f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"


def _find(on_bus: Sequence[JsonObject], entry: str) -> JsonObject | None:
    if entry.isdigit():
        return on_bus[int(entry)] if int(entry) < len(on_bus) else None
    return next((gpu for gpu in on_bus if entry and str(gpu["uuid"]).startswith(entry)), None)
