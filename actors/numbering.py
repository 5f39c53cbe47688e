"""How a silo numbers its turns and events, and names its messages and whatever its actors make.

Decides that names are unique, and the same when a run is repeated: they follow from the journal's id and counters
alone. Must not know a clock or a random source, nor what is named.
"""

from __future__ import annotations

import hashlib

from olvm.journal.port import Recovered
from olvm.model.records import EventRecord


class Numbering:
    """Goes on where the journal ended: a number that was not committed is given again."""

    __slots__ = ("_event_seq", "_id_base", "_id_count", "_id_prefix", "_silo", "turn_seq")

    def __init__(self, silo: str, recovered: Recovered) -> None:
        self._silo = silo
        self.turn_seq = recovered.next_turn_seq  # of the turn that is journalled next
        self._event_seq = recovered.next_event_seq
        self._id_base = hashlib.blake2b(recovered.journal_id.encode(), digest_size=8).hexdigest()
        self._number_ids()

    def _number_ids(self) -> None:
        """Ids count from one again in each journalled turn."""
        self._id_prefix = f"{self._silo}-{self.turn_seq}-"
        self._id_count = 0

    def message_id(self) -> str:
        self._id_count += 1
        return f"{self._id_prefix}{self._id_count}"

    def new_id(self) -> str:
        """An id in the form of a UUID, unique and reproducible: a digest of this journal's id and a counter."""
        self._id_count += 1
        seed = f"{self._id_base}/{self.turn_seq}/{self._id_count}".encode()
        digest = hashlib.blake2b(seed, digest_size=16).hexdigest()
        return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"

    def number_event(self, event: EventRecord) -> None:
        event.seq = self._event_seq
        event.id = f"{self._silo}-{self._event_seq}"
        self._event_seq += 1

    def end_turn(self) -> None:
        """A turn was journalled under `turn_seq`."""
        self.turn_seq += 1
        self._number_ids()
