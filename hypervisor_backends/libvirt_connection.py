"""The connections of one host to its libvirt: one for events, and one for each call that is under way.

Decides that no two calls share a connection. A call that hangs behind a stopped QEMU would hold up the next one on its
connection: until the server's keepalive wakes the client (measured: 5 s a call), and past five such calls for ever, for
libvirtd reads no sixth of a client. A connection is opened in a few milliseconds and kept for the next call. A call
that waits for its QEMU also holds one of libvirtd's own workers (20 by default); nothing here can help a host where so
many hang.

Runs on workers: everything here may block.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import libvirt

from hypervisor_backends.libvirt_events import Subscription, Tell, start_event_loop
from hypervisor_backends.libvirt_settings import LibvirtSettings
from olvm.model.errors import OperationFailed

log = logging.getLogger("olvm.libvirt")

IDLE_MAX = 8


class Link:
    """Lives from one connect to the next loss. `on_closed` is called on libvirt's event thread, at most once."""

    def __init__(self, settings: LibvirtSettings, tell: Tell, on_closed: Callable[[Link], None]) -> None:
        """Raises libvirt's error; what was opened by then is closed."""
        self._settings = settings
        self._on_closed: Callable[[Link], None] | None = on_closed
        self._lock = threading.Lock()
        self._idle: list[libvirt.virConnect] = []
        self._is_open = True
        self._events = self._open()
        try:
            self._watch()
            self._subscription = Subscription(self._events, tell)
            self.driver: str = self._events.getType()
        except libvirt.libvirtError:
            _close(self._events)
            raise

    @contextmanager
    def borrowed(self) -> Iterator[libvirt.virConnect]:
        """A connection of the caller's own until it is done."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._open()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _give_back(self, connection: libvirt.virConnect) -> None:
        with self._lock:
            is_kept = self._is_open and len(self._idle) < IDLE_MAX
            if is_kept:
                self._idle.append(connection)
        if not is_kept:
            _close(connection)

    def close(self) -> None:
        """Never raises: what is closed may be lost already. Domains go on, and so do calls that are under way."""
        self._on_closed = None
        with self._lock:
            self._is_open = False
            idle, self._idle = self._idle, []
        self._subscription.cancel()
        for connection in (*idle, self._events):
            _close(connection)

    def _open(self) -> libvirt.virConnect:
        start_event_loop()
        connection = libvirt.open(self._settings.uri)
        with _unless_not_supported():
            connection.setKeepAlive(self._settings.keepalive_interval_s, self._settings.keepalive_count)
        return connection

    def _watch(self) -> None:
        with _unless_not_supported():
            self._events.registerCloseCallback(self._closed, None)

    def _closed(self, _connection: object, reason: int, _opaque: object) -> None:
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            log.warning("the connection to libvirt at %s was lost (reason %d)", self._settings.uri, reason)
            on_closed(self)


def _close(connection: libvirt.virConnect) -> None:
    try:
        connection.close()
    except libvirt.libvirtError as error:
        log.debug("a connection to libvirt could not be closed: %s", error)


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
