"""The simulated world: clock, network, processes, computers and clients put together, and the faults that befall them.

What runs in it is the product itself: the silos, actors, ports and journals of `actors` and `olvm`. This module
decides nothing about them; it decides when things happen and what breaks. Nothing here reads an actor's belief.

Same arguments, same calls at the same times: same run, to the last byte (`digest`).
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from actors.assembly import kind_of, record_types
from actors.hypervisor_port import HypervisorPort, at_once
from actors.silo import Silo
from actors.wire import ENGINE_SILO, TELEMETRY_SILO
from hypervisor_backends.memory_fencing import FenceFaultKind
from hypervisor_backends.memory_leases import Fate
from olvm.journal.memory_journal import MemoryJournal
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.limits import NS_PER_S
from sim.client import Call, Clients, Ended
from sim.clock import START_NS, HostClock, Timeline
from sim.digest import Digest
from sim.hosts import Hosts, SimHost
from sim.network import Direction, Network, Noise, stream
from sim.plan import GIB, Knobs, Shape, room_to_plug
from sim.plant import Plant
from sim.processes import JOURNAL_ROWS_MAX, CrashPoint, Process, Processes
from sim.sightings import Sightings
from sim.truth import Truth

# History is not simulated unless asked for: nobody samples within the life of a run.
NO_SAMPLES_S = 1e9
ASKED_AT_ONCE = 5_000
QUIET_THRESHOLD = (200_000, 20, 1_000)


class Counts(msgspec.Struct, kw_only=True):
    """What a run did; the figures that are published."""

    simulated_s: float
    turns: int  # delivered messages: envelopes that an actor handled
    commits: int
    frames: int
    events: int  # entries of the timeline
    faults: int


class World:
    """Made, then `build`, then `run`; faults at any time in between. See the module."""

    def __init__(
        self,
        shape: Shape | None = None,
        knobs: Knobs | None = None,
        *,
        seed: int = 1,
        config: Config | None = None,
        keeps_trail: bool = False,
    ) -> None:
        self.shape = shape or Shape()
        self.knobs = knobs or Knobs()
        self.seed = seed
        self.config = config or Config()
        if not self.shape.telemetry:
            self.config = msgspec.structs.replace(self.config, sample_period_s=NO_SAMPLES_S)
        self.timeline = Timeline()
        self.digest = Digest(keeps_trail=keeps_trail)
        self.network = Network(self.timeline, seed, self.digest)
        self.processes = Processes(self.timeline, self.network, self.config, self.digest, seed)
        self.truth = Truth()
        self.hosts = Hosts(self.timeline, self.network, self.processes, self.truth, self.config, seed=seed)
        self.plant = Plant(self.timeline, self.network, self.processes, self.hosts)
        self.hosts.fabric = self.plant.fabric
        self.clients = Clients(self.timeline, self.network, self.processes)
        self.fault_counts: Counter[str] = Counter()
        self._until_ns: dict[tuple[str, str], int] = {}  # when the last fault of a kind on a target is over
        self.situations = self.processes.situations
        # Hears what is said of the run for a person; see `sim.story`.
        self.tell: Callable[[str], None] | None = None
        self._engine_clock = self._new_clock(ENGINE_SILO)
        # Compaction writes the whole state: a large world does it after more turns.
        self.processes.journal_rows_max = max(JOURNAL_ROWS_MAX, 8 * (self.shape.vms + self.shape.hosts))
        self.processes.plug = self._plug
        self.processes.committed.append(self.clients.committed)
        self.truth.watch(Sightings(self.hosts, self.processes, self.situations, self.timeline.now_ns))
        self.processes.clock_of = self._clock_of
        self.processes.has_power = self.hosts.has_power
        self.processes.start(ENGINE_SILO)
        if self.shape.telemetry:
            self.processes.start(TELEMETRY_SILO)

    # ------------------------------------------------------------------ putting together

    def _new_clock(self, name: str) -> HostClock:
        most = self.knobs.clock_drift_ppm_max
        drawn = stream(self.seed, "drift", name)
        return HostClock(self.timeline, drift_ppm=drawn.randint(-most, most) if most else 0)

    def _clock_of(self, silo: str) -> HostClock:
        return self.hosts.clock_of_silo(silo) or self._engine_clock

    def _plug(self, process: Process) -> None:
        """Give a new life of a silo its ports."""
        silo = process.silo
        kind = kind_of(process.name)
        if kind == "host":
            hypervisors = HypervisorPort(silo, at_once(self.hosts.open_hypervisor))
            silo.ports["hypervisor"] = hypervisors
            self.plant.plug(process)
        elif kind == "engine":
            silo.observer = self.clients
            self.plant.plug_engine(process)

    def watch(self, observer: Any) -> None:
        """Tell `observer` of what happens, by those of `sim.oracles.oracle.HOOKS` that it has, from now on."""
        self.truth.watch(observer)
        for name, listeners in (
            ("committed", self.processes.committed),
            ("recovered", self.processes.recovered),
            ("forget", self.processes.wiped),
            ("asked", self.clients.asked),
            ("answered", self.clients.answered),
        ):
            listener = getattr(observer, name, None)
            if listener is not None:
                listeners.append(listener)

    def say(self, text: str) -> None:
        if self.tell is not None:
            self.tell(text)

    def add_host(self, number: int) -> SimHost:
        """The computer H<number> and its agent's silo; the engine knows nothing of it yet."""
        name = f"H{number}"
        if self.shape.hosts - self.knobs.old_agents < number <= self.shape.hosts:
            self.hosts.old.add(name)
        rack = f"R{number % max(1, self.shape.racks)}"
        host = self.hosts.add(name, f"host-{number}", rack, self._new_clock(name))
        self.processes.start(host.silo)
        return host

    def host_command(self, number: int) -> m.AddHost:
        """How host `number` is registered. Who has power management is drawn by host."""
        shape = self.shape
        drawn = stream(self.seed, "host", number)
        fenced = drawn.randrange(100) < shape.fence_percent
        kdump = drawn.randrange(100) < shape.kdump_percent
        devices: list[m.Settings] = [{"type": "simulated"}] if fenced else []
        return m.AddHost(
            f"H{number}",
            "prod",
            shape.host_cpus,
            shape.host_memory_gib * GIB,
            silo=f"host-{number}",
            fence_devices=devices,
            kdump=kdump and fenced,
        )

    def vm_command(self, number: int) -> m.CreateVm:
        """How machine v<number> is made. Who is highly available, and leased, is drawn by machine."""
        shape = self.shape
        drawn = stream(self.seed, "vm", number)
        is_ha = drawn.randrange(100) < shape.ha_percent
        is_leased = drawn.randrange(100) < shape.lease_percent
        return m.CreateVm(
            f"v{number}",
            "prod",
            shape.vm_vcpus,
            shape.vm_memory_gib * GIB,
            hardware=room_to_plug(shape),
            high_availability=is_ha,
            lease=is_ha and is_leased,
            priority=drawn.choice((1, 50, 50, 100)),
            silo=f"vms-{number % shape.vm_silos + 1}" if shape.vm_silos else "",
        )

    def build(self) -> None:
        """The data center of the shape, by its clients' commands; nothing fails before this is over."""
        with quiet_collector():
            self._build()

    def _build(self) -> None:
        shape = self.shape
        self.hosts.misbehave(False)
        for number in range(1, shape.vm_silos + 1):
            self.processes.start(f"vms-{number}")
        self.finish_all(
            [m.CreateCluster("prod", policy=shape.policy, migration_policy=shape.migration_policy)]
        )
        for number in range(1, shape.hosts + 1):
            self.add_host(number)
        self.finish_all([self.host_command(number) for number in range(1, shape.hosts + 1)])
        self.finish_all([self.vm_command(number) for number in range(1, shape.vms + 1)])
        running = shape.vms * shape.running_percent // 100
        starts = [m.VmCommand(f"v{number}", "start") for number in range(1, running + 1)]
        # Hypervisors may be drawn to fail now and then, from their first start on.
        self.finish_all(starts, may_fail=bool(self.knobs.call_fault_per_10k))
        self.worsen()

    def worsen(self) -> None:
        """From now on the network, the disks, the clocks and the hypervisors are as bad as the knobs say."""
        knobs, processes = self.knobs, self.processes
        self.network.tune(knobs)
        processes.commit_ms_max = knobs.commit_ms_max
        processes.clock_step_s_max = knobs.clock_step_s_max
        processes.torn_tail_percent = knobs.torn_tail_percent
        self.hosts.misbehave(True)

    def heal(self) -> None:
        """Faults stop: links pass, disks write, who is dead is started, who stands still goes on."""
        processes = self.processes
        self.network.heal()
        processes.commit_ms_max = processes.clock_step_s_max = processes.torn_tail_percent = 0
        processes.slow_disk_ns.clear()
        processes.fate = self.network.fate = None
        for disk in processes.disks.values():
            disk.capacity_bytes = None
            disk.write_error_count = disk.sync_error_count = 0
        for zombie in list(processes.zombies):
            processes.end(zombie)  # one that never commits would go on for ever
        for name in list(processes.by_name):
            process = processes.by_name[name]
            process.dies_at = None
            processes.resume(name)
        self.plant.heal()
        self.hosts.heal()
        for name in sorted(processes.disks):
            silo_host = self.hosts.name_by_silo.get(name)
            if silo_host is None or self.hosts.by_name[silo_host].is_on:
                processes.start(name)

    # ------------------------------------------------------------------ time

    @property
    def now_ns(self) -> int:
        """True time, which nothing in the system knows."""
        return self.timeline.time_ns

    @property
    def now_s(self) -> float:
        """True seconds since the world began."""
        return (self.timeline.time_ns - START_NS) / NS_PER_S

    def run(self, seconds: float) -> None:
        end_ns = self.timeline.time_ns + int(seconds * NS_PER_S)
        with quiet_collector():
            self.timeline.run_to(end_ns)
        self._count_situations()

    def run_until(self, condition: Callable[[], bool], *, within_s: float = 120.0) -> bool:
        """Whether the condition came true in time; it is asked after every event."""
        end_ns = self.timeline.time_ns + int(within_s * NS_PER_S)
        step = self.timeline.step
        with quiet_collector():
            while not condition():
                if not step(end_ns):
                    return condition()
        self._count_situations()
        return True

    def all_situations(self) -> Counter[str]:
        """How often each situation of `sim.situations` was met."""
        self._count_situations()
        counts = Counter(self.situations)
        counts["fence_device_switched_off"] += self.plant.switched_off_count
        counts["late_duplicate"] += self.network.counts["late_duplicate"]
        return +counts

    def each_s(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` at every multiple of so many seconds of true time, for as long as the world runs."""
        period_ns = int(seconds * NS_PER_S)

        def tick(_: Any, __: Any) -> None:
            action()
            self.timeline.put(self.timeline.time_ns + period_ns, tick)

        self.timeline.put(self.timeline.time_ns + period_ns, tick)

    def after_each_batch(self, observe: Callable[[Silo], None]) -> None:
        """Call `observe` whenever a silo has run, committed and released a batch."""
        self.processes.after_batch.append(observe)

    def _count_situations(self) -> None:
        self.situations.update(self.processes.marks)
        self.processes.marks.clear()

    def counts(self) -> Counts:
        return Counts(
            simulated_s=self.now_s,
            turns=self.processes.turn_count(),
            commits=self.processes.commit_count(),
            frames=self.network.frame_count,
            events=self.timeline.event_count,
            faults=self.fault_counts.total(),
        )

    # ------------------------------------------------------------------ clients

    def ask(self, command: m.Command, request_id: str = "") -> Call:
        return self.clients.ask(command, request_id)

    def finish_all(
        self, commands: Iterable[m.Command], *, within_s: float = 3_600.0, may_fail: bool = False
    ) -> list[Ended]:
        """Submit, in portions, and wait for every end. Raises AssertionError when one fails, unless it may."""
        ended: list[Ended] = []
        for portion in _portions(list(commands), ASKED_AT_ONCE):
            calls = [self.ask(command) for command in portion]
            end_ns = self.timeline.time_ns + int(within_s * NS_PER_S)
            waiting = list(
                reversed(calls)
            )  # the last is looked at; who ended before it costs one look in all
            while self.timeline.time_ns < end_ns:
                while waiting and self.end_of(waiting[-1]) is not None:
                    waiting.pop()
                if not waiting:
                    break
                self.run(0.1)
            for call in calls:
                end = self.end_of(call)
                assert end is not None, f"{call.message} did not end within {within_s:g} s: {call.reply}"
                assert may_fail or end.status == "succeeded", f"{call.message} failed: {end.reason}"
                ended.append(end)
        return ended

    def end_of(self, call: Call) -> Ended | None:
        """How the operation of a call ended, once the engine has committed it; None: not yet, or not accepted."""
        reply = call.reply
        assert not isinstance(reply, m.Refusal), f"{call.message} was refused: {reply.reason}"
        return self.clients.ended.get(reply.id) if isinstance(reply, m.OperationView) else None

    # ------------------------------------------------------------------ what is on the disks

    def rows(self, kind: type[Any], silo: str = ENGINE_SILO) -> dict[str, Any]:
        """The durable records of a silo, read from its disk by a reader of its own."""
        disk = self.processes.disk(silo)
        if not len(disk):
            return {}
        reader = MemoryJournal(record_types(kind_of(silo)), journal_id="reader", disk=disk)
        return dict(reader.records(kind))

    # ------------------------------------------------------------------ faults

    def note_fault(self, name: str) -> None:
        self.fault_counts[name] += 1

    def _noted(self, name: str, did: bool) -> bool:
        """Counts the fault if it did something; one that strikes nobody is none."""
        if did:
            self.note_fault(name)
        return did

    def _while(self, what: str, target: str, seconds: float, mend: Callable[[], None]) -> None:
        """Mend when the last of the faults of this kind on this target has had its time."""
        key = (what, target)
        self._until_ns[key] = max(self._until_ns.get(key, 0), self.timeline.time_ns + int(seconds * NS_PER_S))

        def over() -> None:
            if self.timeline.time_ns >= self._until_ns[key]:
                mend()

        self.timeline.after(seconds, over)

    def crash_silo(self, name: str, restart_after_s: float | None = 1.0) -> bool:
        return self._noted("crash_silo", self.processes.crash(name, restart_after_s))

    def die_soon(self, name: str, point: CrashPoint = "after_commit", after_commits: int = 0) -> None:
        """The process dies in the middle of one of its next commits, and is started again."""
        self._noted("die_soon", self.processes.is_up(name))
        self.processes.die_soon(name, point, after_commits)

    def pause_silo(self, name: str, seconds: float | None) -> None:
        """The process stands still; its hypervisor, its leases' watchdog and the network go on."""
        self._noted("pause_silo", self.processes.is_up(name))
        self.processes.pause(name, seconds)

    def zombie_engine(self) -> None:
        """A second engine starts from the disk while the first goes on until its next commit."""
        self._noted("zombie_engine", self.processes.haunt(ENGINE_SILO) is not None)

    def wipe_silo(self, name: str) -> None:
        self.note_fault("wipe_silo")
        self.processes.wipe(name)

    def crash_host(self, name: str, restart_after_s: float | None = 60.0) -> bool:
        return self._noted("crash_host", self.hosts.crash(name, restart_after_s))

    def kdump_host(self, name: str, dump_s: float) -> bool:
        return self._noted("kdump_host", self.hosts.kdump(name, dump_s))

    def kill_libvirtd(self, host: str, seconds: float) -> None:
        self._noted("kill_libvirtd", host in self.hosts.by_name and self.hosts.kill_libvirtd(host, seconds))

    def lose_events(self, host: str, seconds: float) -> None:
        self.note_fault("lose_events")
        self.hosts.lose_events(host, seconds)

    def reinstall_host(self, name: str, seconds: float) -> bool:
        """The host loses its power and its agent's disk, and comes back empty after so long."""
        did = name in self.hosts.by_name and self.hosts.reinstall(name, seconds)
        return self._noted("reinstall_host", did)

    def host_problem(self, host: str, problem: str, seconds: float) -> None:
        """`problem` is a name of `olvm.model.host_problems`."""
        if host in self.hosts.by_name:
            self.note_fault("host_problem")
            self.hosts.set_problem(host, problem, seconds)

    def break_guest_disks(self, host: str, seconds: float) -> None:
        if host in self.hosts.by_name:
            self.note_fault("break_guest_disks")
            self.hosts.break_guest_disks(host, seconds)

    def storage_fault(self, silo: str, fate: Fate, seconds: float) -> None:
        """What befalls the lease calls of a host's silo; empty: of all."""
        self.note_fault("storage_fault")
        self.plant.bend(self.hosts.name_by_silo.get(silo, ""), fate, seconds)

    def fence_fault(self, host: str, kind: FenceFaultKind, seconds: float) -> None:
        """How the fence device of `host` misbehaves."""
        if host in self.hosts.by_name:
            self.note_fault("fence_fault")
            self.plant.bend_fence(host, kind, seconds)

    def cut(self, a: str, b: str, direction: Direction = "both", seconds: float | None = None) -> None:
        """Nodes are silos, `storage`, `fence/<host>`, `client`, and hosts for the paths of migrations."""
        self.note_fault("cut")
        self.network.cut(a, b, direction, seconds)

    def isolate(self, host: str, seconds: float | None = None, *, keeps_storage: bool = True) -> None:
        """The host reaches no silo, no fence device and no other host, and nobody reaches its agent."""
        self.note_fault("isolate")
        silo = self.hosts.by_name[host].silo
        others = [name for name in self.processes.disks if name != silo]
        others += [f"fence/{name}" for name in self.hosts.by_name]
        for other in others if keeps_storage else [*others, "storage"]:
            self.network.cut(silo, other, "both", seconds)
        for other in self.hosts.by_name:
            if other != host:
                self.network.cut(host, other, "both", seconds)

    def clog(self, a: str, b: str, seconds: float, direction: Direction = "both") -> None:
        self.note_fault("clog")
        self.network.clog(a, b, seconds, direction)

    def noise(self, a: str, b: str, noise: Noise, seconds: float, direction: Direction = "both") -> None:
        self.note_fault("noise")
        self.network.noise(a, b, noise, seconds, direction)

    def rewind(self, source: str, to: str) -> None:
        """The newest frames of a link arrive a second time."""
        self._noted("rewind", (source, to) in self.network.links)
        self.network.rewind(source, to)

    def break_disk(self, silo: str, seconds: float, *, is_full: bool = False) -> None:
        """The silo's disk takes no writes for so long."""
        if not self._noted("break_disk", silo in self.processes.disks):
            return
        disk = self.processes.disk(silo)
        if is_full:
            disk.capacity_bytes = disk.used_bytes
        else:
            disk.write_error_count = 1 << 30

        def mend() -> None:
            disk.capacity_bytes = None
            disk.write_error_count = 0

        self._while("break_disk", silo, seconds, mend)

    def slow_disk(self, silo: str, commit_ms: int, seconds: float) -> None:
        """Each commit of the silo takes so long."""
        if not self._noted("slow_disk", silo in self.processes.disks):
            return
        slow = self.processes.slow_disk_ns
        slow[silo] = max(slow.get(silo, 0), commit_ms * 1_000_000)

        def mend() -> None:
            slow.pop(silo, None)

        self._while("slow_disk", silo, seconds, mend)


def _portions(commands: list[m.Command], size: int) -> Iterator[list[m.Command]]:
    for start in range(0, len(commands), size):
        yield commands[start : start + size]


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Python's collector, told that a run makes few cycles and very many objects. May be entered again within."""
    before = gc.get_threshold()
    if before == QUIET_THRESHOLD:
        yield
        return
    gc.set_threshold(*QUIET_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)
