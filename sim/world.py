"""The simulated world: clock, network, processes, computers and clients put together, and how its time passes.

What runs in it is the product itself: the silos, actors, ports and journals of `actors` and `olvm`. This module
decides nothing about them; it decides who is there and when things happen. What breaks stands in `faults.py`. Nothing
here reads an actor's belief.

Same arguments, same calls at the same times: same run, to the last byte (`digest`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from actors.assembly import kind_of, record_types
from actors.hypervisor_port import HypervisorPort, at_once
from actors.silo import Silo
from actors.wire import ENGINE_SILO, TELEMETRY_SILO
from olvm.journal.memory_journal import MemoryJournal
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.limits import NS_PER_S
from sim.client import Call, Clients, Ended
from sim.clock import START_NS, HostClock, Timeline
from sim.collector import quiet_collector
from sim.digest import Digest
from sim.faults import Faults
from sim.history import Histories
from sim.hosts import Hosts, SimHost
from sim.network import Network, stream
from sim.plan import GIB, Knobs, Shape, hardware_of
from sim.plant import Plant
from sim.processes import JOURNAL_ROWS_MAX, Process, Processes
from sim.sightings import Sightings
from sim.truth import Truth

# Where there is no history nobody samples within the life of a run.
NO_SAMPLES_S = 1e9
ASKED_AT_ONCE = 5_000


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
        self.situations = self.processes.situations
        self.histories = Histories(self.timeline, self.processes, seed)
        if self.shape.telemetry:
            self.histories.begin()
            self.clients.follower = self.histories.on_committed
        # Gives each life of the telemetry silo its history; a test may want the real one.
        self.plug_history: Callable[[Process], None] = self.histories.plug
        self.faults = Faults(
            self.timeline, self.network, self.processes, self.hosts, self.plant, self.histories
        )
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
            if self.shape.telemetry:
                self.histories.plug_engine(process)
        elif kind == "telemetry":
            self.plug_history(process)

    def watch(self, observer: Any) -> None:
        """Tell `observer` of what happens, by those of `sim.oracles.oracle.HOOKS` that it has, from now on."""
        self.truth.watch(observer)
        self.histories.hearing.add(observer)
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
            hardware=hardware_of(shape),
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
        self.faults.worsen(self.knobs)

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
            faults=self.faults.counts.total(),
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


def _portions(commands: list[m.Command], size: int) -> Iterator[list[m.Command]]:
    for start in range(0, len(commands), size):
        yield commands[start : start + size]
