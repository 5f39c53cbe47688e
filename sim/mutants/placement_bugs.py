"""Bugs in the pure parts: the tables of states and actions, and the arithmetic of placement.

Decides which rows and sums are put to the test that no actor's own code makes up for.
"""

from __future__ import annotations

from sim.mutants.planting import Mutant

MODEL: tuple[Mutant, ...] = (
    Mutant(
        name="model-removes-what-runs",
        module="olvm.model.vm_actions",
        old="S.UP: frozenset({A.RUN, A.RUN_ONCE, A.ADD_TEMPLATE, A.REMOVE,",
        new="S.UP: frozenset({A.RUN, A.RUN_ONCE, A.ADD_TEMPLATE,",
        says="a machine may be removed while it runs",
        favour=("remove_vm",),
    ),
    Mutant(
        name="model-lost-means-down",
        module="olvm.model.vm_states",
        old="T.HOST_LOST: every(ON_A_HOST, S.UNKNOWN)",
        new="T.HOST_LOST: every(ON_A_HOST, S.DOWN)",
        says="by the table a machine whose host is silent is down",
        favour=("isolate_host",),
    ),
)


SCHEDULING: tuple[Mutant, ...] = (
    Mutant(
        name="balancer-moves-in-a-circle",
        module="olvm.scheduling.balancing",
        old="return [host for host in self._by_load(self.hosts) if self.count[host] and self.mass(host) >= mass]",
        new="return sorted(self.hosts, key=lambda host: self.mass(host) > mass)",
        says="hosts are emptied onto ones that are no fuller, and back",
        favour=("policy",),
    ),
    Mutant(
        name="table-reckons-too-little",
        module="olvm.scheduling.request",
        old="        + memory_bytes // PAGE_TABLE_SHARE\n        + FIXED_OVERHEAD_BYTES",
        new="        - memory_bytes // 8",
        says="a machine is reckoned with an eighth less memory than it has",
        hosts=2,
        vms=24,
        favour=("maintenance", "start"),
    ),
    Mutant(
        name="table-settles-to-nothing",
        module="olvm.scheduling.host_table",
        old="            - self.reserved_memory_bytes[slot]",
        new="            - self.reserved_memory_bytes[slot] // 2",
        says="half of what is reserved on a host counts as free",
        hosts=2,
        vms=24,
        favour=("maintenance", "start"),
    ),
    Mutant(
        name="table-keeps-what-was-released",
        module="olvm.scheduling.host_table",
        old="            self._book(self._slot_by_name[reservation.host], reservation, -1)",
        new="            pass",
        says="capacity that was given back stays taken",
        favour=("start", "stop", "migrate"),
    ),
)
