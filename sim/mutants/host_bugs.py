"""Bugs in hosts: their agents, their service and fencing, and the leases that they hold.

Decides which promises of a host, and of the engine's belief in one, are put to the test.
"""

from __future__ import annotations

from sim.mutants.planting import Mutant

AGENT: tuple[Mutant, ...] = (
    Mutant(
        name="agent-obeys-an-old-epoch",
        module="actors.host_agent_commands",
        old="if message.epoch < domain.epoch:",
        new="if False:",
        says="a command of an epoch that is over is carried out",
        profile="brutal",
        hosts=2,
        favour=("migrate", "rewind_reports", "migration_fails"),
    ),
    Mutant(
        name="agent-starts-again-after-a-reboot",
        module="actors.host_agent_recovery",
        old='elif rebooted or domain.boot_id not in ("", self.book.record.boot_id):',
        new="elif False:",
        says="a start that was under way when the host went down is begun again after its restart",
        profile="brutal",
        favour=("crash_host", "start", "call_hangs"),
        pair=True,
    ),
    Mutant(
        name="agent-takes-a-target-that-was-given-up-for-over",
        module="actors.host_agent",
        old="elif message.exit_reason == ExitReason.ARRIVAL_GIVEN_UP:",
        new="elif False:",
        says="a target that its hypervisor has given up counts as over, and what had begun by then may still come",
        favour=("migrate", "arrival_is_late"),
    ),
    Mutant(
        name="agent-takes-doubt-for-a-refusal",
        module="actors.host_agent_tasks",
        old="message.code, message.outcome_known, result",
        new="message.code, True, result",
        says="of a task that was not answered it is told that it was not done",
        favour=("take_snapshot", "call_times_out", "kill_libvirtd"),
    ),
    Mutant(
        name="agent-tells-of-a-task-before-its-end",
        module="actors.host_agent_tasks",
        old="self.book.host, operation_id, message.ok, reason,",
        new="self.book.host, operation_id, True, reason,",
        says="a task counts as done however it ended",
        favour=("take_snapshot", "call_fails"),
    ),
    Mutant(
        name="agent-takes-a-request-for-an-end",
        module="actors.host_agent_commands",
        old='elif verb == "save" and message.ok:',
        new='elif verb in ("save", "shutdown") and message.ok:',
        says="a guest that was asked to shut down counts as down",
        favour=("shutdown", "guest_is_deaf"),
    ),
    Mutant(
        name="agent-beats-once",
        module="actors.host_agent",
        old='        record = self.record\n        turn.wake_each("heartbeat", turn.config.heartbeat_period_s)\n',
        new="        record = self.record\n",
        says="an agent sends one heartbeat after each start",
    ),
    Mutant(
        name="agent-renews-once",
        module="actors.host_agent_leases",
        old='turn.wake_each("renew", turn.config.lease_renew_period_s)',
        new="pass",
        says="a host renews its lease once after each start of its agent",
    ),
    Mutant(
        name="agent-creates-for-another-boot",
        module="actors.host_agent_starts",
        old='elif message.boot_id and book.record.boot_id not in ("", message.boot_id):',
        new="elif False:",
        says="a start that was meant for the boot before is carried out",
        favour=("crash_host", "start", "migrate"),
        pair=True,
    ),
    Mutant(
        name="agent-never-forgets",
        module="actors.host_agent_commands",
        old="        self.book.forget(domain, turn)",
        new="        pass",
        says="the end of a machine is reported although it was acknowledged",
    ),
    Mutant(
        name="agent-believes-a-lost-migration",
        module="actors.host_agent_migration",
        old='self.book.call(domain, ListDomains(), "migration", turn)\n\n    def settle',
        new="self.book.gone(domain, turn)\n\n    def settle",
        says="a migration that was not answered counts as the machine's end",
        favour=("migrate", "migration_fails"),
    ),
)


HOST: tuple[Mutant, ...] = (
    Mutant(
        name="host-not-back-in-service",
        module="actors.host_requirements",
        old='if not problems and "recover" not in record.timers:',
        new='if not problems and "recover" in record.timers:',
        says="a host whose problems are gone is taken back only if they pass at once",
        favour=("host_problem",),
    ),
    Mutant(
        name="host-takes-a-restart-for-a-reboot",
        module="actors.host",
        old="if record.boot_id and record.boot_id != message.boot_id:",
        new="if record.boot_id and record.host_epoch != message.host_epoch:",
        says="a restarted agent counts as a restarted host",
        favour=("crash_agent",),
    ),
    Mutant(
        name="fence-order-is-proof",
        module="actors.host_fence_steps",
        old="(S.OFF, W.TAKEN): S.OFF_STATUS",
        new="(S.OFF, W.TAKEN): S.FENCED",
        says="an order to switch off that was taken counts as done",
        favour=("fence_lies", "isolate_host"),
        pair=True,
    ),
    Mutant(
        name="fence-status-ignored",
        module="actors.host_fencing",
        old='"on": Word.IS_ON, "unknown"',
        new='"on": Word.IS_OFF, "unknown"',
        says="a host that its device calls on counts as off",
        favour=("fence_lies", "isolate_host"),
        pair=True,
    ),
    Mutant(
        name="maintenance-forgets-a-machine",
        module="actors.cluster_drain",
        old="names = sorted({row.vm_name for row in self.book.rows_on(host)})",
        new="names = sorted(reason_by_vm)",
        says="a host counts as empty when nothing is known to leave it",
        favour=("maintenance",),
    ),
)


LEASES: tuple[Mutant, ...] = (
    Mutant(
        name="lease-wait-too-short",
        module="hypervisor_backends.lease_keeper",
        old="math.ceil(expiry_ns * (1 + drift) / (1 - drift))",
        new="math.ceil(expiry_ns / 8)",
        says="a holder is judged dead after a part of its lease",
        favour=("isolate_host", "storage_slow"),
    ),
    Mutant(
        name="lease-holder-of-this-boot-is-dead",
        module="hypervisor_backends.lease_operations",
        old="if lease is not None and lease.boot_id != holder.boot_id:",
        new="if lease is not None and lease.boot_id == holder.boot_id:",
        says="the holder that runs counts as dead, and that of an earlier boot as alive",
        favour=("isolate_host",),
    ),
    Mutant(
        name="lease-left-for-others",
        module="hypervisor_backends.lease_operations",
        old="if holder.host != self._keeper.host:\n            return False",
        new="if holder.host != self._keeper.host:\n            return holder.epoch < self.epoch",
        says="a host that gives a copy up takes the other holder's hold along",
        favour=("isolate_host",),
    ),
)
