"""The guests of a libvirt host, spoken to: the channels of their own agents, and QEMU's agent asked now and then.

Decides nothing of what is said. It puts the reader's thread and libvirt's workers behind the port `Guests`: whatever
comes from them is run on the owner's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import libvirt
import libvirt_qemu

from hypervisor_backends.guest_channels import GuestChannels
from hypervisor_backends.guest_values import Values
from hypervisor_backends.libvirt_book import Life
from hypervisor_backends.libvirt_host import LibvirtHost
from hypervisor_backends.measurements import GuestFacts
from hypervisor_backends.protocol import CallFailed, CallGuest, CallResult, Cancel, Done
from hypervisor_backends.qemu_guest_agent import (
    COMMAND_TIMEOUT_S,
    SOURCE,
    QemuGuestAgentPoller,
    command_json,
    facts_of,
    supported_of,
)
from hypervisor_backends.real_time import Post
from olvm.model.limits import NS_PER_S

log = logging.getLogger("olvm.libvirt")

POLL_PERIOD_S = 5.0
SHUTDOWN_TIMEOUT_S = 10.0
# Of all questions of one round to one machine; each has libvirt's own bound too.
ROUND_BUDGET_S = 30.0
LISTENING = ("powering_up", "up", "reboot_in_progress")
NOT_HEARD = ("guest_silent", "not_supported")

# After a move or a restore the line is new: the agent is heard with its next heartbeat, and says its version with the
# one after that. What is told of the move any later would be no news.
TELL_AFTER_S = 60.0

Answers = list[tuple[str, str]]  # command and answer


class _News(NamedTuple):
    """An event that a guest is to be told of, once it can be."""

    life: Life
    event: str
    failure: bool
    until_ns: int


class LibvirtGuests:
    """Implements `Guests`."""

    def __init__(self, host: LibvirtHost, post: Post) -> None:
        self._host = host
        self._post = post
        self._channels = GuestChannels(
            host.name,
            lambda vm_id: post(lambda: self._on_up(vm_id)),
            lambda vm_id, word: post(lambda: self._on_event(vm_id, word)),
            host.timers.now_ns,
        )
        self._poller = QemuGuestAgentPoller()
        self._asked: set[str] = set()  # machines whose agent has a round of questions under way
        self._connected: set[str] = set()  # those of them whose agent has come meanwhile
        self._news: dict[str, _News] = {}  # by machine: what is not told yet
        self._telling: set[str] = set()  # machines with news that are on the way
        self._timer: Cancel | None = None
        self._closed = False
        self._again()

    # ------------------------------------------------------------------ whom it listens to

    def opened(self, life: Life) -> None:
        self._channels.open(life.vm_id, self._host.settings.path_here(life.channel))
        self._poller.begin(life.vm_id, self._host.timers.now_ns())

    def closed(self, life: Life) -> None:
        self._channels.close_vm(life.vm_id)
        self._poller.end(life.vm_id)
        self._connected.discard(life.vm_id)
        self._news.pop(life.vm_id, None)

    def booting(self, life: Life) -> None:
        self._channels.booting(life.vm_id)
        self._news.pop(life.vm_id, None)
        self._poller.begin(life.vm_id, self._host.timers.now_ns())

    def qemu_agent_connected(self, life: Life) -> None:
        if life.vm_id in self._asked:
            self._connected.add(life.vm_id)
        else:
            self._ask_now(life)

    def speaks(self, vm_id: str) -> bool:
        return self._channels.speaks(vm_id)

    def facts(self, vm_id: str) -> GuestFacts | None:
        return self._channels.facts(vm_id)

    def _on_up(self, vm_id: str) -> None:
        life = self._host.book.lives.get(vm_id)
        if life is not None and not self._closed:
            self._host.book.guest_up(life)
            self._host.outbox.drain()
            self._tell_news(vm_id)

    def _on_event(self, vm_id: str, word: str) -> None:
        life = self._host.book.lives.get(vm_id)
        if life is not None and life.started_ns is not None and not self._closed:
            self._host.book.tell(life, "guest_event", word)
            self._host.outbox.drain()
            self._tell_news(vm_id)  # it may have said its version

    # ------------------------------------------------------------------ what it says

    def ask_shutdown(self, vm_id: str, message: str, *, reboot: bool) -> None:
        """As the protocol has it: the guest's own shutdown. Whoever asks looks whether it obeys."""
        said: dict[str, str | int] = {"timeout": 0, "message": message, "reboot": str(reboot)}
        self._channels.call(vm_id, "shutdown", said, SHUTDOWN_TIMEOUT_S, _ignore)

    def call(self, request: CallGuest, done: Done) -> None:
        def then(result: CallResult) -> None:
            self._post(lambda: self._answer(done, result))

        self._channels.call(request.vm_id, request.message, request.arguments, request.timeout_s, then)

    def _answer(self, done: Done, result: CallResult) -> None:
        self._host.answer(done, result)
        self._host.outbox.drain()

    # ------------------------------------------------------------------ before and after a move or a rest

    def prepare(self, life: Life, event: str, then: Callable[[], None]) -> None:
        def on_over(result: CallResult) -> None:
            if self._closed:
                return
            _log(life, event, result)
            then()
            self._host.outbox.drain()

        timeout_s = self._host.settings.guest_hooks_timeout_s
        self._channels.notify_lifecycle(
            life.vm_id, event, timeout_s, lambda result: self._post(lambda: on_over(result))
        )

    def tell_after(self, life: Life, event: str, *, failure: bool = False) -> None:
        until_ns = self._host.timers.now_ns() + int(TELL_AFTER_S * NS_PER_S)
        self._news[life.vm_id] = _News(life, event, failure, until_ns)
        self._tell_news(life.vm_id)

    def _tell_news(self, vm_id: str) -> None:
        news = self._news.get(vm_id)
        if news is None or vm_id in self._telling or self._closed:
            return
        if self._host.timers.now_ns() > news.until_ns:
            del self._news[vm_id]
            return
        self._telling.add(vm_id)
        timeout_s = self._host.settings.guest_hooks_timeout_s
        self._channels.notify_lifecycle(
            vm_id,
            news.event,
            timeout_s,
            lambda result: self._post(lambda: self._on_told(vm_id, news, result)),
            failure=news.failure,
        )

    def _on_told(self, vm_id: str, news: _News, result: CallResult) -> None:
        self._telling.discard(vm_id)
        is_heard = not (isinstance(result, CallFailed) and result.outcome_known and result.code in NOT_HEARD)
        if self._news.get(vm_id) is not news:
            self._tell_news(vm_id)  # what came in its place meanwhile
        elif is_heard:
            del self._news[vm_id]
            _log(news.life, news.event, result)

    # ------------------------------------------------------------------ QEMU's agent

    def _again(self) -> None:
        due_ns = self._host.timers.now_ns() + int(POLL_PERIOD_S * NS_PER_S)
        self._timer = self._host.timers.call_at(due_ns, self._tick)

    def _tick(self) -> None:
        if not self._closed:
            self.poll()
            self._again()

    def poll(self) -> None:
        for life in list(self._host.book.lives.values()):
            self._ask_if_due(life)

    def _ask_now(self, life: Life) -> None:
        self._poller.connected(life.vm_id, self._host.timers.now_ns())
        self._ask_if_due(life)

    def _ask_if_due(self, life: Life) -> None:
        listens = life.started_ns is not None and life.responds and life.shown() in LISTENING
        if not listens or life.vm_id in self._asked:
            return
        commands = self._poller.due(life.vm_id, self._host.timers.now_ns())
        if commands:
            self._asked.add(life.vm_id)
            work = self._host.bound(partial(_ask_all, uuid=life.uuid, commands=commands))
            done = partial(self._on_answers, life, life.rebooted_ns)
            self._host.workers.run(work, ROUND_BUDGET_S, done)

    def _on_answers(self, life: Life, rebooted_ns: int, result: object) -> None:
        self._asked.discard(life.vm_id)
        if self._closed or not self._host.book.is_present(life):
            return
        came = life.vm_id in self._connected
        self._connected.discard(life.vm_id)
        if rebooted_ns != life.rebooted_ns:  # whoever answered, or did not, was of the boot before
            self._ask_now(life)
            return
        if not isinstance(result, list) or not result:
            self._poller.failed(life.vm_id, self._host.timers.now_ns())
            if came:
                self._ask_now(life)
            return
        version = ""
        for command, answer in result:
            values = Values()
            told, said = facts_of(command, answer, values)
            version = said or version
            if command == "guest-info":
                self._poller.supports(life.vm_id, supported_of(answer))
            agent = f"{SOURCE} {version}".strip()
            self._channels.take(life.vm_id, SOURCE, told, agent if version else "", values.refused_count)
        self._host.book.guest_up(life)  # an agent spoke: it has booted
        self._host.outbox.drain()

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer()
        self._channels.close()


def _ask_all(connection: libvirt.virConnect, *, uuid: str, commands: list[str]) -> Answers:
    """On a worker. An agent that is not there fails its first question, and is not asked the others."""
    domain = connection.lookupByUUIDString(uuid)
    answers: Answers = []
    for command in commands:
        try:
            said = libvirt_qemu.qemuAgentCommand(domain, command_json(command), COMMAND_TIMEOUT_S, 0)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_INTERNAL_ERROR and answers:
                continue  # it knows no such question; others it does
            if not answers:
                raise
            break
        answers.append((command, said))
    return answers


def _log(life: Life, event: str, result: CallResult) -> None:
    """Hooks are the guest's affair, and what goes wrong with them stops nothing here."""
    if isinstance(result, CallFailed):
        log.info("machine %s: its guest's hooks of %s: %s", life.spec.name, event, result.message)


def _ignore(_: CallResult) -> None:
    """Whether the guest obeys is seen by whether it ends."""
