"""How large a machine is, in sentences: only what a reader of its row could miss."""

from __future__ import annotations

from olvm.model.records import VmRecord
from olvm.model.sizes import format_size


def size_sentences(record: VmRecord) -> list[str]:
    """Empty where the size now, that of the next start and what is reserved are one and the same."""
    sentences = []
    now = (record.now_vcpus or record.vcpus, record.now_memory_bytes or record.memory_bytes)
    if now != (record.vcpus, record.memory_bytes):
        later = _size(record.vcpus, record.memory_bytes)
        sentences.append(f"{record.name} has {_size(*now)} now, and {later} at its next start.")
    resize = record.resize
    if resize is not None:
        most = _size(max(now[0], resize.vcpus), max(now[1], resize.memory_bytes))
        state = "is under way" if resize.phase != "unknown" else "was not confirmed, and its host is asked"
        sentences.append(f"{resize.verb} {state}; until its end is known {most} are reserved.")
    return sentences


def _size(vcpus: int, memory_bytes: int) -> str:
    return f"{vcpus} vCPU{'' if vcpus == 1 else 's'} and {format_size(memory_bytes)}"
