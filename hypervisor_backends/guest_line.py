"""One guest's socket: connecting, reading a share, and writing what fits. `GuestChannels` decides when.

Knows nothing of what is said. Not thread-safe: the reader's thread owns it.
"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable

from hypervisor_backends.guest_conversation import GuestConversation
from hypervisor_backends.guest_time import is_over
from olvm.model.limits import GUEST_OUT_BYTES_MAX

READ_BYTES = 32 * 1024  # of one guest in one round
FAILURES_QUICK = 5
AGAIN_QUICK_S = 1.0
AGAIN_SLOW_S = 30.0


class GuestLine:
    """A socket that is there or not, and the talk over it."""

    def __init__(
        self, vm_id: str, path: str, selector: selectors.BaseSelector, on_event: Callable[[str], None]
    ) -> None:
        self.vm_id = vm_id
        self.path = path
        self.is_up = False  # its guest was heard in this boot
        self.talk = GuestConversation(vm_id, self._say, on_event)
        self._selector = selector
        self._socket: socket.socket | None = None
        self._watched = 0  # what the selector was told of the socket
        self._out = b""
        self._failures = 0
        self._failed_ns = 0

    @property
    def is_connected(self) -> bool:
        return self._socket is not None

    @property
    def is_restless(self) -> bool:
        """Whether it has to be looked after soon, though nothing comes in."""
        return bool(self._out) or self.talk.waits

    def connect(self, now_ns: int) -> None:
        """If it is time to."""
        wait_s = AGAIN_QUICK_S if self._failures < FAILURES_QUICK else AGAIN_SLOW_S
        if self._socket is not None or (self._failures and not is_over(self._failed_ns, wait_s, now_ns)):
            return
        try:
            self._socket = _connected(self.path)
        except OSError:
            self._count_failure(now_ns)
            return
        self.talk.connected()
        self.settle(now_ns)

    def disconnect(self, now_ns: int) -> None:
        if self._socket is None:
            return
        if self._watched:
            self._selector.unregister(self._socket)
        self._socket.close()
        self._socket, self._watched, self._out = None, 0, b""
        self._count_failure(now_ns)

    def read(self, now_ns: int) -> bool:
        """One share. Whether anything came."""
        assert self._socket is not None
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.disconnect(now_ns)
            return False
        self._failures = 0
        self.talk.feed(data, now_ns)
        return True

    def settle(self, now_ns: int) -> None:
        """Write what can be written, and watch for what can be done next: a guest that talks too fast is not read."""
        self._flush(now_ns)
        if self._socket is None:
            return
        wanted = selectors.EVENT_READ if self.talk.may_read(now_ns) else 0
        if self._out:
            wanted |= selectors.EVENT_WRITE
        if wanted and not self._watched:
            self._selector.register(self._socket, wanted, self)
        elif not wanted and self._watched:
            self._selector.unregister(self._socket)
        elif wanted != self._watched:
            self._selector.modify(self._socket, wanted, self)
        self._watched = wanted

    def _say(self, data: bytes) -> bool:
        if self._socket is None or len(self._out) + len(data) > GUEST_OUT_BYTES_MAX:
            return False
        self._out += data
        return True

    def _flush(self, now_ns: int) -> None:
        try:
            while self._out and self._socket is not None:
                self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self.disconnect(now_ns)

    def _count_failure(self, now_ns: int) -> None:
        self._failures += 1
        self._failed_ns = now_ns


def _connected(path: str) -> socket.socket:
    """By way of the directory: libvirt's paths are longer than the 107 bytes that an address has room for."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.setblocking(False)
        line.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    except OSError:
        line.close()
        raise
    finally:
        os.close(directory)
    return line
