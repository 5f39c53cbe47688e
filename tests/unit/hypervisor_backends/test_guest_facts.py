"""Two agents of one guest: who is believed, for how long, and what is news."""

from __future__ import annotations

from hypervisor_backends.guest_facts import STALE_S, Counters, FactsBook
from hypervisor_backends.measurements import GuestFacts, GuestFilesystem
from olvm.model.limits import NS_PER_S

LATE_NS = int((STALE_S + 1) * NS_PER_S)


def facts_of(book: FactsBook) -> GuestFacts:
    facts = book.facts(version=3, counters=Counters())
    assert facts is not None
    return facts


def test_qemus_agent_is_preferred_and_the_rest_is_the_channels() -> None:
    book = FactsBook()
    book.take("olvm", {"hostname": "by-channel", "applications": ("bash",), "kernel": "6.1"}, 1)
    book.take("qemu-ga", {"hostname": "by-qemu", "kernel": ""}, 2)
    facts = facts_of(book)
    assert (facts.hostname, facts.applications, facts.kernel) == ("by-qemu", ("bash",), "6.1")
    assert facts.sources == {"hostname": "qemu-ga", "applications": "olvm", "kernel": "olvm"}
    assert facts.heartbeat_ns == 2


def test_source_that_falls_silent_while_the_other_speaks_is_forgotten() -> None:
    book = FactsBook()
    book.name_agent("qemu-ga", "qemu-ga 7.2")
    book.take("qemu-ga", {"hostname": "by-qemu", "users": ("alice",)}, 1)
    book.take("olvm", {"hostname": "by-channel"}, 2)
    assert book.take("olvm", {"memory_free_kib": 1}, LATE_NS), "that it gave way is news"
    facts = facts_of(book)
    assert (facts.hostname, facts.users, facts.agents) == ("by-channel", (), ())
    assert set(facts.sources.values()) == {"olvm"}


def test_last_word_of_a_guest_that_hangs_stands() -> None:
    book = FactsBook()
    book.take("olvm", {"hostname": "web"}, 1)
    assert book.take("olvm", {"hostname": "web"}, LATE_NS) is False
    assert facts_of(book).hostname == "web"


def test_guest_of_which_nothing_is_known_has_no_facts() -> None:
    book = FactsBook()
    assert book.facts(version=0, counters=Counters()) is None
    book.take("ovirt", {"hostname": "web"}, 1)
    book.forget("ovirt")
    book.forget("qemu-ga")
    assert book.facts(version=0, counters=Counters()) is None


def test_news_are_names_and_not_numbers_that_never_rest() -> None:
    book = FactsBook()
    root = GuestFilesystem(path="/", type="ext4", total_bytes=10, used_bytes=1)
    assert book.take("olvm", {"filesystems": (root,)}, 1)
    fuller = GuestFilesystem(path="/", type="ext4", total_bytes=10, used_bytes=2)
    assert not book.take("olvm", {"filesystems": (fuller,), "memory_free_kib": 7, "uptime_s": 3}, 2)
    assert facts_of(book).filesystems[0].used_bytes == 2
    grown = GuestFilesystem(path="/", type="ext4", total_bytes=20, used_bytes=2)
    assert book.take("olvm", {"filesystems": (grown,)}, 3)
    assert book.take("olvm", {"session": "Locked"}, 4)
    assert book.name_agent("olvm", "olvm 3")
    assert not book.name_agent("olvm", "olvm 3")
    assert not book.name_agent("olvm", "")
