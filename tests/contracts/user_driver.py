"""A data center whose users set passwords and log on without end: started by test_users.py, which kills it.

python user_driver.py DIR PASSWORD      prints the id of each operation that was acknowledged
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
from pathlib import Path

from olvm.model.errors import Denied
from tests.contracts.fault_driver import lab


def main(directory: Path, password: str) -> None:
    logging.basicConfig(
        level=logging.DEBUG
    )  # whatever anybody would log goes to stderr, where the test looks
    with lab(directory) as dc:
        if not dc.users.list():
            prod = dc.clusters.create("prod")
            prod.hosts.add("kvm00", cpus=4, memory="16GiB")
            prod.vms.create("db", vcpus=1, memory="1GiB").start().wait(60)
            dc.users.create("alice", password=password)
            dc.users.create("bob", password=password)
        for _ in itertools.count():
            print(dc.users["bob"].set_password(password).id, flush=True)
            print(dc.vms["db"].log_on("alice", password).id, flush=True)
            with contextlib.suppress(Denied):
                dc.vms["db"].log_on("nobody", password)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
