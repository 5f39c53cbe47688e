"""A client's line to the engine: requests out, answers and pushes in, across restarts of the engine.

Every request may be sent twice: reads change nothing, and commands carry a client request id that the engine
recognises. So when the line breaks, the link connects again and sends what has not been answered.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import msgspec

from olvm.model import client_protocol as p
from olvm.model.errors import EngineUnreachable, WaitTimeout, from_wire
from olvm.model.messages import OperationView, Refusal
from olvm.model.socket_path import SOCKET_NAME, bound_path

LENGTH = struct.Struct(">I")
READ_BYTES = 1024 * 1024
Push = Callable[[OperationView], None]
Lost = Callable[[EngineUnreachable], None]


class Link(Protocol):
    on_push: Push
    on_lost: Lost

    def ask(self, ask: Any) -> Future[Any]:
        """Send a request; its future gets the answer, or raises what the engine refused it with."""

    def cancel(self, future: Future[Any]) -> None:
        """Nobody waits for this answer any more: what the engine does for it ends, where it can be ended."""

    def close(self) -> None: ...


def settle(future: Future[Any], body: object) -> None:
    if isinstance(body, Refusal):
        future.set_exception(from_wire(body.code, body.reason))
    else:
        future.set_result(body)


def _ignore_push(_: OperationView) -> None:
    """Until an OperationClient listens."""


def _ignore_loss(_: EngineUnreachable) -> None:
    """Likewise."""


class LocalLink:
    """To a gateway in this process: no socket, no encoding."""

    def __init__(self, gateway: Any) -> None:
        self.on_push: Push = _ignore_push
        self.on_lost: Lost = _ignore_loss
        self._gateway = gateway
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self.number = 0
        self._connection = gateway.connect(self._numbered)

    def _numbered(self, number: int) -> LocalLink:
        self.number = number
        return self

    def push(self, answer: p.Answer) -> None:
        if answer.number == 0:
            assert isinstance(answer.body, OperationView)
            self.on_push(answer.body)
            return
        future = self._waiting.pop(answer.number, None)
        if future is not None:
            settle(future, answer.body)

    def flush(self) -> None:
        """Nothing is buffered."""

    def ask(self, ask: Any) -> Future[Any]:
        number = next(self._numbers)
        future: Future[Any] = Future()
        self._waiting[number] = future
        self._gateway.handle(self._connection, p.Request(number, ask))
        return future

    def cancel(self, future: Future[Any]) -> None:
        number = next((number for number, one in list(self._waiting.items()) if one is future), None)
        if number is not None:
            del self._waiting[number]
            self._gateway.handle(self._connection, p.Request(next(self._numbers), p.Cancel(number)))

    def close(self) -> None:
        self._gateway.disconnect(self)
        for future in list(self._waiting.values()):
            future.cancel()


class SocketLink:
    """Over the Unix socket in a data center's directory."""

    def __init__(self, directory: Path, *, connect_timeout_s: float = 5.0, reconnect_s: float = 30.0) -> None:
        """`reconnect_s`: how long an engine may be away (it restarts in about 3 s) before requests fail."""
        self.on_push: Push = _ignore_push
        self.on_lost: Lost = _ignore_loss
        self._path = directory.resolve() / SOCKET_NAME
        self._reconnect_s = reconnect_s
        self._numbers = itertools.count(1)
        # number -> (frame, future): what has not been answered, in order, to be sent again after a break
        self._waiting: dict[int, tuple[bytes, Future[Any]]] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._watched: set[str] = set()
        self._encode = msgspec.msgpack.Encoder().encode
        self._socket: socket.socket | None = self._connect(connect_timeout_s)
        self._thread = threading.Thread(target=self._run, name="olvm-link", daemon=True)
        self._thread.start()

    def _connect(self, timeout_s: float) -> socket.socket:
        deadline = time.monotonic() + timeout_s
        while True:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                with bound_path(self._path) as address:
                    client.connect(address)
                return client
            except OSError as error:
                client.close()
                if time.monotonic() >= deadline or self._closed_now():
                    raise EngineUnreachable(
                        f"no engine answers at {self._path.parent} ({error.strerror or error}); "
                        "start it with `olvm up`, or name its directory with --directory"
                    ) from error
                time.sleep(0.1)

    def _closed_now(self) -> bool:
        return getattr(self, "_closed", False)

    # ------------------------------------------------------------------ out

    def ask(self, ask: Any) -> Future[Any]:
        number = next(self._numbers)
        data = self._encode(p.Request(number, ask))
        frame = LENGTH.pack(len(data)) + data
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise EngineUnreachable(f"the connection to {self._path.parent} is closed")
            self._waiting[number] = (frame, future)
            client = self._socket
        if client is not None:
            # The reader sees a break too, connects again and sends it.
            with contextlib.suppress(OSError):
                client.sendall(frame)
        return future

    def cancel(self, future: Future[Any]) -> None:
        with self._lock:
            number = next((number for number, (_, one) in self._waiting.items() if one is future), None)
            if number is None:
                return
            del self._waiting[number]
            client = self._socket
        data = self._encode(p.Request(next(self._numbers), p.Cancel(number)))
        if client is not None:
            with contextlib.suppress(OSError):  # a line that breaks cancels what was asked on it
                client.sendall(LENGTH.pack(len(data)) + data)

    # ------------------------------------------------------------------ in

    def _run(self) -> None:
        while not self._closed_now():
            client = self._socket
            assert client is not None
            self._read(client)
            client.close()
            if self._closed_now():
                return
            with self._lock:
                self._socket = None
            if not self._reconnect():
                return

    def _reconnect(self) -> bool:
        try:
            client = self._connect(self._reconnect_s)
        except EngineUnreachable as error:
            with self._lock:
                self._closed = True
                waiting, self._waiting = self._waiting, {}
            for _, future in waiting.values():
                future.set_exception(error)
            self.on_lost(error)
            return False
        with self._lock:
            self._socket = client
            again = [frame for frame, _ in self._waiting.values()]
            watched = list(self._watched)
        for frame in again:
            try:
                client.sendall(frame)
            except OSError:
                break
        for operation_id in watched:
            self.watch(operation_id)
        return True

    def watch(self, operation_id: str) -> None:
        """Have an operation's end pushed, also after the engine restarts."""
        self._watched.add(operation_id)

        def answered(future: Future[Any]) -> None:
            if future.exception() is None:
                view = future.result()
                if view.finished_ns is not None:
                    self._watched.discard(operation_id)
                    self.on_push(view)

        self.ask(p.Watch(operation_id)).add_done_callback(answered)

    def _read(self, client: socket.socket) -> None:
        buffer = bytearray()
        decoder = msgspec.msgpack.Decoder(p.Answer)
        while True:
            try:
                data = client.recv(READ_BYTES)
            except OSError:
                return
            if not data:
                return
            buffer += data
            start = 0
            while len(buffer) - start >= LENGTH.size:
                (size,) = LENGTH.unpack_from(buffer, start)
                end = start + LENGTH.size + size
                if len(buffer) < end:
                    break
                answer = decoder.decode(memoryview(buffer)[start + LENGTH.size : end])
                start = end
                self._take(answer)
            if start:
                del buffer[:start]

    def _take(self, answer: p.Answer) -> None:
        body = answer.body
        if answer.number == 0:
            if isinstance(body, OperationView):
                self._watched.discard(body.id)
                self.on_push(body)
            return
        with self._lock:
            entry = self._waiting.pop(answer.number, None)
        if entry is None:
            return  # the answer to a request that was sent twice
        if isinstance(body, OperationView) and body.finished_ns is None:
            self._watched.add(body.id)
        settle(entry[1], body)

    def close(self) -> None:
        self._closed = True
        client = self._socket
        if client is not None:
            with contextlib.suppress(OSError):  # it may be broken already
                client.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=5)


def result_of(future: Future[Any], timeout_s: float | None, what: str) -> Any:
    """The answer, or `WaitTimeout` naming what was waited for."""
    try:
        return future.result(timeout_s)
    except TimeoutError as error:
        raise WaitTimeout(f"{what}: no answer within {timeout_s:g} s") from error
