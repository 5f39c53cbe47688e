"""The process behind `olvm up`: opens a data center and serves until it is told to stop.

    python -m olvm.cli.daemon DIRECTORY RUNTIME SETTINGS_JSON [READY_FD]

On READY_FD, if given, one `Readiness` is written when it serves or has failed to, and the descriptor is closed.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from olvm.api.data_center import DataCenter
from olvm.cli.background import Readiness, remove_pid, write_pid
from olvm.model.errors import OlvmError

log = logging.getLogger("olvm.daemon")


class Parent:
    """The `olvm up` that waits. It is told once; then the descriptor's number may belong to something else."""

    def __init__(self, ready_fd: int | None) -> None:
        self._fd = ready_fd
        if ready_fd is not None:
            os.set_inheritable(ready_fd, False)  # Ray's processes would hold it open

    @property
    def waits(self) -> bool:
        return self._fd is not None

    def tell(self, readiness: Readiness) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            os.write(fd, msgspec.json.encode(readiness))
        except BrokenPipeError:
            log.info("nobody waits for this start any more")
        finally:
            os.close(fd)


def main(arguments: list[str]) -> int:
    directory, runtime, settings = Path(arguments[0]), arguments[1], arguments[2]
    parent = Parent(int(arguments[3]) if len(arguments) > 3 else None)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        _serve(directory, runtime, msgspec.json.decode(settings, type=dict[str, Any]), parent)
    except OlvmError as error:
        if parent.waits:
            log.error("not started: %s", error.message)  # noqa: TRY400 - the message says it all
        else:
            print(f"olvm: {error.message}", file=sys.stderr)
        parent.tell(Readiness(code=error.code, message=error.message))
        return error.exit_code
    except Exception as fault:
        log.exception("ended by a fault")
        parent.tell(Readiness(code=OlvmError.code, message=f"the data center could not start: {fault!r}"))
        return 1
    return 0


def _serve(directory: Path, runtime: str, settings: dict[str, Any], parent: Parent) -> None:
    stopping = threading.Event()
    _stop_on_signal(stopping)
    world = cast("Literal['ray', 'local']", runtime)
    try:
        with DataCenter.open(directory, runtime=world, **settings) as dc:
            _stop_on_signal(stopping)  # again: Ray installs a handler of its own
            write_pid(directory)
            silos = len(dc.status().silos)
            log.info("serving %s on %s with %d silos", directory, runtime, silos)
            parent.tell(Readiness())
            stopping.wait()
            log.info("stopping")
    finally:
        remove_pid(directory)
    log.info("stopped")


def _stop_on_signal(stopping: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
