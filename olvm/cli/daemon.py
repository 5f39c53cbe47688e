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


def main(arguments: list[str]) -> int:
    directory, runtime, settings = Path(arguments[0]), arguments[1], arguments[2]
    ready_fd = int(arguments[3]) if len(arguments) > 3 else -1
    if ready_fd >= 0:
        os.set_inheritable(ready_fd, False)  # noqa: FBT003 - Ray's processes would hold it open
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return _serve(directory, runtime, msgspec.json.decode(settings, type=dict[str, Any]), ready_fd)
    except OlvmError as error:
        if ready_fd < 0:
            print(f"olvm: {error.message}", file=sys.stderr)
        log.error("not started: %s", error.message)  # noqa: TRY400 - the message says it all
        _tell(ready_fd, Readiness(code=error.code, message=error.message))
        return error.exit_code
    except Exception as fault:
        log.exception("ended by a fault")
        _tell(ready_fd, Readiness(code=OlvmError.code, message=f"the data center could not start: {fault!r}"))
        return 1


def _serve(directory: Path, runtime: str, settings: dict[str, Any], ready_fd: int) -> int:
    stopping = threading.Event()
    _stop_on_signal(stopping)
    world = cast("Literal['ray', 'local']", runtime)
    with DataCenter.open(directory, runtime=world, **settings) as dc:
        _stop_on_signal(stopping)  # again: Ray installs a handler of its own
        write_pid(directory)
        try:
            epoch = dc.status().engine_epoch
            log.info("serving %s on %s, engine epoch %d", directory, runtime, epoch)
            _tell(ready_fd, Readiness())
            stopping.wait()
            log.info("stopping")
        finally:
            remove_pid(directory)
    log.info("stopped")
    return 0


def _stop_on_signal(stopping: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())


def _tell(ready_fd: int, readiness: Readiness) -> None:
    """Write to the parent that waits; a parent that has gone does not matter."""
    if ready_fd < 0:
        return
    try:
        os.write(ready_fd, msgspec.json.encode(readiness))
        os.close(ready_fd)
    except OSError:
        log.debug("nobody waits for this start")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
