"""How busy the GPUs of this machine are, through NVML, as far as anybody can say."""

from __future__ import annotations

from collections.abc import Sequence

from probes import nvml


class Utilisation:
    """Reads the share of time in which a kernel ran, of all GPUs or of some by their index.

    A busy GPU need not do much: NVML counts the time, not the work. An idle one does nothing for certain.
    """

    def __init__(self, gpus: Sequence[int] | None = None) -> None:
        self.why_unread = ""  # why nothing can be read; empty: it can
        self._gpus: dict[str, nvml.Handle] = {}
        try:
            nvml.open_nvml()
            for index in range(nvml.count_gpus()) if gpus is None else gpus:
                handle = nvml.open_gpu(index)
                self._gpus[str(nvml.IDENTITY["uuid"](handle))] = handle
        except nvml.LibraryAbsent:
            self.why_unread = "this machine has no NVML"
        except (nvml.Unsupported, nvml.SensorError) as error:
            self.why_unread = f"NVML: {error}"
        if not self._gpus:
            self.why_unread = self.why_unread or "NVML lists no GPU"

    def read(self) -> dict[str, float]:
        """Return the percentage of each GPU by its UUID; one that does not say is not there."""
        found = {}
        for uuid, handle in self._gpus.items():
            try:
                found[uuid] = float(nvml.SAMPLED["util_pct"](handle))
            except (nvml.Unsupported, nvml.SensorError) as error:
                self.why_unread = f"NVML: {error}"
        return found
