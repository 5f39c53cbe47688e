"""libvirt's event loop, and its callbacks as plain values.

One thread a process runs the loop: libvirt allows no second one. Decides which callbacks are asked for and what is kept
of each. Nothing here calls libvirt back: a callback runs on the loop's thread, and whoever waits there stops the events
and keepalives of all connections. So each is turned into a value and handed to `tell`, which must not block.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Literal, TypeAlias

import libvirt
import msgspec

from hypervisor_backends.libvirt_kept_errors import keep_errors

log = logging.getLogger("olvm.libvirt")

EventName = Literal["lifecycle", "reboot", "io_error", "watchdog", "agent", "job_completed"]


class LibvirtEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`event` and `detail` are libvirt's numbers; `reason` is what an I/O error or a watchdog says."""

    name: EventName
    uuid: str
    event: int = 0
    detail: int = 0
    reason: str = ""
    numbers: dict[str, int] = {}  # of a completed job


Tell: TypeAlias = Callable[[LibvirtEvent], None]

_loop_lock = threading.Lock()
_loop_is_running: list[bool] = []  # holds one element once the loop was started


def start_event_loop() -> None:
    """Must run before the first connection is opened. Idempotent."""
    with _loop_lock:
        if _loop_is_running:
            return
        keep_errors()
        # libvirt prints each error to stderr otherwise, and every error is raised as well.
        libvirt.registerErrorHandler(_drop_error, None)
        libvirt.virEventRegisterDefaultImpl()
        # The loop sleeps for ever when it has nothing to wait for, and a timer added meanwhile must wake it.
        libvirt.virEventAddTimeout(1000, _tick, None)
        threading.Thread(target=_run_loop, name="libvirt-events", daemon=True).start()
        _loop_is_running.append(True)


def _drop_error(_context: object, _error: object) -> None:
    return None


def _tick(_timer: int, _opaque: object) -> None:
    return None


def _run_loop() -> None:
    while True:
        if libvirt.virEventRunDefaultImpl() < 0:
            log.error("libvirt's event loop reported an error")


class Subscription:
    """The callbacks of one connection. `cancel` may be called when the connection is lost."""

    def __init__(self, connection: libvirt.virConnect, tell: Tell) -> None:
        self._connection = connection
        self._tell = tell
        self._callbacks = self._register()

    def _register(self) -> list[int]:
        wanted = {
            "VIR_DOMAIN_EVENT_ID_LIFECYCLE": self._on_lifecycle,
            "VIR_DOMAIN_EVENT_ID_REBOOT": self._on_reboot,
            "VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON": self._on_io_error,
            "VIR_DOMAIN_EVENT_ID_WATCHDOG": self._on_watchdog,
            "VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE": self._on_agent,
            "VIR_DOMAIN_EVENT_ID_JOB_COMPLETED": self._on_job_completed,
        }
        callbacks = []
        for name, callback in wanted.items():
            number = getattr(libvirt, name)
            callbacks.append(self._connection.domainEventRegisterAny(None, number, callback, None))
        return callbacks

    def cancel(self) -> None:
        for callback in self._callbacks:
            try:
                self._connection.domainEventDeregisterAny(callback)
            except libvirt.libvirtError as error:
                log.debug("an event callback could not be taken back: %s", error)
        self._callbacks = []

    # Signatures are libvirt-python's; `domain` knows its UUID by itself.

    def _on_lifecycle(
        self, _connection: object, domain: libvirt.virDomain, event: int, detail: int, _o: object
    ) -> None:
        self._tell(LibvirtEvent(name="lifecycle", uuid=domain.UUIDString(), event=event, detail=detail))

    def _on_reboot(self, _connection: object, domain: libvirt.virDomain, _opaque: object) -> None:
        self._tell(LibvirtEvent(name="reboot", uuid=domain.UUIDString()))

    def _on_io_error(self, *told: object) -> None:
        _connection, domain, _path, alias, action, reason, _opaque = told
        assert isinstance(domain, libvirt.virDomain)
        assert isinstance(action, int)
        self._tell(
            LibvirtEvent(
                name="io_error", uuid=domain.UUIDString(), event=action, reason=f"{reason} of {alias}"
            )
        )

    def _on_watchdog(
        self, _connection: object, domain: libvirt.virDomain, action: int, _opaque: object
    ) -> None:
        self._tell(LibvirtEvent(name="watchdog", uuid=domain.UUIDString(), event=action))

    def _on_agent(
        self, _connection: object, domain: libvirt.virDomain, state: int, reason: int, _opaque: object
    ) -> None:
        self._tell(LibvirtEvent(name="agent", uuid=domain.UUIDString(), event=state, detail=reason))

    def _on_job_completed(
        self, _connection: object, domain: libvirt.virDomain, parameters: dict[str, object], _opaque: object
    ) -> None:
        numbers = {key: value for key, value in parameters.items() if isinstance(value, int)}
        self._tell(LibvirtEvent(name="job_completed", uuid=domain.UUIDString(), numbers=numbers))
