"""The computers: each has a clock, a hypervisor, power, and the agent's silo that runs on it.

It decides what the loss of power takes along: the machines, the agent, and what the hypervisor was about to answer.
Disks and the fence device stay. A host's hypervisor is made when its agent first opens it, as on a real computer it
would be there already; from then on it lives apart from the agent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from actors.hypervisor_port import OpenHost
from actors.wire import ENGINE_SILO, decode_envelope, encode
from hypervisor_backends.protocol import DomainEvent, HypervisorBackend, Listener
from hypervisor_backends.simulated import SimulatedHypervisor
from hypervisor_backends.simulated_config import (
    SimulatedConfig,
    simulated_capabilities,
    simulated_config_from,
)
from hypervisor_backends.simulated_fabric import Fabric
from hypervisor_backends.snapshot_store import MemorySnapshots
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.limits import NS_PER_S
from sim.clock import HostClock, Timeline
from sim.network import Network, stream
from sim.processes import Processes
from sim.truth import Truth

KDUMP_PERIOD_S = 5.0
BOOT_S = 40.0  # from power to the agent's start


class QuietableHypervisor(SimulatedHypervisor):
    """A hypervisor whose events can be suppressed, as a libvirt whose event loop is stuck.

    It lives as long as its computer: the agent's `close` takes away nothing but the agent's ear.
    """

    timeline: Timeline
    situations: Counter[str]
    events_lost_until_ns = 0
    # What a sweep makes of one event: true, it is lost.
    event_fate: Callable[[str], bool] | None = None
    drawn: SimulatedConfig  # how it behaves when the world is as bad as its knobs say

    def misbehave(self, does: bool) -> None:
        """Whether calls and guests fail by chance from now on."""
        config = self.drawn if does else without_chances(self.drawn)
        self._config = self._host.config = config

    def set_listener(self, listener: Listener | None) -> None:
        if listener is None:
            super().set_listener(None)
            return

        def tell(event: DomainEvent) -> None:
            is_lost = self.timeline.time_ns < self.events_lost_until_ns
            if self.event_fate is not None and self.event_fate(self.name):
                is_lost = True
            if is_lost:
                self.situations["events_suppressed"] += 1
            else:
                listener(event)

        super().set_listener(tell)

    def close(self) -> None:
        super().set_listener(None)


def without_chances(config: SimulatedConfig) -> SimulatedConfig:
    chances = {name: 0.0 for name in SimulatedConfig.__struct_fields__ if name.endswith("_probability")}
    return msgspec.structs.replace(config, **chances)


class SimHost:
    """One computer."""

    __slots__ = ("clock", "hypervisor", "is_on", "name", "power_count", "rack", "silo")

    def __init__(self, name: str, silo: str, rack: str, clock: HostClock) -> None:
        self.name = name
        self.silo = silo
        self.rack = rack
        self.clock = clock
        self.hypervisor: QuietableHypervisor | None = None
        self.is_on = True
        self.power_count = 1  # grows whenever the power changes: a delayed switch knows that it came too late


class Hosts:
    """All computers, by name."""

    def __init__(
        self,
        timeline: Timeline,
        network: Network,
        processes: Processes,
        truth: Truth,
        config: Config,
        *,
        seed: int,
    ) -> None:
        self.by_name: dict[str, SimHost] = {}
        self.name_by_silo: dict[str, str] = {}
        self.settings: dict[str, object] = {}  # of the simulated hypervisors, beside the configuration's
        self._timeline = timeline
        self._network = network
        self._processes = processes
        self._truth = truth
        self._config = config
        self._seed = seed
        self.fabric: Fabric | None = None  # the plant's; without it nobody migrates
        self.snapshots = MemorySnapshots()  # on the storage that all hosts share
        self.old: set[str] = set()  # hosts of a release that cannot migrate
        self.misbehaves = True  # false while the world is built, and when it is healed

    def add(self, name: str, silo: str, rack: str, clock: HostClock) -> SimHost:
        host = self.by_name[name] = SimHost(name, silo, rack, clock)
        self.name_by_silo[silo] = name
        return host

    def snapshots_of(self, vm: str) -> list[str]:
        """Of the machine of this name, if it is on a host now; oldest first."""
        for host in self.by_name.values():
            for domain in [] if host.hypervisor is None else host.hypervisor.domains():
                if domain.name == vm:
                    return [snapshot.name for snapshot in self.snapshots.of(domain.vm_id)]
        return []

    def clock_of_silo(self, silo: str) -> HostClock | None:
        name = self.name_by_silo.get(silo)
        return None if name is None else self.by_name[name].clock

    def open_hypervisor(self, request: OpenHost) -> HypervisorBackend:
        """What the agent's port opens: the computer's own hypervisor, whose life is not the agent's.

        Raises `LibvirtAway` while its libvirtd is: the agent opens it later.
        """
        host = self.by_name[request.host]
        if host.hypervisor is None:
            settings = {**self._config.simulated, **self.settings, **request.settings}
            host.hypervisor = QuietableHypervisor(
                host.name,
                simulated_capabilities(cpus=request.cpus, memory_bytes=request.memory_bytes),
                host.clock,
                stream(self._seed, "hypervisor", host.name).getrandbits(48),
                simulated_config_from(settings),
                fabric=None if host.name in self.old else self.fabric,
                snapshots=self.snapshots,
            )
            host.hypervisor.drawn = simulated_config_from(settings)
            host.hypervisor.misbehave(self.misbehaves)
            host.hypervisor.timeline = self._timeline
            host.hypervisor.situations = self._processes.situations
            host.hypervisor.set_observer(self._truth)
        host.hypervisor.check_reachable()
        return host.hypervisor

    # ------------------------------------------------------------------ power

    def has_power(self, silo: str) -> bool:
        """Whether the computer that a silo runs on is on; silos that are no host's always have power."""
        name = self.name_by_silo.get(silo)
        return name is None or self.by_name[name].is_on

    def power_off(self, name: str) -> bool:
        """Lose the host: agent, machines and all. False: it was off."""
        host = self.by_name[name]
        # Who would have switched it on again comes too late: what a fence device switched off stays off.
        host.power_count += 1
        if not host.is_on:
            return False
        host.is_on = False
        self._processes.crash(host.silo, None)
        if host.hypervisor is not None:
            host.hypervisor.power_off()
        return True

    def power_on(self, name: str, boot_s: float = 0.0) -> None:
        """Boot, empty; the agent starts when the host is up. Without effect while it is on."""
        host = self.by_name[name]
        if host.is_on:
            return
        host.is_on = True
        host.power_count += 1
        count = host.power_count
        if host.hypervisor is not None:
            host.hypervisor.power_on()

        def start_agent() -> None:
            if host.power_count == count:
                self._processes.start(host.silo)

        self._timeline.after(boot_s, start_agent)

    def crash(self, name: str, restart_after_s: float | None = 60.0) -> bool:
        """Lose the power and get it back; None: it stays off until somebody switches it on."""
        if not self.by_name[name].is_on:
            return False
        self.power_off(name)
        if restart_after_s is not None:
            host = self.by_name[name]
            count = host.power_count
            self._timeline.after(
                restart_after_s, lambda: self.power_on(name) if host.power_count == count else None
            )
        return True

    def kdump(self, name: str, dump_s: float) -> bool:
        """The kernel crashes: nothing runs any more, and the dump's kernel says so each 5 s until it reboots."""
        host = self.by_name[name]
        if not host.is_on:
            return False
        self.power_off(name)
        count, end_ns = host.power_count, self._timeline.time_ns + int(dump_s * NS_PER_S)

        def say() -> None:
            if host.power_count != count:
                return  # somebody has switched it off or on
            if self._timeline.time_ns >= end_ns:
                self.power_on(name, boot_s=BOOT_S)
                return
            self._say_kdump(name)
            self._timeline.after(KDUMP_PERIOD_S, say)

        self._timeline.after(1.0, say)
        return True

    def _say_kdump(self, name: str) -> None:
        link = self._network.link(f"kdump/{name}", ENGINE_SILO, self._hear_kdump)
        self._network.send(link, encode((f"host/{name}", f"kdump/{name}", "", "", m.KdumpSeen(name))))

    def _hear_kdump(self, _: object, data: bytes) -> None:
        self._processes.post(ENGINE_SILO, decode_envelope(data))

    def reinstall(self, name: str, seconds: float) -> bool:
        """Lose the power and the agent's disk; installed anew after so long."""
        host = self.by_name[name]
        if not host.is_on:
            return False
        self.power_off(name)
        self._processes.wipe(host.silo, starts=False)
        count = host.power_count
        self._timeline.after(seconds, lambda: self.power_on(name) if host.power_count == count else None)
        return True

    # ------------------------------------------------------------------ hypervisors

    def misbehave(self, does: bool) -> None:
        """Whether hypervisors and guests fail by chance, as the configuration says."""
        self.misbehaves = does
        for host in self.by_name.values():
            if host.hypervisor is not None:
                host.hypervisor.misbehave(does)

    def kill_libvirtd(self, name: str, seconds: float) -> bool:
        """The host's libvirtd ends and is started again after so long; its machines and its agent go on."""
        host = self.by_name[name]
        hypervisor = host.hypervisor
        if hypervisor is None or not host.is_on:
            return False
        hypervisor.kill_libvirtd()
        self._timeline.after(seconds, hypervisor.start_libvirtd)
        return True

    def lose_events(self, name: str, seconds: float) -> None:
        """The hypervisor's events of the next `seconds` are never told."""
        hypervisor = self.by_name[name].hypervisor
        if hypervisor is not None:
            hypervisor.events_lost_until_ns = self._timeline.time_ns + int(seconds * NS_PER_S)

    def set_problem(self, name: str, problem: str, seconds: float) -> None:
        """The host is unfit for its cluster for so long."""
        hypervisor = self.by_name[name].hypervisor
        if hypervisor is not None:
            hypervisor.set_problems((problem,))
            self._timeline.after(seconds, lambda: hypervisor.set_problems(()))

    def break_guest_disks(self, name: str, seconds: float) -> None:
        """Whoever runs there gets I/O errors for so long."""
        hypervisor = self.by_name[name].hypervisor
        if hypervisor is not None:
            hypervisor.set_storage_broken(True)
            self._processes.situations["guest_disks_break"] += 1
            self._timeline.after(seconds, lambda: hypervisor.set_storage_broken(False))

    def heal(self) -> None:
        """Every fault of computers is over; who is off is switched on."""
        self.misbehave(False)
        for host in self.by_name.values():
            self.power_on(host.name)
            if host.hypervisor is not None:
                host.hypervisor.clear_faults()
                host.hypervisor.start_libvirtd()  # which lets go of what it held
                host.hypervisor.events_lost_until_ns = 0
                host.hypervisor.event_fate = None
                host.hypervisor.set_problems(())
                host.hypervisor.set_storage_broken(False)
