"""How large the machine is now, what is reserved for that, and how a plug changes both.

Rule: the row that the cluster holds for a copy is never smaller than what that copy can have. So
1. what is to be plugged is reserved before its host is asked (`reserving`); no room, no order;
2. it is given back only when the host has said that it failed, or that something was unplugged;
3. of a change whose outcome is not known (`unknown`) the larger of both sizes stays reserved. The host is asked how
   large the machine is, each query_period_s, until it says so, also after a restart of the engine. The question
   follows the order on the same channel, so no order comes after the answer;
4. one change at a time: what two of unknown outcome have left could not be told apart;
5. a second copy is reserved, and prepared, with the larger size; what is too much of it is given back when it is the
   machine;
6. what was done is kept for the next start. A change that its machine did not outlive is not.

The size of the next start is `vcpus` and `memory_bytes`; `now_*` is what the copy has that runs, or whose memory is
saved. They differ after a change of the definition of a machine that runs.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from actors.vm_core import VmCore
from olvm.model import messages as m
from olvm.model.errors import NoCapacity, OperationFailed
from olvm.model.sizes import format_size
from olvm.model.vm_sizes import Resize, Size, plugged_after, size_after, was_done
from olvm.model.vm_states import ON_A_HOST, VmStatus, VmTrigger
from olvm.model.vm_tasks import VM_TASKS

TASK_TIMER = "task/"
# Where a host can say how large the machine is.
MEASURABLE = ON_A_HOST - {VmStatus.WAIT_FOR_LAUNCH, VmStatus.RESTORING_STATE, VmStatus.SAVING_STATE}


class VmSize(VmCore):
    __slots__ = ()

    # ------------------------------------------------------------------ how large it is

    @property
    def _size(self) -> Size:
        """Of what runs or is saved; while it is down, and of rows of older versions, of the next start."""
        record = self.record
        return Size(record.now_vcpus or record.vcpus, record.now_memory_bytes or record.memory_bytes)

    @property
    def _size_held(self) -> Size:
        """Rule 3."""
        resize = self.record.resize
        return self._size if resize is None else self._size.or_more(resize.size)

    @property
    def _copy_size(self) -> Size:
        record = self.record
        vcpus, memory_bytes = self._size_held
        return Size(record.copy_vcpus or vcpus, record.copy_memory_bytes or memory_bytes)

    def _hold(self, size: Size, turn: Turn) -> None:
        record = self.record
        turn.send(self.cluster, m.ResizeVm(record.id, record.epoch, size.vcpus, size.memory_bytes))

    # ------------------------------------------------------------------ its life

    def _move(self, trigger: VmTrigger, turn: Turn, reason: str = "") -> None:
        super()._move(trigger, turn, reason)
        if self.record.status is VmStatus.DOWN:
            self._forget_size(turn)
        elif self.record.status is VmStatus.SUSPENDED:
            turn.cancel_timer(self.record, "size")  # nobody can say how large saved memory is
            if self._is_reserving():
                self._drop_resize(turn)

    def _begin_size(self, turn: Turn) -> None:
        """Of an attempt to start: saved memory is as large as it was, all else begins as it is defined."""
        if self.record.status is not VmStatus.RESTORING_STATE:
            self._start_as(Size(self.record.vcpus, self.record.memory_bytes))
        elif self.record.resize is not None and self.record.resize.phase == "unknown":
            turn.set_timer(self.record, "size", turn.config.query_period_s)

    def _start_as(self, size: Size) -> None:
        record = self.record
        record.now_vcpus, record.now_memory_bytes = size
        record.plugged_memory = {}

    def _forget_size(self, turn: Turn) -> None:
        """Nothing of it runs, and its row goes as a whole."""
        self._drop_resize(turn)
        self._start_as(Size(0, 0))

    def _drop_resize(self, turn: Turn) -> None:
        record, resize = self.record, self.record.resize
        if resize is None:
            return
        record.resize = None
        turn.cancel_timer(record, "size")
        reason = f"{record.name} is {record.status.value} and did not wait for {resize.verb}; it is as it was before"
        self._end_task(resize.operation_id, turn, False, reason, OperationFailed.code)

    def _size_of_promoted(self, copy_size: Size, turn: Turn, *, is_new_life: bool) -> None:
        """Rule 5; the copy is the machine, and its epoch the record's."""
        if is_new_life:
            self._drop_resize(turn)
            self._start_as(copy_size)
        elif copy_size != self._size_held:
            self._hold(self._size_held, turn)

    # ------------------------------------------------------------------ a change begins

    def _is_reserving(self) -> bool:
        return self.record.resize is not None and self.record.resize.phase == "reserving"

    def _resize_refusal(self) -> str | None:
        """Rule 4: why neither another change nor a migration may begin."""
        resize = self.record.resize
        if resize is None:
            return None
        if resize.phase == "unknown":
            return f"what came of its {resize.verb} is not known yet, and its host is asked; try again later"
        return f"its {resize.verb} is under way; wait for its end"

    def _begin_resize(self, message: m.TaskVm, after: Size, turn: Turn) -> None:
        """The task is awaited already. Rule 1."""
        record, command = self.record, message.command
        grows = after.exceeds(self._size)
        if after != self._size:
            record.resize = Resize(
                message.operation_id,
                command.verb,
                dict(command.arguments),
                "reserving" if grows else "asked",
                after.vcpus,
                after.memory_bytes,
            )
            turn.save(record)
        if grows:
            ask = m.ResizeVm(record.id, record.epoch, after.vcpus, after.memory_bytes, message.operation_id)
            turn.send(self.cluster, ask)
        else:
            self._order_task(message.operation_id, command.verb, command.arguments, turn)

    def _size_after(self, command: m.VmTask) -> Size:
        """Raises `OlvmError`."""
        return size_after(self._size, self.record.plugged_memory, command.verb, command.arguments)

    def _order_task(self, operation_id: str, verb: str, arguments: m.Arguments, turn: Turn) -> None:
        record = self.record
        assert record.agent is not None, f"{self.address} is {record.status} without a host"
        turn.send(record.agent, m.TaskDomain(record.id, record.epoch, operation_id, verb, arguments))

    def _on_resized(self, message: m.VmResized, turn: Turn) -> None:
        record, resize = self.record, self.record.resize
        if resize is None or not self._is_reserving():
            return  # its deadline came first, and what was reserved is given back behind it
        if (message.operation_id, message.epoch) != (resize.operation_id, record.epoch):
            return
        what = f"cannot {VM_TASKS[resize.verb].what} {record.name}"
        if message.refusal:
            record.resize = None
            reason = f"{what}: {message.refusal}; migrate it to a larger host, or others away"
            self._end_task(resize.operation_id, turn, False, reason, NoCapacity.code)
        elif record.agent is None or record.copy_phase or record.status not in VM_TASKS[resize.verb].statuses:
            self._resize_failed(turn)
            reason = f"{what}: it is {record.status.value} meanwhile, and nothing was done"
            self._end_task(resize.operation_id, turn, False, reason, OperationFailed.code)
        else:
            record.resize = msgspec.structs.replace(resize, phase="asked")
            turn.save(record)
            self._order_task(resize.operation_id, resize.verb, resize.arguments, turn)

    # ------------------------------------------------------------------ a change ends

    def _note_end_of_resize(self, message: m.TaskEnded, turn: Turn) -> None:
        """Also when that comes after the operation's deadline."""
        resize = self.record.resize
        if resize is None or message.operation_id != resize.operation_id:
            return
        if message.succeeded:
            self._resize_done(turn)
        elif message.outcome_known and message.code != "not_found":
            self._resize_failed(turn)
        else:  # a device that is not there may have gone by an earlier order
            self._doubt_size(turn)

    def _resize_deadline(self, operation_id: str, turn: Turn) -> None:
        resize = self.record.resize
        if resize is None or resize.operation_id != operation_id:
            return
        if resize.phase == "reserving":
            self._resize_failed(turn)
        else:
            self._doubt_size(turn)

    def _resize_done(self, turn: Turn) -> None:
        """Rule 6."""
        record, resize, before = self.record, self.record.resize, self._size
        assert resize is not None
        record.plugged_memory = plugged_after(record.plugged_memory, resize)
        record.now_vcpus, record.now_memory_bytes = resize.size
        if resize.verb == "set_vcpus":
            record.vcpus = resize.vcpus
        else:
            record.memory_bytes = resize.memory_bytes
        self._close_resize(turn)
        if before.exceeds(resize.size):
            self._hold(self._size, turn)
        has = f"has {resize.vcpus} vCPUs and {format_size(resize.memory_bytes)} now, and at its next start"
        self._say_configured("vm_updated", has, resize.operation_id, turn)

    def _resize_failed(self, turn: Turn) -> None:
        """It is as it was."""
        resize = self.record.resize
        assert resize is not None
        self._close_resize(turn)
        if resize.size.exceeds(self._size):
            self._hold(self._size, turn)

    def _close_resize(self, turn: Turn) -> None:
        self.record.resize = None
        turn.cancel_timer(self.record, "size")
        turn.save(self.record)

    # ------------------------------------------------------------------ doubt

    def _doubt_size(self, turn: Turn) -> None:
        """Rule 3."""
        resize = self.record.resize
        assert resize is not None
        if resize.phase == "asked":
            turn.sometimes("outcome_of_a_plug_is_not_known")
        self.record.resize = msgspec.structs.replace(resize, phase="unknown")
        self._ask_size(turn)

    def _ask_size(self, turn: Turn) -> None:
        record, resize = self.record, self.record.resize
        if resize is None or record.status is VmStatus.SUSPENDED:
            return
        turn.set_timer(record, "size", turn.config.query_period_s)
        if record.agent is not None and record.status in MEASURABLE:
            turn.send(record.agent, m.MeasureDomain(record.id, record.epoch, resize.operation_id))

    def _on_measured(self, message: m.DomainMeasured, turn: Turn) -> None:
        record, resize = self.record, self.record.resize
        if resize is None or resize.phase != "unknown" or message.epoch != record.epoch:
            return
        if message.operation_id != resize.operation_id:
            return
        done = was_done(self._size, resize.size, Size(message.vcpus, message.memory_bytes))
        turn.sometimes("plug_of_unknown_outcome_was_done" if done else "plug_of_unknown_outcome_was_not_done")
        if done:
            self._resize_done(turn)
        else:
            self._resize_failed(turn)

    # ------------------------------------------------------------------ its operation

    def _end_task(
        self, operation_id: str, turn: Turn, succeeded: bool, reason: str = "", code: str = ""
    ) -> None:
        """Without effect if it has ended."""
        record = self.record
        if record.tasks.pop(operation_id, None) is None:
            return
        turn.cancel_timer(record, TASK_TIMER + operation_id)
        turn.save(record)
        self._answer(operation_id, turn, succeeded, reason, code)
