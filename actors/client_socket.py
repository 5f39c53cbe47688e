"""The gateway's door: a local Unix socket, owner only, that speaks frames of olvm.model.client_protocol.

A thread reads each client and another writes to it, so that a client that does not read holds up nobody else;
what waits for it is bounded, past the bound it is cut off and may connect again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
from collections import deque
from pathlib import Path

import msgspec

from actors.gateway import Connection, Gateway
from olvm.model.client_protocol import Answer, Request
from olvm.model.errors import BadInput
from olvm.model.limits import CLIENT_FRAME_BYTES_MAX, CLIENT_REQUESTS_IN_FLIGHT_MAX
from olvm.model.messages import Refusal
from olvm.model.socket_path import bound_path

log = logging.getLogger("olvm.socket")

LENGTH = struct.Struct(">I")
READ_BYTES = 256 * 1024


class SocketServer:
    """Serves `gateway` at `path` until closed."""

    def __init__(self, path: Path, gateway: Gateway) -> None:
        self._path = path
        self._gateway = gateway
        self._closing = False
        self._clients: set[_Client] = set()
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # of an engine that was killed: the journal's lock says that it is gone
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old_mask = os.umask(0o177)
        try:
            with bound_path(path) as address:
                self._listener.bind(address)
        finally:
            os.umask(old_mask)
        self._listener.listen(64)
        threading.Thread(target=self._accept, name="socket-accept", daemon=True).start()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            served = _Client(client, self._gateway, self._clients.discard)
            self._clients.add(served)
            served.start()

    def close(self) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        for client in list(self._clients):
            client.close()


class _Client:
    def __init__(self, connected: socket.socket, gateway: Gateway, on_end: object) -> None:
        self._socket = connected
        self._gateway = gateway
        self._on_end = on_end
        self._out: deque[Answer] = deque()
        self._wake = threading.Event()
        self._ended = False
        self.number = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._decoder = msgspec.msgpack.Decoder(Request)
        self._connection: Connection = gateway.connect(self._numbered)

    def _numbered(self, number: int) -> _Client:
        self.number = number
        return self

    def start(self) -> None:
        threading.Thread(target=self._read, name=f"client-{self.number}-in", daemon=True).start()
        threading.Thread(target=self._write, name=f"client-{self.number}-out", daemon=True).start()

    # ------------------------------------------------------------------ gateway's side

    def push(self, answer: Answer) -> None:
        if len(self._out) > CLIENT_REQUESTS_IN_FLIGHT_MAX:
            self.close()
            return
        self._out.append(answer)

    def flush(self) -> None:
        self._wake.set()

    def close(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._gateway.disconnect(self)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._wake.set()
        if callable(self._on_end):
            self._on_end(self)

    def _finish(self) -> None:
        """Both threads have seen the end by now, so that nobody uses a number that the system gives to another file."""
        self.close()
        self._socket.close()

    # ------------------------------------------------------------------ threads

    def _write(self) -> None:
        try:
            while not self._ended:
                self._wake.wait()
                self._wake.clear()
                parts: list[bytes] = []
                while self._out:
                    data = self._encode(self._out.popleft())
                    parts.append(LENGTH.pack(len(data)))
                    parts.append(data)
                if parts:
                    self._socket.sendall(b"".join(parts))
        except OSError:
            pass  # the client has gone, which `close` below makes known
        finally:
            self.close()

    def _read(self) -> None:
        buffer = bytearray()
        try:
            while not self._ended:
                data = self._socket.recv(READ_BYTES)
                if not data:
                    return
                buffer += data
                self._take_frames(buffer)
        except (OSError, BadInput, msgspec.DecodeError) as error:
            log.debug("client %d: %s", self.number, error)
            if not isinstance(error, OSError):
                self.push(Answer(0, Refusal(BadInput.code, f"the request could not be read: {error}")))
                self.flush()
        finally:
            self._wake.set()
            threading.Timer(0.5, self._finish).start()

    def _take_frames(self, buffer: bytearray) -> None:
        start = 0
        while len(buffer) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(buffer, start)
            if size > CLIENT_FRAME_BYTES_MAX:
                raise BadInput(f"a request of {size} bytes exceeds the limit of {CLIENT_FRAME_BYTES_MAX}")
            end = start + LENGTH.size + size
            if len(buffer) < end:
                break
            request = self._decoder.decode(memoryview(buffer)[start + LENGTH.size : end])
            start = end
            self._gateway.handle(self._connection, request)
        if start:
            del buffer[:start]
