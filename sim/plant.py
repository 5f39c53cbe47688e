"""What the computers share: the storage of leases, the fence devices, the wire of migrations, and somebody with hands.

All of it is reached over the simulated network, so that a host may see one and not the other. A call that an agent's
process has begun is answered to that process only: not while it stands still, and never to its next life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from actors.fence_port import FencePort
from actors.hypervisor_port import HypervisorPort
from actors.lease_port import LeasePort
from actors.runtime_port import RuntimePort, restart_order
from actors.silo import Silo
from actors.wire import ENGINE_SILO
from hypervisor_backends.fencing import FenceAction, FenceAnswer, FenceDone
from hypervisor_backends.leases import LeaseDone, LeaseRequest, LeaseResult
from hypervisor_backends.memory_fencing import FenceFault, FenceFaultKind, MemoryFenceDevices
from hypervisor_backends.memory_leases import NOTHING_HAPPENS, Fate, MemoryLeases
from hypervisor_backends.simulated_fabric import Receive
from olvm.model.limits import NS_PER_S
from sim.clock import HostClock, Timeline
from sim.hosts import Hosts
from sim.network import Link, Network, stream
from sim.processes import Process, Processes

STORAGE = "storage"
STORAGE_HOP_S = 0.002
FENCE_HOP_S = 0.2
FENCE_SILENCE_S = 20.0
BOOT_S = 20.0
LOOK_AGAIN_NS = NS_PER_S


class ProcessScheduler:
    """The host's monotonic clock, as a process has it: nothing is called while it stands still, nor after its end."""

    def __init__(self, process: Process, clock: HostClock, timeline: Timeline) -> None:
        self._process = process
        self._clock = clock
        self._timeline = timeline

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Callable[[], None]:
        return self._clock.call_at(due_ns, lambda: self.when_it_runs(fn))

    def when_it_runs(self, fn: Callable[[], None]) -> None:
        process, now_ns = self._process, self._timeline.time_ns
        if not process.is_alive:
            return
        if process.paused_until_ns > now_ns:
            again_ns = min(process.paused_until_ns, now_ns + LOOK_AGAIN_NS)
            self._timeline.put(again_ns, lambda held, _: self.when_it_runs(held), fn)
            return
        fn()


class _Store:
    """One process's way to the storage of leases."""

    def __init__(self, leases: MemoryLeases, host: str, scheduler: ProcessScheduler) -> None:
        self._leases = leases
        self._host = host
        self._scheduler = scheduler

    def submit(self, request: LeaseRequest, done: LeaseDone) -> None:
        def answered(result: LeaseResult) -> None:
            self._scheduler.when_it_runs(lambda: done(result))

        self._leases.begin(self._host, request, answered)


class _Devices:
    """One process's way to the fence devices of all hosts."""

    def __init__(self, plant: Plant, process: Process, scheduler: ProcessScheduler) -> None:
        self._plant = plant
        self._process = process
        self._scheduler = scheduler

    def submit(
        self, device: Mapping[str, str | int | float | bool], host: str, action: FenceAction, done: FenceDone
    ) -> None:
        timeline, network = self._plant.timeline, self._plant.network

        def answered(answer: FenceAnswer) -> None:
            if answer.ok and action == "off":
                self._plant.look_for_a_lie(host)
            self._scheduler.when_it_runs(lambda: done(answer))

        if network.is_cut(self._process.name, f"fence/{host}"):
            words = f"the fence device of host {host} cannot be reached"
            timeline.after(FENCE_SILENCE_S, lambda: answered(FenceAnswer(ok=False, message=words)))
            return
        timeline.after(FENCE_HOP_S, lambda: self._plant.fence.submit(device, host, action, answered))


class NetworkFabric:
    """The wire of migrations: a link of the network from host to host."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._receive_by_host: dict[str, Receive] = {}

    def attach(self, host: str, receive: Receive) -> None:
        self._receive_by_host[host] = receive

    def detach(self, host: str) -> None:
        self._receive_by_host.pop(host, None)

    def send(self, source_host: str, to_host: str, data: bytes) -> None:
        self._network.send(self._network.link(source_host, to_host, self._arrive), data)

    def _arrive(self, link: Link, data: bytes) -> None:
        receive = self._receive_by_host.get(link.to)
        if receive is not None:
            receive(link.source, data)


class Plant:
    """See the module."""

    def __init__(self, timeline: Timeline, network: Network, processes: Processes, hosts: Hosts) -> None:
        self.timeline = timeline
        self.network = network
        self._processes = processes
        self._hosts = hosts
        self.leases = MemoryLeases(timeline, self._befall)
        self.fence = MemoryFenceDevices(self._switch, self._is_on, timeline)
        self.fabric = NetworkFabric(network)
        self.switched_off_count = 0
        self._drawn = stream(network.seed, "restarts of agents")
        self._fence_faults: list[FenceFault] = []
        self._fates: list[tuple[str, Fate, int]] = []  # of calls until then; an empty host means all

    # ------------------------------------------------------------------ ports

    def plug(self, process: Process) -> None:
        """The ports of a host's silo that lead out of the host."""
        silo = process.silo
        name = self._hosts.name_by_silo[process.name]
        scheduler = ProcessScheduler(process, self._hosts.by_name[name].clock, self.timeline)
        hypervisors = cast(HypervisorPort, silo.ports["hypervisor"])
        silo.ports["leases"] = LeasePort(
            silo,
            hypervisors,
            lambda host: _Store(self.leases, host, scheduler),
            lambda _: scheduler,
        )
        silo.ports["fence"] = FencePort(silo, _Devices(self, process, scheduler))

    def plug_engine(self, process: Process) -> None:
        silo = process.silo
        silo.ports["runtime"] = RuntimePort(silo, lambda host, of: self._restart_agent(silo, host, of))

    def _restart_agent(self, engine: Silo, host: str, silo: str) -> bool:
        """As the runtime does: the agent alone is told to begin again; or as somebody with a shell on the host: its
        process is ended and started anew. Its machines go on either way."""
        if self._drawn.randrange(2):
            engine.post(restart_order(host, silo))
            return True
        known = self._hosts.by_name.get(host)
        if known is None or not known.is_on or self.network.is_cut(ENGINE_SILO, silo):
            return False
        if not self._processes.crash(silo, 1.0):
            self._processes.start(silo)
        return True

    # ------------------------------------------------------------------ faults

    def bend(self, host: str, fate: Fate, seconds: float) -> None:
        """What befalls the host's calls to the lease storage for so long; an empty host means every host's."""
        self._fates.append((host, fate, self.timeline.time_ns + int(seconds * NS_PER_S)))

    def _befall(self, host: str, request: LeaseRequest) -> Fate:
        del request
        silo = self._hosts.by_name[host].silo
        if self.network.is_cut(silo, STORAGE):
            return NOTHING_HAPPENS
        now_ns = self.timeline.time_ns
        for whom, fate, until_ns in reversed(self._fates):
            if until_ns > now_ns and whom in ("", host):
                return fate
        answered = None if self.network.is_cut(STORAGE, silo) else STORAGE_HOP_S
        return Fate(effect_after_s=STORAGE_HOP_S, answer_after_s=answered)

    def bend_fence(self, host: str, kind: FenceFaultKind, seconds: float) -> None:
        """The host's fence device does this for so long."""
        fault = FenceFault(kind=kind, host=host, action="off" if kind == "lies" else None, count=None)
        self.fence.plant(fault)
        self._fence_faults.append(fault)
        self.timeline.after(seconds, lambda: self._mend_fence(fault))

    def _mend_fence(self, fault: FenceFault) -> None:
        """One fault is over; the others stand."""
        self._fence_faults = [other for other in self._fence_faults if other is not fault]
        self.fence.clear()
        for other in self._fence_faults:
            self.fence.plant(other)

    def heal(self) -> None:
        self._fates.clear()
        self._fence_faults.clear()
        self.fence.clear()

    # ------------------------------------------------------------------ power

    def look_for_a_lie(self, host: str) -> None:
        """A device says that it has switched the host off."""
        if self._is_on(host):
            self._processes.situations["fence_device_lied"] += 1

    def _is_on(self, host: str) -> bool:
        return self._hosts.by_name[host].is_on

    def _switch(self, host: str, on: bool) -> None:
        if on:
            self._hosts.power_on(host, boot_s=BOOT_S)
        elif self._hosts.power_off(host):
            self.switched_off_count += 1
