"""What the cluster's own moves of VMs are made of: who may move, how many at once, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from olvm.scheduling.host_table import HostTable
from olvm.scheduling.policy import Policy


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A VM where it runs. `load` is in percent of one thread; `movable`: nothing forbids to move it now."""

    vm_id: str
    name: str
    host: str
    vcpus: int
    memory_need_bytes: int
    load: int = 0
    movable: bool = True


class Move(msgspec.Struct, frozen=True, kw_only=True):
    vm_id: str
    from_host: str
    to_host: str
    why: str


class Budget:
    """How many migrations may begin now: in all, and by what each host's slots leave."""

    def __init__(
        self,
        moves_max: int,
        *,
        outgoing_max: int,
        incoming_max: int,
        outgoing: Mapping[str, int] | None = None,
        incoming: Mapping[str, int] | None = None,
    ) -> None:
        self.moves_left = moves_max
        self._outgoing_max = outgoing_max
        self._incoming_max = incoming_max
        self._outgoing = dict(outgoing or {})
        self._incoming = dict(incoming or {})

    def leaves(self, host: str) -> bool:
        """Whether one more VM may leave the host."""
        return self.moves_left > 0 and self._outgoing.get(host, 0) < self._outgoing_max

    def enters(self, host: str) -> bool:
        return self.moves_left > 0 and self._incoming.get(host, 0) < self._incoming_max

    def take(self, from_host: str, to_host: str) -> None:
        self.moves_left -= 1
        self._outgoing[from_host] = self._outgoing.get(from_host, 0) + 1
        self._incoming[to_host] = self._incoming.get(to_host, 0) + 1


class FleetView(msgspec.Struct, kw_only=True):
    """A cluster at one instant, as the planners of moves see it. They change the budget and nothing else.

    `accepts(vm_id, host)`: the filters let the VM go there, and no affinity of it gets worse. `busy_hosts` have a
    migration under way, so that their load is not what it will be. `over_s`: how long hosts have been over
    HighUtilization.
    """

    table: HostTable
    policy: Policy
    machines_by_host: Mapping[str, list[Machine]]
    budget: Budget
    accepts: Callable[[str, str], bool]
    over_s: Mapping[str, float] = {}
    busy_hosts: frozenset[str] = frozenset()
