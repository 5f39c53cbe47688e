"""A process that writes a journal until something stops it: started by test_duckdb_crash.py.

python journal_writer.py endless FILE SEED   commit for ever, printing the last turn after each commit
python journal_writer.py full FILE           commit against a limit of the file size, then without it, then die
python journal_writer.py hold FILE           open, say so, wait for the end of standard input
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys

from olvm.journal.duckdb_journal import DuckDbJournal
from olvm.journal.port import Outgoing
from olvm.model.errors import JournalUnwritable
from tests.contracts.journal_world import RECORDS, Happening, Machine, batch


def open_journal(path: str, *, checkpoint_wal_bytes: int) -> DuckDbJournal:
    return DuckDbJournal.open(
        path,
        RECORDS,
        journal_id="w",
        now_ns=lambda: 0,
        journal_rows_max=300,
        checkpoint_wal_bytes=checkpoint_wal_bytes,
        outbox_garbage_max=20,
    )


def endless(path: str, seed: int) -> None:
    """Batch n saves and erases machines, and sends one message whose number is the batch's last turn."""
    journal = open_journal(path, checkpoint_wal_bytes=100_000)
    draw = random.Random(seed)
    recovered = journal.recover()
    sent = max([0, recovered.acknowledged.get("d", 0), *(one.seq for one in recovered.outgoing)])
    while True:
        last_seq = journal.position().seq
        size = draw.choice([0, draw.randint(1, 30)])
        saved = [Machine(id=str(draw.randrange(50)), memory_bytes=last_seq) for _ in range(size)]
        # The last turn of every batch is this row: a batch is there as a whole, or not at all. Alone, it is updated.
        saved = [*{one.id: one for one in saved}.values(), Machine(id="last", memory_bytes=last_seq)]
        one = batch(last_seq, saved=saved, erased=[(Machine, str(100 + draw.randrange(50)))])
        sent += 1
        one.outgoing.append(Outgoing("d", sent, str(one.turns[-1].seq).encode()))
        one.acknowledged["d"] = max(0, sent - 5)
        one.save(Happening(id=f"h{sent}", seq=sent))
        journal.commit(one)
        print(one.turns[-1].seq, flush=True)
        journal.maintain()


def full(path: str) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = open_journal(path, checkpoint_wal_bytes=1_000_000_000)
    journal.commit(batch(0, saved=[Machine(id="before")]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, -1))
    refused = 0
    for n in range(20):
        try:
            journal.commit(batch(journal.position().seq, saved=[Machine(id=f"big{n}", name="x" * 200_000)]))
        except JournalUnwritable:
            refused += 1
    in_file = journal.query("select count(*) from machines").rows[0][0]
    print(refused, journal.position().seq, in_file, flush=True)
    for n in range(3):
        journal.commit(batch(journal.position().seq, saved=[Machine(id=f"small{n}")]))
    # A checkpoint that finds the disk full too, and a commit after it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, -1))
    journal._checkpoint_wal_bytes = 1
    try:
        journal.maintain()
        print("checkpointed", flush=True)
    except JournalUnwritable as error:
        print("refused", error, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    journal.commit(batch(journal.position().seq, saved=[Machine(id="after")]))
    print(journal.position().seq, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def hold(path: str) -> None:
    journal = open_journal(path, checkpoint_wal_bytes=1_000_000)
    print(os.getpid(), flush=True)
    sys.stdin.read()
    journal.close()


if __name__ == "__main__":
    if sys.argv[1] == "endless":
        endless(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "full":
        full(sys.argv[2])
    else:
        hold(sys.argv[2])
