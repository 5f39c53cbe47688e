"""Where the simulated hypervisor is as unkind as libvirt and QEMU: the rows of docs/simulator-and-libvirt.md."""

from __future__ import annotations

import pytest

from hypervisor_backends.protocol import HypervisorRequest, RebootDomain, ShutdownDomain
from hypervisor_backends.simulated_config import SimulatedConfig
from tests.unit.hypervisor_backends.bench import simulated_bench, start_of

SLOW_BOOT = SimulatedConfig(boot_time_s_min=20, boot_time_s_max=20, launch_time_s_min=1, launch_time_s_max=1)

# ---------------------------------------------------------------- the power button


@pytest.mark.parametrize("button", [ShutdownDomain(vm_id="v1"), RebootDomain(vm_id="v1")])
def test_guest_that_still_boots_loses_the_power_button(button: HypervisorRequest) -> None:
    bench, _ = simulated_bench(SLOW_BOOT)
    bench.succeed(start_of(), seconds=10)
    bench.succeed(button, seconds=0)
    assert bench.status() == "powering_up"
    bench.scheduler.advance(60)

    assert bench.kinds() == ["started", "guest_up"]


def test_guest_that_boots_again_loses_it_too_and_obeys_when_it_is_up() -> None:
    bench, _ = simulated_bench(SLOW_BOOT)
    bench.start()
    bench.succeed(RebootDomain(vm_id="v1"), seconds=11)
    assert bench.kinds()[-1] == "rebooted"
    bench.succeed(ShutdownDomain(vm_id="v1"), seconds=60)
    assert bench.status() == "up"
    bench.succeed(ShutdownDomain(vm_id="v1"), seconds=60)

    assert bench.kinds()[-2:] == ["guest_up", "shut_down"]


def test_guest_may_be_told_to_obey_while_it_boots() -> None:
    obedient = SimulatedConfig(boot_time_s_min=20, boot_time_s_max=20, booting_guest_ignores_button=False)
    bench, _ = simulated_bench(obedient)
    bench.succeed(start_of(), seconds=10)
    bench.succeed(ShutdownDomain(vm_id="v1"), seconds=10)

    assert bench.kinds() == ["started", "shut_down"]
