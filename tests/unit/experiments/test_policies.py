"""What each policy is for, in examples that one can follow with a pencil; and their names."""

from __future__ import annotations

from typing import Any

from olvm.experiments import replay


def hosts_of(
    policy: str, vms: list[tuple[float, float | None, float, float]], hosts: str, **how: Any
) -> list[Any]:
    """Of (arrival, lifetime, vCPUs, GiB) the index of each one's host."""
    arrival, lifetime, vcpus, memory = zip(*vms, strict=True)
    trace = {"arrival_s": arrival, "lifetime_s": lifetime, "vcpus": vcpus, "memory_gib": memory}
    return list(replay(trace, hosts, policy=policy, queue="reject", **how).vms["host"])


def test_weighted_dot_product_heeds_the_scarcer_resource() -> None:
    """Panigrahy et al., 2011, with the weights of FFDAvgSum: what is asked for most counts most.

    The first three leave (6, 2), (2, 6) and (7, 0) of 8 vCPUs and 8 GiB free. For the last one, which asks for 1 and 1,
    the plain product is 6 + 2 on both hosts with room. Sums of demand are 10 and 17, so that weighted it is
    10*6 + 17*2 = 94 on the first and 10*2 + 17*6 = 122 on the second.
    """
    vms = [(0.0, None, 2, 6), (1.0, None, 6, 2), (2.0, None, 1, 8), (3.0, None, 1, 1)]
    assert hosts_of("dot_product", vms, "3x8c8g") == [0, 1, 2, 0]
    assert hosts_of("weighted_dot_product", vms, "3x8c8g") == [0, 1, 2, 1]
