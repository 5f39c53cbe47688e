"""What a journal in memory does when its disk fails."""

from __future__ import annotations

import pytest

from olvm.journal.memory_disk import MemoryDisk
from olvm.journal.memory_journal import MemoryJournal
from olvm.journal.replay import verify
from olvm.model.errors import JournalCorrupt, JournalUnwritable
from tests.contracts.journal_world import RECORDS, Machine, batch


def journal_on(disk: MemoryDisk, journal_rows_max: int = 100) -> MemoryJournal:
    return MemoryJournal(RECORDS, journal_id="j", disk=disk, journal_rows_max=journal_rows_max)


def commit(journal: MemoryJournal, *ids: str) -> None:
    journal.commit(batch(journal.position().seq, saved=[Machine(id=one) for one in ids]))


def ids_on(disk: MemoryDisk) -> list[str]:
    journal = journal_on(disk)
    assert verify(journal) == []
    return sorted(journal.recover().records[Machine])


def test_committed_batch_survives_power_off() -> None:
    disk = MemoryDisk()
    commit(journal_on(disk), "a")
    disk.power_off()
    assert ids_on(disk) == ["a"]


@pytest.mark.parametrize(
    ("pending_kept", "is_torn", "left"),
    [
        (0, False, ["a"]),
        (0, True, ["a"]),
        (1, False, ["a", "b", "c"]),
        (1, True, ["a", "b", "c"]),
        (9, True, list("abcd")),
    ],
)
def test_power_off_with_lost_syncs_leaves_a_whole_prefix(
    pending_kept: int, is_torn: bool, left: list[str]
) -> None:
    disk = MemoryDisk()
    journal = journal_on(disk)
    commit(journal, "a")
    disk.loses_syncs = True
    commit(journal, "b", "c")
    commit(journal, "d")
    disk.power_off(pending_kept=pending_kept, is_torn=is_torn)
    assert ids_on(disk) == left
    commit(journal_on(disk), "z")
    disk.loses_syncs = False
    assert ids_on(disk) == [*left, "z"]


@pytest.mark.parametrize("fault", ["write_error_count", "sync_error_count"])
def test_io_error_leaves_nothing_and_the_next_commit_works(fault: str) -> None:
    disk = MemoryDisk()
    journal = journal_on(disk)
    commit(journal, "a")
    setattr(disk, fault, 1)
    with pytest.raises(JournalUnwritable, match="Input/output error"):
        commit(journal, "b")
    assert journal.position().seq == 1
    assert ids_on(disk) == ["a"]
    commit(journal, "b")
    disk.power_off()
    assert ids_on(disk) == ["a", "b"]


def test_full_disk_refuses_until_there_is_room() -> None:
    disk = MemoryDisk()
    journal = journal_on(disk)
    disk.capacity_bytes = disk.used_bytes + 400
    while disk.used_bytes + 200 < disk.capacity_bytes:
        commit(journal, str(journal.position().seq))
    with pytest.raises(JournalUnwritable, match="No space left"):
        commit(journal, *"abcdefgh")
    written = journal.position().seq
    assert 0 < written < 100
    assert len(ids_on(disk)) == written
    assert disk.used_bytes <= disk.capacity_bytes
    disk.capacity_bytes = None
    commit(journal, "later")
    assert len(ids_on(disk)) == written + 1


def test_disk_that_was_read_before_is_read_as_one_that_was_not() -> None:
    """What a reader made of the first frames is kept; nothing that happens to the disk may be missed by it."""
    disk = MemoryDisk()
    journal = journal_on(disk, journal_rows_max=4)

    def assert_read_alike() -> list[str]:
        unread = MemoryDisk()
        for payload in disk.payloads():
            assert payload is not None
            unread.write(payload)
        unread.sync()
        assert journal_on(disk).recover() == journal_on(unread).recover()
        return ids_on(disk)

    assert assert_read_alike() == []
    commit(journal, "a", "b")
    assert assert_read_alike() == ["a", "b"]
    commit(journal, "c")
    disk.loses_syncs = True
    commit(journal, "d")
    assert assert_read_alike() == list("abcd")
    disk.power_off()
    assert assert_read_alike() == list("abc")
    disk.loses_syncs = False
    journal = journal_on(disk, journal_rows_max=4)
    commit(journal, "e", "f")
    assert assert_read_alike() == list("abcef")
    assert journal.maintain()
    assert assert_read_alike() == list("abcef")


def test_journal_that_recovers_changes_nothing_for_the_next_reader() -> None:
    disk = MemoryDisk()
    journal = journal_on(disk)
    commit(journal, "a")
    early = journal_on(disk)
    commit(journal, "b")
    late = journal_on(disk)
    disk.wipe()
    commit(early, "x")  # its image is its own
    assert sorted(late.records(Machine)) == ["a", "b"]


def test_frame_that_was_read_and_is_damaged_since_is_noticed() -> None:
    disk = MemoryDisk()
    journal = journal_on(disk)
    commit(journal, "a")
    commit(journal, "b")
    assert ids_on(disk) == ["a", "b"]
    disk.corrupt(1)
    with pytest.raises(JournalCorrupt, match="frame 1 of 3"):
        journal_on(disk)


def test_full_disk_at_compaction_changes_nothing() -> None:
    disk = MemoryDisk()
    journal = journal_on(disk, journal_rows_max=4)
    commit(journal, *"abcdef")
    disk.capacity_bytes = disk.used_bytes
    with pytest.raises(JournalUnwritable):
        journal.maintain()
    assert journal.position().journal_rows == 6
    disk.capacity_bytes = None
    assert journal.maintain()
    assert journal.position().journal_rows == 2
    assert ids_on(disk) == list("abcdef")


def test_corrupt_last_frame_is_cut_and_an_earlier_one_refused() -> None:
    disk = MemoryDisk()
    journal = journal_on(disk)
    commit(journal, "a")
    commit(journal, "b")
    disk.corrupt(2)
    assert ids_on(disk) == ["a"]
    commit(journal_on(disk), "c")
    disk.corrupt(1)
    with pytest.raises(JournalCorrupt, match="frame 1 of 3"):
        journal_on(disk)


def test_wiped_disk_begins_a_new_journal() -> None:
    disk = MemoryDisk()
    commit(journal_on(disk), "a")
    disk.wipe()
    journal = MemoryJournal(RECORDS, journal_id="second", disk=disk)
    assert journal.recover().journal_id == "second"
    assert journal.recover().records[Machine] == {}


def test_sizes_of_the_disk_are_those_of_its_frames() -> None:
    disk = MemoryDisk()
    journal = journal_on(disk)
    commit(journal, "a")
    before = (disk.written_bytes, disk.sync_count)
    assert journal.position().file_bytes == disk.used_bytes == disk.written_bytes
    commit(journal, "b")
    assert disk.written_bytes > before[0]
    assert disk.sync_count == before[1] + 1
