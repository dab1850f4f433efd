"""Simulated fleets: so many hosts of eight H100 behind rail switches, or racks of GB200."""

from __future__ import annotations

from burnin.fleet.host import Access, Expected, Fleet, Host, Place

HOSTS_PER_UNIT, RAILS, HOSTS_PER_RACK, HOSTS_PER_NVLINK_DOMAIN = 32, 8, 4, 18
MODEL, NVLINK_MODEL = "NVIDIA H100 80GB HBM3", "NVIDIA GB200"


def simulated_fleet(hosts: int, *, with_nvlink_domains: bool = False) -> Fleet:
    """Return a fleet in which 32 hosts share eight leaf switches, or 18 share an NVLink domain."""
    width = max(4, len(str(hosts)))
    place = _nvlink_place if with_nvlink_domains else _rail_place
    gpus, nics, model = (4, 4, NVLINK_MODEL) if with_nvlink_domains else (8, 8, MODEL)
    return Fleet(
        name=f"simulated {hosts}",
        hosts=tuple(
            Host(
                name=f"sim{index + 1:0{width}d}",
                access=Access(launcher="simulated"),
                place=place(index),
                expected=Expected(gpus=gpus, model=model, nics=nics),
                permission="listed",
            )
            for index in range(hosts)
        ),
    )


def _rail_place(index: int) -> Place:
    unit = index // HOSTS_PER_UNIT + 1
    return Place(
        rack=f"rack{index // HOSTS_PER_RACK + 1}",
        pdu=f"pdu{index // (2 * HOSTS_PER_RACK) + 1}",
        hall=f"hall{index // 1024 + 1}",
        rails=tuple(f"leaf{unit}-{rail}" for rail in range(RAILS)),
    )


def _nvlink_place(index: int) -> Place:
    rack = index // HOSTS_PER_NVLINK_DOMAIN + 1
    return Place(
        rack=f"rack{rack}",
        pdu=f"pdu{rack}",
        hall=f"hall{index // 1024 + 1}",
        switch=f"leaf{rack}",
        nvlink_domain=f"nvl{rack}",
    )
