"""Carries out the steps of a plan: each fault is done to the world, each command is asked by a client.

A step that makes no sense when its moment comes (a machine that is gone, a host that is off already) does nothing:
so any subset of a plan's steps is a plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from actors.wire import TELEMETRY_SILO
from hypervisor_backends.memory_leases import Fate
from hypervisor_backends.simulated_faults import Fault, FaultKind
from olvm.model import messages as m
from olvm.model.limits import NS_PER_S
from olvm.model.records import HostRecord
from sim.network import Noise
from sim.plan import GIB, VCPUS_FACTOR, Plan, Step, hardware_of
from sim.world import World

VERBS: dict[str, m.VmVerb] = {
    "start": "start",
    "stop": "stop",
    "shutdown": "shutdown",
    "reboot": "reboot",
    "reset": "reset",
    "suspend": "suspend",
    "resume": "resume",
    "migrate": "migrate",
    "cancel_migration": "cancel_migration",
    "remove_vm": "remove",
}
HOST_ACTIONS: dict[str, m.HostVerb] = {
    "maintenance": "maintenance",
    "cancel_maintenance": "cancel_maintenance",
    "activate": "activate",
    "restart_host": "restart",
    "remove_host": "remove",
}
GUEST_FAULTS: dict[str, FaultKind] = {
    "guest_crashes": "guest_crashes",
    "guest_reboots": "guest_reboots",
    "guest_shuts_down": "guest_shuts_down",
    "guest_is_deaf": "guest_ignores_shutdown",
    "migration_never_converges": "migration_never_converges",
}
POLICIES = ("none", "evenly_distributed", "power_saving", "vm_evenly_distributed")
CRASH_POINTS = ("before_commit", "in_commit", "after_commit", "in_release")
DEVICES = 3  # memory devices of different names that are plugged into one machine
NEW_VMS_FROM = 1_000  # numbers of machines and hosts that a plan adds


class Steps:
    """One run's hands. `say` hears each step that was carried out."""

    def __init__(self, world: World, plan: Plan, say: Callable[[str], None] = lambda _: None) -> None:
        self._world = world
        self._plan = plan
        self._say = say
        self._request_count = 0
        self._last: tuple[m.Command, str] | None = None
        self._new_vms = 0
        self._new_hosts = 0

    def take(self, step: Step) -> None:
        """Carry one step out, now. A fault is counted by its name in the vocabulary, once, if it struck anybody."""
        lasts = f" for {step.for_ms / 1000:g} s" if step.for_ms else ""
        self._say(f"{step.what} {step.target} {step.detail}".rstrip() + lasts)
        world = self._world
        kept, world.faults.counts = world.faults.counts, Counter()
        self._carry_out(step)
        if world.faults.counts:
            kept[step.what] += 1
        world.faults.counts = kept

    def _carry_out(self, step: Step) -> None:
        method = getattr(self, f"_do_{step.what}", None)
        if method is not None:
            method(step)
        elif step.what in VERBS:
            to_host = step.detail or None
            self.ask(m.VmCommand(step.target, VERBS[step.what], _timeout_s(step), to_host))
        elif step.what in HOST_ACTIONS:
            self.ask(m.HostCommand(step.target, HOST_ACTIONS[step.what]))
        elif step.what in GUEST_FAULTS:
            self._inject_on_vm(step.target, Fault(kind=GUEST_FAULTS[step.what], vm=step.target))
        else:
            raise AssertionError(f"no hand for the step {step.what}")

    def ask(self, command: m.Command) -> None:
        self._request_count += 1
        self._last = (command, f"request-{self._request_count}")
        self._world.ask(*self._last)

    # ------------------------------------------------------------------ commands

    def _do_repeat(self, _: Step) -> None:
        if self._last is not None:
            self._world.ask(*self._last)

    def _do_create_vm(self, step: Step) -> None:
        self._new_vms += 1
        shape = self._plan.shape
        self.ask(
            m.CreateVm(
                f"v{NEW_VMS_FROM + self._new_vms}",
                "prod",
                shape.vm_vcpus,
                shape.vm_memory_gib * GIB,
                hardware=hardware_of(shape),
                high_availability=step.value % 2 == 0,
                priority=step.value % 100 + 1,
            )
        )

    def _do_change_vm(self, step: Step) -> None:
        self.ask(m.UpdateVm(step.target, priority=step.value % 100 + 1, description=f"change {step.value}"))

    def _do_maintenance(self, step: Step) -> None:
        timeout_s = float(30 + step.value) if step.value % 3 else None
        self.ask(m.HostCommand(step.target, "maintenance", timeout_s))

    def _do_confirm_rebooted(self, step: Step) -> None:
        """A person says so only after a look at the computer: it is off, or has been booted since."""
        host = self._world.hosts.by_name.get(step.target)
        if host is None:
            return
        row = self._world.rows(HostRecord).get(step.target)
        boot_id = "" if host.hypervisor is None else host.hypervisor.capabilities.boot_id
        if not host.is_on or (row is not None and row.boot_id and row.boot_id != boot_id):
            self.ask(m.HostCommand(step.target, "confirm_rebooted"))

    def _do_add_host(self, step: Step) -> None:
        """A new computer, or one that was removed, under the name that it had."""
        known = self._world.rows(HostRecord)
        removed = [number for number in range(1, self._plan.shape.hosts + 1) if f"H{number}" not in known]
        if removed and step.value % 2:
            self.ask(self._world.host_command(removed[0]))
            return
        self._new_hosts += 1
        number = NEW_VMS_FROM + self._new_hosts
        self._world.add_host(number)
        self.ask(self._world.host_command(number))

    def _do_affinity(self, step: Step) -> None:
        shape, value = self._plan.shape, step.value
        vms = sorted({f"v{value % shape.vms + 1}", f"v{value // 7 % shape.vms + 1}"}) if shape.vms else []
        name = f"group-{value % 3}"
        if value % 5 == 0:
            self.ask(m.RemoveAffinityGroup(name, "prod"))
            return
        self.ask(
            m.SetAffinityGroup(
                name,
                "prod",
                vms=vms,
                hosts=[f"H{value % shape.hosts + 1}"] if value % 2 else [],
                vms_rule="negative" if value % 4 < 2 else "positive",
                vms_enforcing=value % 8 < 4,
                hosts_rule="positive" if value % 2 else "disabled",
                hosts_enforcing=value % 16 < 4,
            )
        )

    def _do_policy(self, step: Step) -> None:
        self.ask(m.UpdateCluster("prod", policy=POLICIES[step.value % len(POLICIES)]))

    def _do_cluster_shutdown(self, _: Step) -> None:
        self.ask(m.ClusterCommand("prod", "shutdown"))

    def _do_cluster_start(self, _: Step) -> None:
        self.ask(m.ClusterCommand("prod", "start"))

    # ------------------------------------------------------------------ CPUs and memory of what runs

    def _do_set_vcpus(self, step: Step) -> None:
        vcpus = 1 + step.value % (VCPUS_FACTOR * self._plan.shape.vm_vcpus)
        self.ask(m.VmTask(step.target, "set_vcpus", {"vcpus": vcpus}, _timeout_s(step)))

    def _do_plug_memory(self, step: Step) -> None:
        """Few names and one size of each, so that a device meets itself, and those who take it out."""
        number = step.value % DEVICES
        arguments: m.Arguments = {"name": f"m{number}", "size_bytes": (1 + number) * GIB // 2}
        self.ask(m.VmTask(step.target, "plug_memory", arguments, _timeout_s(step)))

    def _do_unplug_memory(self, step: Step) -> None:
        name = f"m{step.value % DEVICES}"
        self.ask(m.VmTask(step.target, "unplug_memory", {"name": name}, _timeout_s(step)))

    # ------------------------------------------------------------------ snapshots of what runs

    def _do_take_snapshot(self, step: Step) -> None:
        """Hardly a name comes twice: who hears of one later knows which one it was."""
        arguments: m.Arguments = {"name": f"s{step.value}", "with_memory": step.value % 4 == 0}
        self.ask(m.VmTask(step.target, "create_snapshot", arguments, _timeout_s(step)))

    def _do_commit_snapshot(self, step: Step) -> None:
        """Mostly of the newest one: no other may be committed."""
        names = self._world.hosts.snapshots_of(step.target)
        if names:
            name = names[-1] if step.value % 5 else names[step.value % len(names)]
            self.ask(m.VmTask(step.target, "commit_snapshot", {"name": name}, _timeout_s(step)))

    def _do_revert_snapshot(self, step: Step) -> None:
        names = self._world.hosts.snapshots_of(step.target)
        if names:
            arguments: m.Arguments = {
                "name": names[step.value % len(names)],
                "with_memory": step.value % 4 == 0,
                "discard_later": step.value % 3 == 0,
            }
            self.ask(m.VmTask(step.target, "revert_snapshot", arguments, _timeout_s(step)))

    # ------------------------------------------------------------------ processes and power

    def _silo_of(self, host: str) -> str:
        known = self._world.hosts.by_name.get(host)
        return "" if known is None else known.silo

    def _do_crash_engine(self, step: Step) -> None:
        self._world.faults.crash_silo("engine", step.for_ms / 1000)

    def _do_zombie_engine(self, _: Step) -> None:
        self._world.faults.zombie_engine()

    def _do_pause_engine(self, step: Step) -> None:
        self._world.faults.pause_silo("engine", step.for_ms / 1000)

    def _do_crash_agent(self, step: Step) -> None:
        self._world.faults.crash_silo(self._silo_of(step.target), step.for_ms / 1000)

    def _do_pause_agent(self, step: Step) -> None:
        self._world.faults.pause_silo(self._silo_of(step.target), step.for_ms / 1000)

    def _do_hang_agent(self, step: Step) -> None:
        self._world.faults.pause_silo(self._silo_of(step.target), None)

    def _do_crash_after_turn(self, step: Step) -> None:
        point = CRASH_POINTS[step.value % len(CRASH_POINTS)]
        self._world.faults.die_soon(step.target, point, step.value // 4)  # type: ignore[arg-type]

    def _do_crash_host(self, step: Step) -> None:
        if step.target in self._world.hosts.by_name:
            self._world.faults.crash_host(step.target, step.for_ms / 1000)

    def _do_kdump_host(self, step: Step) -> None:
        if step.target in self._world.hosts.by_name:
            self._world.faults.kdump_host(step.target, step.for_ms / 1000)

    def _do_lose_rack(self, step: Step) -> None:
        for host in sorted(self._world.hosts.by_name.values(), key=lambda one: one.name):
            if host.rack == step.target:
                self._world.faults.crash_host(host.name, step.for_ms / 1000)

    def _do_reinstall_host(self, step: Step) -> None:
        self._world.faults.reinstall_host(step.target, step.for_ms / 1000)

    # ------------------------------------------------------------------ network

    def _link(self, step: Step) -> tuple[str, str]:
        a, _, b = step.target.partition("|")
        return a, b

    def _do_cut(self, step: Step) -> None:
        self._world.faults.cut(*self._link(step), "both", step.for_ms / 1000)

    def _do_cut_one_way(self, step: Step) -> None:
        self._world.faults.cut(*self._link(step), "a_to_b", step.for_ms / 1000)

    def _do_cut_migration(self, step: Step) -> None:
        self._world.faults.cut(*self._link(step), "both", step.for_ms / 1000)

    def _do_isolate_host(self, step: Step) -> None:
        if step.target in self._world.hosts.by_name:
            self._world.faults.isolate(step.target, step.for_ms / 1000)

    def _do_isolate_fully(self, step: Step) -> None:
        if step.target in self._world.hosts.by_name:
            self._world.faults.isolate(step.target, step.for_ms / 1000, keeps_storage=False)

    def _do_cut_storage(self, step: Step) -> None:
        if step.target in self._world.hosts.by_name:
            self._world.faults.cut(self._silo_of(step.target), "storage", "both", step.for_ms / 1000)

    def _do_clog(self, step: Step) -> None:
        self._world.faults.clog(*self._link(step), step.for_ms / 1000)

    def _do_swizzle(self, step: Step) -> None:
        """Half of the hosts' links clog one after another and are freed in another order."""
        self._world.faults.note("swizzle")
        names = [host.silo for host in self._world.hosts.by_name.values()]
        chosen = [name for index, name in enumerate(sorted(names)) if (index + step.value) % 2 == 0]
        whole_s = step.for_ms / 1000
        for index, silo in enumerate(chosen):
            begins_s = whole_s / 2 * index / len(chosen)
            ends_s = whole_s / 2 * (1 + (index * 7 + step.value) % len(chosen) / len(chosen))
            self._world.timeline.after(
                begins_s,
                lambda silo=silo, lasts=ends_s - begins_s: self._world.network.clog("engine", silo, lasts),  # type: ignore[misc]
            )

    def _do_noise(self, step: Step) -> None:
        noise = Noise(
            loss_per_10k=1_000 * (step.value % 4),
            duplicate_per_10k=800 * (step.value % 3),
            late_duplicate_per_10k=100 * (step.value % 3),
            tail_per_10k=300 * (step.value % 5),
            jitter_us=20_000,
        )
        self._world.faults.noise(*self._link(step), noise, step.for_ms / 1000)

    def _do_storm(self, step: Step) -> None:
        hosts = sorted(self._world.hosts.by_name)
        for host in hosts[: (len(hosts) + 1) // 2]:
            self._world.faults.isolate(host, step.for_ms / 1000)

    def _do_rewind_reports(self, step: Step) -> None:
        self._world.faults.rewind(self._silo_of(step.target), "engine")

    # ------------------------------------------------------------------ disks of silos

    def _do_disk_errors(self, step: Step) -> None:
        self._world.faults.break_disk(step.target, step.for_ms / 1000)

    def _do_disk_full(self, step: Step) -> None:
        self._world.faults.break_disk(step.target, step.for_ms / 1000, is_full=True)

    def _do_slow_disk(self, step: Step) -> None:
        self._world.faults.slow_disk(step.target, 50 * (step.value + 1), step.for_ms / 1000)

    def _do_torn_tail(self, step: Step) -> None:
        self._world.faults.die_soon(step.target, "in_commit", 0)

    # ------------------------------------------------------------------ history; where there is none, nobody is struck

    def _do_crash_telemetry(self, step: Step) -> None:
        self._world.faults.crash_silo(TELEMETRY_SILO, step.for_ms / 1000)

    def _do_pause_telemetry(self, step: Step) -> None:
        self._world.faults.pause_silo(TELEMETRY_SILO, step.for_ms / 1000)

    def _do_cut_telemetry(self, step: Step) -> None:
        silo = self._silo_of(step.target)
        if silo and self._world.shape.telemetry:
            self._world.faults.cut(TELEMETRY_SILO, silo, "both", step.for_ms / 1000)

    def _do_clog_telemetry(self, step: Step) -> None:
        if self._world.shape.telemetry:
            self._world.faults.clog("engine", TELEMETRY_SILO, step.for_ms / 1000)

    def _do_break_history(self, step: Step) -> None:
        self._world.faults.break_history(step.for_ms / 1000)

    # ------------------------------------------------------------------ hypervisors, storage, fence devices

    def _inject(self, host: str, fault: Fault) -> None:
        known = self._world.hosts.by_name.get(host)
        if known is not None and known.hypervisor is not None and known.is_on:
            self._world.faults.note(fault.kind)
            known.hypervisor.inject(fault)

    def _inject_on_vm(self, vm: str, fault: Fault) -> None:
        """On the host where the machine truly is; a fault for one that is nowhere waits for nobody."""
        for name in sorted(self._world.hosts.by_name):
            hypervisor = self._world.hosts.by_name[name].hypervisor
            if hypervisor is not None and any(domain.name == vm for domain in hypervisor.domains()):
                self._inject(name, fault)
                return

    def _do_call_fails(self, step: Step) -> None:
        self._inject(step.target, Fault(kind="call_fails", request=step.detail or "StartDomain"))

    def _do_call_hangs(self, step: Step) -> None:
        self._inject(step.target, Fault(kind="call_hangs", request=step.detail or "StartDomain"))

    def _do_call_times_out(self, step: Step) -> None:
        self._inject(step.target, Fault(kind="call_times_out", request=step.detail or "StartDomain"))

    def _do_monitor_hangs(self, step: Step) -> None:
        self._inject_on_vm(step.target, Fault(kind="monitor_hangs", vm=step.target, count=None))
        self._world.timeline.after(step.for_ms / 1000, lambda: self._mend_monitor(step.target))

    def _mend_monitor(self, vm: str) -> None:
        for host in self._world.hosts.by_name.values():
            if host.hypervisor is not None:
                host.hypervisor.clear_faults(vm)

    def _do_migration_fails(self, step: Step) -> None:
        self._inject(step.target, Fault(kind="migration_fails"))

    def _do_migration_loses_confirm(self, step: Step) -> None:
        self._inject(step.target, Fault(kind="migration_loses_confirm"))

    def _do_arrival_is_late(self, step: Step) -> None:
        self._inject(step.target, Fault(kind="arrival_is_late"))

    def _do_kill_libvirtd(self, step: Step) -> None:
        self._world.faults.kill_libvirtd(step.target, step.for_ms / 1000)

    def _do_suppress_events(self, step: Step) -> None:
        if step.target in self._world.hosts.by_name:
            self._world.faults.lose_events(step.target, step.for_ms / 1000)

    def _do_host_problem(self, step: Step) -> None:
        self._world.faults.host_problem(step.target, "network_unreachable", step.for_ms / 1000)

    def _do_disks_fail(self, step: Step) -> None:
        self._world.faults.break_guest_disks(step.target, step.for_ms / 1000)

    def _do_storage_hangs(self, step: Step) -> None:
        """What the host asks of the lease storage from now on works only when the fault ends, and is not answered."""
        late = Fate(effect_after_s=step.for_ms / 1000, answer_after_s=None)
        if step.target in self._world.hosts.by_name:  # no host's silo would mean every host's
            self._world.faults.storage_fault(self._silo_of(step.target), late, step.for_ms / 1000)

    def _do_storage_slow(self, step: Step) -> None:
        slow = Fate(effect_after_s=1.0 + step.value, answer_after_s=1.0 + step.value)
        self._world.faults.storage_fault("", slow, step.for_ms / 1000)

    def _do_storage_lost(self, step: Step) -> None:
        self._world.faults.storage_fault(
            "", Fate(effect_after_s=None, answer_after_s=None), step.for_ms / 1000
        )

    def _do_fence_fails(self, step: Step) -> None:
        self._world.faults.fence_fault(step.target, "fails", step.for_ms / 1000)

    def _do_fence_times_out(self, step: Step) -> None:
        self._world.faults.fence_fault(step.target, "times_out", step.for_ms / 1000)

    def _do_fence_lies(self, step: Step) -> None:
        self._world.faults.fence_fault(step.target, "lies", step.for_ms / 1000)


def _timeout_s(step: Step) -> float | None:
    """Now and then the client has less patience than the machine has by itself."""
    return float(step.value % 60 + 5) if step.value % 7 == 0 else None


def due_ns(step: Step, begin_ns: int) -> int:
    """The true time of a step of a plan that begins at `begin_ns`."""
    return begin_ns + step.at_ms * (NS_PER_S // 1000)
