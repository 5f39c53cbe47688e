"""A durable operation, as a driver script holds it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import msgspec

from olvm.api.link import Link, result_of
from olvm.model import client_protocol as p
from olvm.model.errors import EngineUnreachable, OperationFailed, WaitTimeout, from_wire
from olvm.model.messages import OperationView

ACCEPT_TIMEOUT_S = 120.0


class Operation:
    """What a command returned. It goes on whether or not anybody waits for it, and it can be waited for from
    another process by its `id`."""

    def __init__(self, client: OperationClient, accepted: Future[Any], what: str) -> None:
        self._client = client
        self._accepted = accepted
        self._what = what
        self._ended = threading.Event()
        self._view: OperationView | None = None
        self._lost: EngineUnreachable | None = None
        accepted.add_done_callback(self._on_accepted)

    def _on_accepted(self, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._client.adopt(self, future.result())

    def take(self, view: OperationView) -> None:
        """New word of the operation; called by the client."""
        if self._view is None or view.finished_ns is not None:
            self._view = view
        if view.finished_ns is not None:
            self._ended.set()

    def lose(self, error: EngineUnreachable) -> None:
        """The engine has been away for too long; called by the client. The operation itself goes on."""
        self._lost = error
        self._ended.set()

    def accepted(self, timeout: float | None = ACCEPT_TIMEOUT_S) -> Operation:
        """Block until the engine has made the operation durable; raises what it was refused with."""
        result_of(self._accepted, timeout, self._what)
        return self

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def view(self) -> OperationView:
        """The operation as last heard; `refresh` asks."""
        accepted: OperationView = result_of(self._accepted, ACCEPT_TIMEOUT_S, self._what)
        # A future wakes its waiters before it calls back, so `take` may not have been called yet.
        return self._view or accepted

    @property
    def status(self) -> str:
        """accepted, running, succeeded or failed."""
        return self.view.status

    @property
    def done(self) -> bool:
        return self._ended.is_set() and self._lost is None

    @property
    def result(self) -> Any:
        """What a task answered, decoded; None if it answered nothing, or goes on."""
        text = self.view.result
        return msgspec.json.decode(text) if text else None

    @property
    def reason(self) -> str:
        return self.view.reason

    def refresh(self) -> OperationView:
        """Ask the engine how far the operation has come."""
        view: OperationView = result_of(self._client.link.ask(p.Watch(self.id)), ACCEPT_TIMEOUT_S, self._what)
        self._view = view
        self.take(view)
        return view

    def wait(self, timeout: float | None = None) -> Operation:
        """Block until the operation has ended.

        Args:
            timeout: seconds; None waits for ever. Every operation ends by its own deadline.

        Raises:
            WaitTimeout: it goes on.
            OperationFailed, Conflict, NoCapacity, …: it failed; the message is its reason.
        """
        self.accepted()
        if not self._ended.wait(timeout):
            raise WaitTimeout(f"{self._what}: still {self.view.status} after {timeout:g} s; it goes on")
        view = self.view
        if view.finished_ns is None and self._lost is not None:
            raise self._lost
        if view.status == "failed":
            error = from_wire(view.error_code or OperationFailed.code, view.reason)
            raise error
        return self

    def __repr__(self) -> str:
        view = self._view
        return f"<Operation {self._what}: {view.status if view else 'not accepted yet'}>"


class OperationClient:
    """Keeps the open operations of one connection and hands each its pushes."""

    def __init__(self, link: Link) -> None:
        self.link = link
        link.on_push = self._on_push
        link.on_lost = self._on_lost
        self._open: dict[str, list[Operation]] = {}
        self._early: dict[str, OperationView] = {}
        self._lock = threading.Lock()

    def adopt(self, operation: Operation, view: OperationView) -> None:
        with self._lock:
            early = self._early.pop(view.id, None)
            if view.finished_ns is None and early is None:
                operation.take(view)
                self._open.setdefault(view.id, []).append(operation)
                return
        operation.take(view)
        if early is not None:
            operation.take(early)

    def _on_push(self, view: OperationView) -> None:
        with self._lock:
            waiting = self._open.pop(view.id, None)
            if waiting is None:
                self._early[view.id] = view
                while len(self._early) > 10_000:
                    del self._early[next(iter(self._early))]
                return
        for operation in waiting:
            operation.take(view)

    def _on_lost(self, error: EngineUnreachable) -> None:
        for operation in self.pending():
            operation.lose(error)

    def pending(self) -> list[Operation]:
        with self._lock:
            return [operation for waiting in self._open.values() for operation in waiting]
