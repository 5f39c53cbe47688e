"""Bugs in the engine's books: operations, and who has which room in a cluster.

Decides which promises to clients, and which sums of a cluster, are put to the test.
"""

from __future__ import annotations

from sim.mutants.planting import Mutant

ENGINE: tuple[Mutant, ...] = (
    Mutant(
        name="engine-remembers-too-few-requests",
        module="actors.engine",
        old="while len(self.finished) > OPERATIONS_REMEMBERED_MAX:",
        new="while len(self.finished) > 1:",
        says="the window in which a repeated request is recognised is one operation",
        favour=("repeat",),
    ),
    Mutant(
        name="engine-forgets-open-requests",
        module="actors.engine",
        old="self.operation_by_request[operation.client_request_id] = operation.id\n        self.record.accepted",
        new="pass\n        self.record.accepted",
        says="a request is recognised only after a restart of the engine",
        favour=("repeat",),
    ),
    Mutant(
        name="engine-forgets-open-operations",
        module="actors.engine",
        old="for operation in sorted(operations.values(),",
        new="for operation in sorted((one for one in operations.values() if one.finished_ns),",
        says="operations that were open when the engine stopped are not found again",
        favour=("crash_engine",),
    ),
    Mutant(
        name="engine-commands-once",
        module="actors.engine_commands",
        old="turn.send(item.address, m.CommandVm(",
        new="turn.tell(item.address, m.CommandVm(",
        says="a command to a machine of another silo is sent at most once",
        favour=("crash_after_turn", "crash_engine"),
    ),
)


CLUSTER: tuple[Mutant, ...] = (
    Mutant(
        name="cluster-releases-any-epoch",
        module="actors.cluster_book",
        old="if held is not None and held.epoch == epoch:",
        new="if held is not None:",
        says="the end of a copy gives back what its machine holds",
        favour=("migrate",),
    ),
    Mutant(
        name="cluster-promotes-by-halves",
        module="actors.cluster_book",
        old="self.reservations[copy.vm_id] = held\n",
        new="self.reservations.setdefault(copy.vm_id, held)\n",
        says="after a hand-over the cluster goes on with the source's reservation",
        favour=("migrate",),
    ),
    Mutant(
        name="cluster-copies-take-no-room",
        module="actors.cluster_book",
        old="            copy.memory_bytes,\n            already_running",
        new="            1,\n            already_running",
        says="a machine on its way holds no memory at its target",
        hosts=2,
        vms=24,
        favour=("maintenance", "migrate"),
    ),
    Mutant(
        name="cluster-forgets-what-is-held",
        module="actors.cluster_book",
        old="                held.memory_bytes,\n                already_running",
        new="                1,\n                already_running",
        says="after a restart of the engine the memory of running machines counts as free",
        hosts=2,
        vms=24,
        favour=("crash_engine", "maintenance", "migrate"),
    ),
    Mutant(
        name="cluster-priority-gate-stays-shut",
        module="actors.cluster_priority",
        old="if own is not None and now_ns >= own.until_ns:\n            return None\n"
        "        for higher in sorted(self._by_priority, reverse=True):\n"
        "            if higher <= priority:\n                return None\n"
        "            for other_id, blocker in list(self._by_priority.get(higher, {}).items()):\n"
        "                if now_ns - blocker.asked_ns > FORGOTTEN_AFTER_S * _NS:\n"
        "                    self.forget(other_id)\n"
        "                elif now_ns < blocker.until_ns and not blocker.released:",
        new="for higher in sorted(self._by_priority, reverse=True):\n"
        "            if higher <= priority:\n                return None\n"
        "            for blocker in self._by_priority[higher].values():\n"
        "                if blocker:",
        says="a machine that does not come up holds back all of lower priority for ever",
        favour=("guest_crashes", "stop", "crash_host"),
        pair=True,
    ),
    Mutant(
        name="cluster-power-without-a-deadline",
        module="actors.cluster_power",
        old='turn.set_timer(record, "power_deadline", record.power_timeout_s)',
        new="pass",
        says="shutting a cluster down has no deadline",
        favour=("cluster_shutdown", "cluster_start", "guest_is_deaf"),
    ),
    Mutant(
        name="cluster-uses-lost-hosts",
        module="actors.cluster_hosts",
        old="self.book.table.update_host(message.host, usable=message.usable)",
        new="self.book.table.update_host(message.host, usable=True)",
        says="machines are placed on hosts that are not up",
        favour=("maintenance", "start"),
    ),
)
