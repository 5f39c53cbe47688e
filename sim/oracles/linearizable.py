"""LIN: some order of all clients' operations on a machine explains every answer that they got.

The model of a machine is small: absent, down, up or suspended. A success must fit the state it found; a refusal
(`conflict`, `not_found`) changes nothing; any other failure may or may not have worked, then or later.
What the world does by itself (a guest that ends, a host that dies, a restart by high availability) may change the
state at any time after it happened: the engine hears of it late.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

from olvm.journal.port import Batch
from olvm.model.records import OperationRecord
from sim.linearizability import Call, explain
from sim.oracles.oracle import Oracle, OracleKind, Witness

CALLS_MAX = 60  # of one machine; the later ones of a longer history are not judged
Step = Callable[[str], str | None]


def _moves(**to_by_state: str) -> Step:
    return to_by_state.get


SUCCESS: dict[str, Step] = {
    "create_vm": _moves(absent="down"),
    # `start` of a paused machine lets it run on.
    "start_vm": _moves(down="up", suspended="up", up="up"),
    "resume_vm": _moves(suspended="up", up="up"),
    "shutdown_vm": _moves(up="down"),
    "stop_vm": _moves(up="down", suspended="down", down="down"),
    "suspend_vm": _moves(up="suspended"),
    "reboot_vm": _moves(up="up"),
    "reset_vm": _moves(up="up"),
    "migrate_vm": _moves(up="up"),
    "remove_vm": _moves(down="absent"),
}
# What a failure that is no refusal may still have done, or do later.
MAYBE: dict[str, Step] = {
    "start_vm": _moves(down="up", suspended="up"),
    "resume_vm": _moves(suspended="up"),
    "shutdown_vm": _moves(up="down"),
    "stop_vm": _moves(up="down", suspended="down"),
    "suspend_vm": _moves(up="suspended"),
}
REFUSALS = frozenset({"conflict", "not_found"})


def _ends(state: str) -> str | None:
    return "down" if state in ("up", "suspended") else None


def _comes_back(state: str) -> str | None:
    return "up" if state == "down" else None


class Linearizable(Oracle):
    ID: ClassVar[str] = "LIN"
    KIND: ClassVar[OracleKind] = "safety"
    PROMISE: ClassVar[str] = "some order of all operations explains every answer that clients got"

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._asked_ns: dict[str, int] = {}
        self._ended: dict[str, tuple[int, OperationRecord]] = {}
        self._world: dict[str, list[Call]] = {}
        self.judged_count = 0

    def committed(self, silo: str, batch: Batch) -> None:
        if silo != "engine":
            return
        now_ns = self.witness.now_ns
        for row in cast("dict[str, OperationRecord]", batch.upserts.get(OperationRecord, {})).values():
            if row.target_kind != "vm":
                continue
            self._asked_ns.setdefault(row.id, now_ns)
            if row.finished_ns is not None:
                self._ended.setdefault(row.id, (now_ns, row))

    def ended(self, host: str, vm_id: str, epoch: int, exit_reason: int) -> None:
        self._happened(vm_id, f"life {epoch} ended on {host} ({exit_reason})", _ends)

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        del footprint_bytes
        self._happened(vm_id, f"life {epoch} gone from {host}", _ends)

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        self._happened(vm_id, f"life {epoch} runs on {host}", _comes_back)

    def _happened(self, vm_id: str, name: str, step: Step) -> None:
        self._world.setdefault(vm_id, []).append(Call(name, self.witness.now_ns, None, step, optional=True))

    def settled(self) -> None:
        by_vm: dict[str, list[Call]] = {}
        for operation_id, (ended_ns, row) in self._ended.items():
            call = _call_of(row, self._asked_ns[operation_id], ended_ns)
            if call is not None:
                by_vm.setdefault(row.target_id, []).append(call)
        for vm_id, calls in sorted(by_vm.items()):
            self._judge(vm_id, sorted(calls, key=lambda call: call.asked_ns))

    def _judge(self, vm_id: str, calls: list[Call]) -> None:
        calls = calls[:CALLS_MAX]
        last_ns = max(call.ended_ns or call.asked_ns for call in calls)
        happened = [call for call in self._world.get(vm_id, []) if call.asked_ns <= last_ns]
        try:
            found = explain([*calls, *happened[: 2 * CALLS_MAX]], "absent")
        except OverflowError:
            return  # no verdict is no violation; `judged_count` says how many there are
        self.judged_count += 1
        if found is None and len(happened) <= 2 * CALLS_MAX:
            told = "; ".join(
                f"{call.name} [{call.asked_ns / 1e9:.3f}, {(call.ended_ns or 0) / 1e9:.3f}]" for call in calls
            )
            self.fail(f"no order explains what clients saw of machine {vm_id}: {told}")


def _call_of(row: OperationRecord, asked_ns: int, ended_ns: int) -> Call | None:
    name = f"{row.kind} {row.status}" + (f" ({row.error_code})" if row.error_code else "")
    if row.status == "succeeded":
        step = SUCCESS.get(row.kind)
        return None if step is None else Call(name, asked_ns, ended_ns, step)
    if row.error_code in REFUSALS:
        return None  # it changed nothing; `conflict` also stands for "not now", so it binds no state
    maybe = MAYBE.get(row.kind)
    return None if maybe is None else Call(name, asked_ns, None, maybe, optional=True)
