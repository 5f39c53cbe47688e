"""Tasks as a host carries them out: to its hypervisor, and back. Nothing of them is kept but the hardware they leave.

An agent that is restarted in the middle of a task does not know of it any more; the engine's deadline does.

Rules:
1. A logon must not come late: a host that was cut off may hear of it when nobody waits any more, and the terminal has
   somebody else before it. So it asks whether it is still wanted, and begins only if the answer is back in
   TASK_WANTED_S_MAX by its own clock: no two clocks are compared.
2. How large a machine is, is answered only when no task of it that changes that is under way, or when one has
   been for so long that no hypervisor still works on it: then what the hypervisor lists stays so.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import Turn
from actors.host_agent_domains import HYPERVISOR, DomainBook
from actors.host_agent_starts import Found
from actors.hypervisor_port import OpenTicket
from actors.task_requests import domain_request, host_request
from hypervisor_backends.protocol import ListDomains
from olvm.model import messages as m
from olvm.model.errors import OlvmError
from olvm.model.limits import NS_PER_S, SIZE_TASK_S_MAX, TASK_WANTED_S_MAX
from olvm.model.vm_sizes import SIZE_TASKS
from olvm.model.vm_states import VmStatus
from olvm.model.vm_tasks import VM_TASKS, hardware_after


class AgentTasks:
    def __init__(self, book: DomainBook) -> None:
        self.book = book
        # By operation: who asked, what, and since when.
        self.under_way: dict[str, tuple[str, m.TaskDomain | None, int]] = {}
        self.doubted: dict[
            str, tuple[m.TaskDomain, int]
        ] = {}  # by operation: asked whether it is wanted, and when

    def restart(self) -> None:
        self.under_way = {}
        self.doubted = {}

    # ------------------------------------------------------------------ begin

    def of_domain(self, message: m.TaskDomain, turn: Turn) -> None:
        if not self._is_refused(message, turn):
            rule = VM_TASKS.get(message.verb)
            if rule is not None and rule.must_be_fresh:
                self.doubted[message.operation_id] = (message, turn.now_ns)
                turn.send(turn.sender, m.AskTask(message.operation_id))
            else:
                self._begin(message, turn)

    def on_wanted(self, message: m.TaskWanted, turn: Turn) -> None:
        task, asked_ns = self.doubted.pop(message.operation_id, (None, 0))
        if task is None or not message.wanted:
            return
        waited_s = (turn.now_ns - asked_ns) / NS_PER_S
        if 0 <= waited_s <= TASK_WANTED_S_MAX:
            if not self._is_refused(task, turn):
                self._begin(task, turn)
            return
        reason = (
            f"host {self.book.host} heard too late ({waited_s:.0f} s) that it is wanted; nothing was done"
        )
        turn.send(turn.sender, m.TaskEnded(self.book.host, task.operation_id, False, reason))

    def _is_refused(self, message: m.TaskDomain, turn: Turn) -> bool:
        domain = self.book.domains.get(message.vm_id)
        refusal = ""
        if domain is None or domain.forgotten or domain.status is VmStatus.DOWN:
            refusal = f"host {self.book.host} has no machine {message.vm_id}"
        elif domain.epoch != message.epoch:
            refusal = f"host {self.book.host} has epoch {domain.epoch} of {domain.name}, not {message.epoch}"
        elif not self.book.is_open:
            refusal = f"the agent of host {self.book.host} is still starting; try again"
        if refusal:
            turn.send(turn.sender, m.TaskEnded(self.book.host, message.operation_id, False, refusal))
        return bool(refusal)

    def _begin(self, message: m.TaskDomain, turn: Turn) -> None:
        try:
            request = domain_request(message.vm_id, message.verb, message.arguments)
        except OlvmError as error:  # an engine of another version
            self._refuse(message.operation_id, error, turn)
            return
        self.under_way[message.operation_id] = (turn.sender, message, turn.now_ns)
        turn.call(HYPERVISOR, request, f"task/{message.operation_id}")

    def of_host(self, message: m.TaskOfHost, turn: Turn) -> None:
        try:
            request = host_request(message.verb, message.arguments)
        except OlvmError as error:
            self._refuse(message.operation_id, error, turn)
            return
        self.under_way[message.operation_id] = (turn.sender, None, turn.now_ns)
        turn.call(HYPERVISOR, request, f"task/{message.operation_id}")

    def _refuse(self, operation_id: str, error: OlvmError, turn: Turn) -> None:
        turn.send(turn.sender, m.TaskEnded(self.book.host, operation_id, False, error.message, error.code))

    def open_console(self, message: m.OpenConsole, turn: Turn) -> None:
        domain = self.book.domains.get(message.vm_id)
        if domain is None or domain.epoch != message.epoch or not self.book.is_open:
            reason = f"host {self.book.host} does not run that machine now; try again"
            turn.tell("engine", m.PassOn(message.reply_to, m.Refusal("conflict", reason)))
            return
        turn.call(HYPERVISOR, OpenTicket(message.vm_id, message.valid_s), f"console/{message.reply_to}")

    # ------------------------------------------------------------------ end

    def on_ended(self, message: m.CallEnded, turn: Turn) -> None:
        operation_id = message.tag.partition("/")[2]
        asked = self.under_way.pop(operation_id, None)
        if asked is None:
            return
        to, task, _ = asked
        result = ""
        if message.ok:
            result = message.value.decode()
            if task is not None:
                result = self._keep(task, turn) or result
        reason = "" if message.ok else message.value.decode()
        turn.send(
            to,
            m.TaskEnded(
                self.book.host, operation_id, message.ok, reason, message.code, message.outcome_known, result
            ),
        )

    def _keep(self, task: m.TaskDomain, turn: Turn) -> str:
        """The hardware of the copy as it is now; told to the machine as what was done."""
        domain = self.book.domains.get(task.vm_id)
        if VM_TASKS[task.verb].change is None:
            return ""
        if domain is not None and domain.epoch == task.epoch:
            domain.hardware = hardware_after(domain.hardware, task.verb, task.arguments)
            turn.save(domain)
        return "hardware/" + msgspec.json.encode((task.verb, task.arguments)).decode()

    # ------------------------------------------------------------------ sizes

    def measure(self, message: m.MeasureDomain, turn: Turn) -> None:
        """No answer: it is asked again."""
        domain = self.book.domains.get(message.vm_id)
        if domain is None or domain.epoch != message.epoch or domain.forgotten or not self.book.is_open:
            return
        since_ns = turn.now_ns - SIZE_TASK_S_MAX * NS_PER_S
        for _, task, begun_ns in self.under_way.values():
            is_of_it = task is not None and task.vm_id == message.vm_id and task.verb in SIZE_TASKS
            if is_of_it and begun_ns > since_ns:
                return
        tag = f"measure/{message.vm_id}/{message.epoch}/{message.operation_id}"
        turn.call(HYPERVISOR, ListDomains(), tag)

    def on_measured(self, message: m.CallEnded, turn: Turn) -> None:
        vm_id, epoch, operation_id = message.tag.split("/", 3)[1:]
        domain = self.book.domains.get(vm_id)
        if not message.ok or domain is None or domain.epoch != int(epoch):
            return
        found = msgspec.msgpack.decode(message.value, type=Found).get(vm_id)
        if found is not None and found.epoch == domain.epoch and found.size_known:
            measured = m.DomainMeasured(
                self.book.host, found.epoch, operation_id, found.vcpus, found.memory_bytes
            )
            turn.send(domain.vm_address, measured)

    def on_console(self, message: m.CallEnded, turn: Turn) -> None:
        reply_to = message.tag.partition("/")[2]
        body: m.ConsoleTicket | m.Refusal
        if message.ok:
            body = msgspec.msgpack.decode(message.value, type=m.ConsoleTicket)
        else:
            body = m.Refusal(message.code or "conflict", message.value.decode())
        turn.tell("engine", m.PassOn(reply_to, body))
