"""Power caps: who may load at once, who never, and steps that are out of phase."""

from __future__ import annotations

from burnin.fleet.host import Expected, Fleet, Host, Place, PowerCap
from burnin.fleet.power import may_start, phase_offsets_s, watts_of, why_never

H100 = Expected(gpus=8, model="NVIDIA H100 80GB HBM3")


def _host(name: str, rack: str = "r1", expected: Expected = H100) -> Host:
    return Host(name=name, place=Place(rack=rack, hall="h"), expected=expected)


def _fleet(*hosts: Host, rack_w: float = 12_000, hall_w: float = 20_000) -> Fleet:
    caps = (PowerCap(kind="rack", name="r1", watts=rack_w), PowerCap(kind="hall", name="h", watts=hall_w))
    return Fleet(name="f", hosts=hosts, power_caps=caps)


def test_a_host_draws_what_the_model_of_its_gpus_draws() -> None:
    assert watts_of(_host("a")) == 8 * 700
    assert watts_of(_host("a", expected=Expected(gpus=0))) == 0
    assert watts_of(_host("a", expected=Expected(gpus=8))) is None
    assert watts_of(_host("a", expected=Expected(gpus=8, model="Abacus"))) is None


def test_no_more_hosts_load_at_once_than_their_rack_and_hall_bear() -> None:
    a, b, c, d = _host("a"), _host("b"), _host("c"), _host("d", rack="r2")
    fleet = _fleet(a, b, c, d)

    assert may_start(b, [a], fleet)
    assert not may_start(c, [a, b], fleet)
    assert may_start(d, [a, b], fleet)
    assert not may_start(_host("e", rack="r2"), [a, b, d], fleet)


def test_a_host_that_alone_is_too_much_or_draws_nobody_knows_what_never_runs() -> None:
    unknown = _host("u", expected=Expected())

    assert "draws up to 5600 W, and rack r1 bears 5000 W" in str(why_never(_host("a"), _fleet(rack_w=5000)))
    assert "state gpus and model" in str(why_never(unknown, _fleet()))
    assert why_never(_host("a"), _fleet()) is None
    assert why_never(Host(name="free"), _fleet()) is None


def test_the_steps_of_hosts_are_spread_evenly_over_the_period() -> None:
    offsets = phase_offsets_s(["a", "b", "c", "d"], period_s=2.0, order={"a": 3, "b": 0, "c": 2, "d": 1})

    assert offsets == {"b": 0.0, "d": 0.5, "c": 1.0, "a": 1.5}
