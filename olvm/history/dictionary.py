"""Integer keys for the texts and VMs in samples, so that a sample row is numbers only.

Rules: a key, once given, means the same text for as long as a sample may name it. Entries that the file does
not hold yet are `new_*`; they are committed with the first samples that use them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

from olvm.history.bounds import TEXT_CHARS_MAX, TEXTS_MAX

NO_KEY: Final = -1


class TextKeys:
    """Keys of the table `texts`."""

    def __init__(self) -> None:
        self._key_by_text: dict[str, int] = {}
        self._next_key = 0
        self.new_rows: list[tuple[int, str]] = []
        self.refused_count = 0  # texts stored as NULL because the dictionary was full

    def __len__(self) -> int:
        return len(self._key_by_text)

    def key_of(self, text: str, *, always: bool = False) -> int:
        """`NO_KEY` for the empty text, and for a new one past the bound unless `always`."""
        key = self._key_by_text.get(text)
        if key is not None:
            return key
        if not text:
            return NO_KEY
        if len(self._key_by_text) >= TEXTS_MAX and not always:
            self.refused_count += 1
            return NO_KEY
        if len(text) > TEXT_CHARS_MAX:
            return self.key_of(text[:TEXT_CHARS_MAX], always=always)
        key = self._next_key
        self._next_key += 1
        self._key_by_text[text] = key
        self.new_rows.append((key, text))
        return key

    def packed(self, texts: Iterable[str]) -> bytes:
        key_of = self.key_of
        return array("i", [key_of(text) for text in texts]).tobytes()

    def learn(self, rows: Iterable[tuple[int, str]]) -> None:
        """Take over what the file holds; entries of ours that are among them are no longer new."""
        held = set()
        for key, text in rows:
            held.add(key)
            self._key_by_text.setdefault(text, key)
            self._next_key = max(self._next_key, key + 1)
        self.new_rows = [row for row in self.new_rows if row[0] not in held]

    def forget_all_but(self, rows: Iterable[tuple[int, str]]) -> None:
        """After texts were erased from the file. An erased text that returns gets a new key."""
        assert not self.new_rows, "texts are erased only when the file holds all of them"
        self._key_by_text = {text: key for key, text in rows}


class VmKeys:
    """Keys of the table `vm_names`."""

    def __init__(self) -> None:
        self._entry_by_id: dict[str, tuple[int, str]] = {}
        self._next_key = 0
        self.new_rows: dict[int, tuple[str, str]] = {}
        self.renamed: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._entry_by_id)

    def key_of(self, vm_id: str, vm_name: str) -> int:
        entry = self._entry_by_id.get(vm_id)
        if entry is None:
            key = self._next_key
            self._next_key += 1
            self._entry_by_id[vm_id] = (key, vm_name)
            self.new_rows[key] = (vm_id, vm_name)
            return key
        key, known_name = entry
        if vm_name and vm_name != known_name:
            self._entry_by_id[vm_id] = (key, vm_name)
            if key in self.new_rows:
                self.new_rows[key] = (vm_id, vm_name)
            else:
                self.renamed[key] = vm_name
        return key

    def packed(self, rows: Iterable[list[str]]) -> bytes:
        key_of = self.key_of
        return array("i", [key_of(vm_id, vm_name) for vm_id, vm_name in rows]).tobytes()

    def learn(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Take over what the file holds; what we know beyond it stays new."""
        for key, vm_id, vm_name in rows:
            self._next_key = max(self._next_key, key + 1)
            self.new_rows.pop(key, None)
            _, newest_name = self._entry_by_id.setdefault(vm_id, (key, vm_name))
            if newest_name != vm_name:
                self.renamed[key] = newest_name
