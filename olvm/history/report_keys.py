"""What a report names, as keys: its host, its VMs and its texts.

Decides that they are looked up only when they have changed: a host's next report mostly names what its last one did.
"""

from __future__ import annotations

from typing import NamedTuple

from olvm.history.columns import KeyedBatch
from olvm.history.dictionary import TextKeys, VmKeys
from olvm.history.kinds import KIND_BY_NAME, SampleKindName
from olvm.history.samples import SampleBatch, split_rows


class _Named(NamedTuple):
    """What the last report of a host and kind named, and the keys of that."""

    row_count: int
    ids: str
    texts: str
    host_key: int
    vm_keys: bytes
    text_keys: tuple[bytes, ...]


class ReportKeys:
    def __init__(self) -> None:
        self.texts = TextKeys()
        self.vms = VmKeys()
        self._last: dict[tuple[SampleKindName, str], _Named] = {}

    def keyed(self, batch: SampleBatch) -> KeyedBatch:
        """`BadInput` if its identities or texts are not as many as its rows."""
        last = self._last.get((batch.kind, batch.host))
        if (
            last is None
            or last.row_count != batch.row_count
            or last.ids != batch.ids
            or last.texts != batch.texts
        ):
            last = self._last[batch.kind, batch.host] = self._looked_up(batch, last)
        return KeyedBatch(batch, last.host_key, last.vm_keys, last.text_keys)

    def _looked_up(self, batch: SampleBatch, last: _Named | None) -> _Named:
        kind, row_count = KIND_BY_NAME[batch.kind], batch.row_count
        vm_keys: bytes
        if last is not None and (last.row_count, last.ids) == (row_count, batch.ids):
            vm_keys = last.vm_keys
        else:
            vm_keys = self.vms.packed(split_rows(batch.ids, row_count, 2)) if kind.has_vm else b""
        text_keys: tuple[bytes, ...]
        if last is not None and (last.row_count, last.texts) == (row_count, batch.texts):
            text_keys = last.text_keys
        else:
            rows = split_rows(batch.texts, row_count, len(kind.texts))
            text_keys = tuple(
                [self.texts.packed([row[field] for row in rows]) for field in range(len(kind.texts))]
            )
        host_key = self.texts.key_of(batch.host, always=True)
        return _Named(row_count, batch.ids, batch.texts, host_key, vm_keys, text_keys)

    def forget_all_texts_but(self, rows: list[tuple[int, str]]) -> None:
        """After texts were erased from the file; `rows` are those that are left."""
        self.texts.forget_all_but(rows)
        self._last.clear()

    def committed(self) -> None:
        """The file holds all keys that were given."""
        self.texts.new_rows.clear()
        self.vms.new_rows.clear()
        self.vms.renamed.clear()
