"""Bytes of memory per machine's actor: a silo with many against an empty one. JSON lines.

A fresh process recovers a VM silo from its journal, lets every actor take its first turn, closes the journal (whose
cache DuckDB bounds by itself, whatever the number of machines) and returns free memory; what is resident then is the
actors, their records and the silo. `--recover N PATH` is that process.

python benchmarks/bench_memory.py [--vms 20000]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import Teller

from actors.assembly import cast_of, record_types
from actors.silo import Silo
from olvm.journal.duckdb_journal import DuckDbJournal
from olvm.journal.port import Batch
from olvm.model.config import Config
from olvm.model.records import VmRecord
from olvm.model.vm_states import VmStatus


def open_journal(path: Path) -> DuckDbJournal:
    return DuckDbJournal.open(path, record_types("vm"), journal_id="bench", now_ns=lambda: 1)


def write(path: Path, vm_count: int) -> None:
    """A journal of machines that run, with texts as long as real ones."""
    journal = open_journal(path)
    batch = Batch()
    for number in range(vm_count):
        digest = f"{number:032x}"
        batch.save(
            VmRecord(
                id=f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}",
                name=f"machine-{number:06}",
                cluster="production",
                vcpus=4,
                memory_bytes=8 << 30,
                status=VmStatus.UP,
                host=f"kvm{number % 40:02}",
                agent=f"agent/kvm{number % 40:02}@host-1",
                epoch=1,
                silo="vms-1",
                seen_host_epoch=1,
                seen_seq=number,
                created_ns=1_700_000_000_000_000_000 + number,
                started_ns=1_700_000_001_000_000_000 + number,
                status_since_ns=1_700_000_001_000_000_000 + number,
            )
        )
    journal.commit(batch)
    journal.close()


def recover(path: Path) -> int:
    """Resident bytes of a recovered silo."""
    journal = open_journal(path)
    silo = Silo(
        "vms-1", journal, cast_of("vm"), Config(), clock_ns=lambda: 2_000_000_000, transmit=lambda _, __: None
    )
    while silo.has_work:
        silo.run_batch()
    actors = silo.actor_count()
    journal.close()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    assert silo.actor_count() == actors
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vms", type=int, default=20_000)
    parser.add_argument("--recover", type=Path)
    arguments = parser.parse_args()
    if arguments.recover is not None:
        print(recover(arguments.recover))
        return
    teller = Teller("memory", {"vms": arguments.vms})
    resident: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="olvm-bench-") as directory:
        for vm_count in (0, arguments.vms):
            path = Path(directory) / f"vms-{vm_count}.duckdb"
            write(path, vm_count)
            command = [sys.executable, __file__, "--recover", str(path)]
            resident[vm_count] = int(subprocess.run(command, check=True, capture_output=True).stdout)
    teller.tell("silo_rss_empty", resident[0], "bytes")
    teller.tell("silo_rss_full", resident[arguments.vms], "bytes")
    teller.tell("rss_per_vm_actor", (resident[arguments.vms] - resident[0]) / arguments.vms, "bytes")


if __name__ == "__main__":
    main()
