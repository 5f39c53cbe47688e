"""Who starts again first after a host was lost: the machine of higher priority, for a bounded time.

It decides only whether a restart has to wait; capacity is not its business. Volatile on purpose: after a restart of
the engine every machine asks again, and the order is kept from then on.

Source: oVirt AutoStartVmsRunner, MaxTimeAutoStartBlockedOnPriority.
"""

from __future__ import annotations

import msgspec

# A machine whose host was just proven dead is expected to ask within this time; if not, somebody stopped it.
EXPECTED_S = 10.0
# Forgotten when it has not asked for this long: twice the longest pause between two tries.
FORGOTTEN_AFTER_S = 3600.0
_NS = 1_000_000_000


class Blocker(msgspec.Struct, kw_only=True):
    """A machine to be started again. It blocks lower ones until `until_ns`, counted from its first try."""

    vm_name: str
    epoch: int
    until_ns: int
    asked_ns: int
    released: bool = False


class PriorityGate:
    def __init__(self) -> None:
        self._by_priority: dict[int, dict[str, Blocker]] = {}
        self._priority_by_vm: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._priority_by_vm)

    def expect(self, vm_id: str, vm_name: str, priority: int, now_ns: int) -> None:
        """Its host is dead: it will ask in a moment."""
        if vm_id not in self._priority_by_vm:
            until_ns = now_ns + int(EXPECTED_S * _NS)
            self._put(priority, vm_id, Blocker(vm_name=vm_name, epoch=0, until_ns=until_ns, asked_ns=now_ns))

    def asks(self, vm_id: str, vm_name: str, epoch: int, priority: int, now_ns: int, block_s: float) -> None:
        known = self._by_priority.get(self._priority_by_vm.get(vm_id, 0), {}).get(vm_id)
        until_ns = now_ns + int(block_s * _NS)
        if known is not None and known.epoch:
            until_ns = known.until_ns
        self.forget(vm_id)
        self._put(priority, vm_id, Blocker(vm_name=vm_name, epoch=epoch, until_ns=until_ns, asked_ns=now_ns))

    def blocker(self, vm_id: str, priority: int, now_ns: int) -> str | None:
        """The name of a machine of higher priority that is not running yet; None: nobody is in the way any more.

        Each blocks for a bounded time, and one after another they could do so for ever: who asks has waited enough when
        it would not block others any more itself.
        """
        own = self._by_priority.get(priority, {}).get(vm_id)
        if own is not None and now_ns >= own.until_ns:
            return None
        for higher in sorted(self._by_priority, reverse=True):
            if higher <= priority:
                return None
            for other_id, blocker in list(self._by_priority.get(higher, {}).items()):
                if now_ns - blocker.asked_ns > FORGOTTEN_AFTER_S * _NS:
                    self.forget(other_id)
                elif now_ns < blocker.until_ns and not blocker.released:
                    return blocker.vm_name
        return None

    def released(self, vm_id: str, epoch: int) -> None:
        """Its attempt is over. If it tries again its time goes on from its first try."""
        blocker = self._by_priority.get(self._priority_by_vm.get(vm_id, 0), {}).get(vm_id)
        if blocker is not None and blocker.epoch == epoch:
            blocker.released = True

    def forget(self, vm_id: str) -> None:
        """It runs."""
        priority = self._priority_by_vm.pop(vm_id, None)
        if priority is not None:
            blockers = self._by_priority[priority]
            del blockers[vm_id]
            if not blockers:
                del self._by_priority[priority]

    def _put(self, priority: int, vm_id: str, blocker: Blocker) -> None:
        self._by_priority.setdefault(priority, {})[vm_id] = blocker
        self._priority_by_vm[vm_id] = priority
