"""What befalls a simulated world: every fault by its name, and how it is mended.

Decides what breaks, for how long, and whether it struck anybody: what strikes nobody is not counted. Must not know when
a fault is wanted, or by whom: a plan's steps (`steps.py`), a sweep or a test. It breaks computers, processes, disks and
lines, never what an actor believes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from actors.wire import ENGINE_SILO, TELEMETRY_SILO
from hypervisor_backends.memory_fencing import FenceFaultKind
from hypervisor_backends.memory_leases import Fate
from olvm.model.limits import NS_PER_S
from sim.clock import Timeline
from sim.history import Histories
from sim.hosts import Hosts
from sim.network import Direction, Network, Noise
from sim.plan import Knobs
from sim.plant import Plant
from sim.processes import Processes
from sim.silo_disk import CrashPoint


class Faults:
    """Those of one world. `counts` says how often which has struck."""

    def __init__(
        self,
        timeline: Timeline,
        network: Network,
        processes: Processes,
        hosts: Hosts,
        plant: Plant,
        histories: Histories,
    ) -> None:
        self._timeline = timeline
        self._network = network
        self._processes = processes
        self._hosts = hosts
        self._plant = plant
        self._histories = histories
        self.counts: Counter[str] = Counter()
        self._until_ns: dict[tuple[str, str], int] = {}  # when the last fault of a kind on a target is over

    def worsen(self, knobs: Knobs) -> None:
        """From now on the network, the disks, the clocks and the hypervisors are as bad as the knobs say."""
        processes = self._processes
        self._network.tune(knobs)
        processes.commit_ms_max = knobs.commit_ms_max
        processes.clock_step_s_max = knobs.clock_step_s_max
        processes.torn_tail_percent = knobs.torn_tail_percent
        self._hosts.misbehave(True)

    def heal(self) -> None:
        """Faults stop: links pass, disks write, who is dead is started, who stands still goes on."""
        processes = self._processes
        self._network.heal()
        processes.commit_ms_max = processes.clock_step_s_max = processes.torn_tail_percent = 0
        processes.slow_disk_ns.clear()
        processes.fate = self._network.fate = None
        for disk in processes.disks.values():
            disk.capacity_bytes = None
            disk.write_error_count = disk.sync_error_count = 0
        for zombie in list(processes.zombies):
            processes.end(zombie)  # one that never commits would go on for ever
        for name in list(processes.by_name):
            process = processes.by_name[name]
            process.dies_at = None
            processes.resume(name)
        self._plant.heal()
        self._histories.disk.is_broken = False
        self._hosts.heal()
        for name in sorted(processes.disks):
            silo_host = self._hosts.name_by_silo.get(name)
            if silo_host is None or self._hosts.by_name[silo_host].is_on:
                processes.start(name)

    def note(self, name: str) -> None:
        self.counts[name] += 1

    def _noted(self, name: str, did: bool) -> bool:
        """Counts the fault if it did something; one that strikes nobody is none."""
        if did:
            self.note(name)
        return did

    def _while(self, what: str, target: str, seconds: float, mend: Callable[[], None]) -> None:
        """Mend when the last of the faults of this kind on this target has had its time."""
        key = (what, target)
        self._until_ns[key] = max(
            self._until_ns.get(key, 0), self._timeline.time_ns + int(seconds * NS_PER_S)
        )

        def over() -> None:
            if self._timeline.time_ns >= self._until_ns[key]:
                mend()

        self._timeline.after(seconds, over)

    def crash_silo(self, name: str, restart_after_s: float | None = 1.0) -> bool:
        return self._noted("crash_silo", self._processes.crash(name, restart_after_s))

    def die_soon(self, name: str, point: CrashPoint = "after_commit", after_commits: int = 0) -> None:
        """The process dies in the middle of one of its next commits, and is started again."""
        self._noted("die_soon", self._processes.is_up(name))
        self._processes.die_soon(name, point, after_commits)

    def pause_silo(self, name: str, seconds: float | None) -> None:
        """The process stands still; its hypervisor, its leases' watchdog and the network go on."""
        self._noted("pause_silo", self._processes.is_up(name))
        self._processes.pause(name, seconds)

    def zombie_engine(self) -> None:
        """A second engine starts from the disk while the first goes on until its next commit."""
        self._noted("zombie_engine", self._processes.haunt(ENGINE_SILO) is not None)

    def wipe_silo(self, name: str) -> None:
        self.note("wipe_silo")
        self._processes.wipe(name)

    def crash_host(self, name: str, restart_after_s: float | None = 60.0) -> bool:
        return self._noted("crash_host", self._hosts.crash(name, restart_after_s))

    def kdump_host(self, name: str, dump_s: float) -> bool:
        return self._noted("kdump_host", self._hosts.kdump(name, dump_s))

    def kill_libvirtd(self, host: str, seconds: float) -> None:
        self._noted("kill_libvirtd", host in self._hosts.by_name and self._hosts.kill_libvirtd(host, seconds))

    def lose_events(self, host: str, seconds: float) -> None:
        self.note("lose_events")
        self._hosts.lose_events(host, seconds)

    def reinstall_host(self, name: str, seconds: float) -> bool:
        """The host loses its power and its agent's disk, and comes back empty after so long."""
        did = name in self._hosts.by_name and self._hosts.reinstall(name, seconds)
        return self._noted("reinstall_host", did)

    def host_problem(self, host: str, problem: str, seconds: float) -> None:
        """`problem` is a name of `olvm.model.host_problems`."""
        if host in self._hosts.by_name:
            self.note("host_problem")
            self._hosts.set_problem(host, problem, seconds)

    def break_guest_disks(self, host: str, seconds: float) -> None:
        if host in self._hosts.by_name:
            self.note("break_guest_disks")
            self._hosts.break_guest_disks(host, seconds)

    def storage_fault(self, silo: str, fate: Fate, seconds: float) -> None:
        """What befalls the lease calls of a host's silo; empty: of all."""
        self.note("storage_fault")
        self._plant.bend(self._hosts.name_by_silo.get(silo, ""), fate, seconds)

    def fence_fault(self, host: str, kind: FenceFaultKind, seconds: float) -> None:
        """How the fence device of `host` misbehaves."""
        if host in self._hosts.by_name:
            self.note("fence_fault")
            self._plant.bend_fence(host, kind, seconds)

    def cut(self, a: str, b: str, direction: Direction = "both", seconds: float | None = None) -> None:
        """Nodes are silos, `storage`, `fence/<host>`, `client`, and hosts for the paths of migrations."""
        self.note("cut")
        self._network.cut(a, b, direction, seconds)

    def isolate(self, host: str, seconds: float | None = None, *, keeps_storage: bool = True) -> None:
        """The host reaches no silo, no fence device and no other host, and nobody reaches its agent."""
        self.note("isolate")
        silo = self._hosts.by_name[host].silo
        others = [name for name in self._processes.disks if name != silo]
        others += [f"fence/{name}" for name in self._hosts.by_name]
        for other in others if keeps_storage else [*others, "storage"]:
            self._network.cut(silo, other, "both", seconds)
        for other in self._hosts.by_name:
            if other != host:
                self._network.cut(host, other, "both", seconds)

    def clog(self, a: str, b: str, seconds: float, direction: Direction = "both") -> None:
        self.note("clog")
        self._network.clog(a, b, seconds, direction)

    def noise(self, a: str, b: str, noise: Noise, seconds: float, direction: Direction = "both") -> None:
        self.note("noise")
        self._network.noise(a, b, noise, seconds, direction)

    def rewind(self, source: str, to: str) -> None:
        """The newest frames of a link arrive a second time."""
        self._noted("rewind", (source, to) in self._network.links)
        self._network.rewind(source, to)

    def break_disk(self, silo: str, seconds: float, *, is_full: bool = False) -> None:
        """The silo's disk takes no writes for so long."""
        if not self._noted("break_disk", silo in self._processes.disks):
            return
        disk = self._processes.disk(silo)
        if is_full:
            disk.capacity_bytes = disk.used_bytes
        else:
            disk.write_error_count = 1 << 30

        def mend() -> None:
            disk.capacity_bytes = None
            disk.write_error_count = 0

        self._while("break_disk", silo, seconds, mend)

    def break_history(self, seconds: float) -> None:
        """The disk of history takes nothing for so long, or says so when it has."""
        if not self._noted("break_history", TELEMETRY_SILO in self._processes.disks):
            return
        disk = self._histories.disk
        disk.is_broken = True

        def mend() -> None:
            disk.is_broken = False

        self._while("break_history", TELEMETRY_SILO, seconds, mend)

    def slow_disk(self, silo: str, commit_ms: int, seconds: float) -> None:
        """Each commit of the silo takes so long."""
        if not self._noted("slow_disk", silo in self._processes.disks):
            return
        slow = self._processes.slow_disk_ns
        slow[silo] = max(slow.get(silo, 0), commit_ms * 1_000_000)

        def mend() -> None:
            slow.pop(silo, None)

        self._while("slow_disk", silo, seconds, mend)
