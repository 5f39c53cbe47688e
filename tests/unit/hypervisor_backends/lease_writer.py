"""A process that writes one machine's lease again and again, and prints each version that was acknowledged to it."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable
from pathlib import Path

from hypervisor_backends.file_leases import FileLeaseStore
from hypervisor_backends.leases import Holder, LeaseRead, LeaseResult, ReadLease, VmLease, WriteVmLease


def main(directory: str, host: str) -> None:
    posted: queue.Queue[Callable[[], None]] = queue.Queue()
    store = FileLeaseStore(Path(directory), host, posted.put)
    results: list[LeaseResult] = []
    version = 0
    while True:
        lease = VmLease(vm_id="v1", version=version, epoch=1, holders=(Holder(host, "b1", 1),))
        store.submit(WriteVmLease(lease=lease), results.append)
        posted.get()()
        answer = results.pop()
        if not isinstance(answer, LeaseRead):
            store.submit(ReadLease(vm_id="v1"), results.append)
            posted.get()()
            answer = results.pop()
            assert isinstance(answer, LeaseRead), answer
            version = 0 if answer.vm is None else answer.vm.version
            continue
        assert answer.vm is not None
        version = answer.vm.version
        print(version, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
