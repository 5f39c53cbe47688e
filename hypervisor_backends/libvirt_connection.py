"""The connections of one host to its libvirt.

Decides which calls share one. libvirtd serves five calls of a client at once and reads no sixth, so calls that hang
behind stopped QEMUs would stop all others on their connection: machines' calls, urgent ones (an end must go through)
and polls have one each, and the first and the last are replaced when too many hang there. A call that waits for its
QEMU also holds one of libvirtd's own workers (20 by default); nothing here can help a host where so many hang.

Runs on workers: every function here may block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import libvirt

from hypervisor_backends.libvirt_events import Subscription, Tell, start_event_loop
from hypervisor_backends.libvirt_settings import LibvirtSettings
from olvm.model.errors import OperationFailed

log = logging.getLogger("olvm.libvirt")

STUCK_MAX = 3  # of libvirtd's max_client_requests = 5


class Link:
    """Lives from one connect to the next loss. `on_closed` is called on libvirt's event thread, at most once."""

    def __init__(self, settings: LibvirtSettings, tell: Tell, on_closed: Callable[[Link], None]) -> None:
        """Raises libvirt's error; what was opened by then is closed."""
        self._settings = settings
        self._on_closed: Callable[[Link], None] | None = on_closed
        self._opened: list[libvirt.virConnect] = []
        try:
            self.events = self._open()
            self._watch()
            self.calls = self._open()
            self.urgent = self._open()
            self.polls = self._open()
            self.subscription = Subscription(self.events, tell)
        except libvirt.libvirtError:
            self.close()
            raise
        self.driver: str = self.calls.getType()

    def renew(self) -> None:
        """Other connections for calls and polls; those that hang keep the old ones until they return."""
        calls, polls = self._open(), self._open()
        self.calls, self.polls = calls, polls

    def close(self) -> None:
        """Never raises: what is closed may be lost already. Domains go on."""
        self._on_closed = None
        subscription = getattr(self, "subscription", None)
        if subscription is not None:
            subscription.cancel()
        for connection in self._opened:
            try:
                connection.close()
            except libvirt.libvirtError as error:
                log.debug("a connection to %s could not be closed: %s", self._settings.uri, error)
        self._opened = []

    def _open(self) -> libvirt.virConnect:
        start_event_loop()
        connection = libvirt.open(self._settings.uri)
        self._opened.append(connection)
        with _unless_not_supported():
            connection.setKeepAlive(self._settings.keepalive_interval_s, self._settings.keepalive_count)
        return connection

    def _watch(self) -> None:
        with _unless_not_supported():
            self.events.registerCloseCallback(self._closed, None)

    def _closed(self, _connection: object, reason: int, _opaque: object) -> None:
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            log.warning("the connection to libvirt at %s was lost (reason %d)", self._settings.uri, reason)
            on_closed(self)


@contextmanager
def _unless_not_supported() -> Iterator[None]:
    """A driver inside this process has no connection that could be lost."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise


def open_link(settings: LibvirtSettings, tell: Tell, on_closed: Callable[[Link], None]) -> Link:
    """Raises `OperationFailed`, which says what to do."""
    try:
        return Link(settings, tell, on_closed)
    except libvirt.libvirtError as error:
        raise OperationFailed(
            f"libvirt at {settings.uri} cannot be reached: {error}; see that libvirtd runs and that this user may "
            "use it (`olvm host check` says what is missing)"
        ) from error
