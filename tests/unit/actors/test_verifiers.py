"""Verifiers: what fits, what does not, and what a reader of one could learn."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from actors.verifiers import KEY_FILE, Cost, KeyLost, Verifier, Verifiers
from olvm.model.errors import JournalCorrupt, JournalUnwritable

QUICK = Cost(passes=1, memory_kib=64, lanes=1)


@pytest.fixture
def verifiers(tmp_path: Path) -> Verifiers:
    return Verifiers(tmp_path, QUICK)


def test_verifier_fits_its_own_password_alone(verifiers: Verifiers) -> None:
    text = verifiers.make("alice", "correct horse")
    assert verifiers.fits("alice", "correct horse", text)
    for other in ("correct hors", "Correct horse", "correct horse ", "x"):
        assert not verifiers.fits("alice", other, text)


def test_verifier_given_to_another_user_fits_nothing(verifiers: Verifiers) -> None:
    text = verifiers.make("alice", "correct horse")
    assert not verifiers.fits("mallory", "correct horse", text)


def test_verifiers_of_one_password_differ(verifiers: Verifiers) -> None:
    assert verifiers.make("alice", "correct horse") != verifiers.make("alice", "correct horse")


def test_password_typed_in_other_code_points_fits(verifiers: Verifiers) -> None:
    text = verifiers.make("alice", "caf\u00e9")
    assert verifiers.fits("alice", "cafe\u0301", text)


def test_verifier_of_another_cost_fits_and_is_stale(verifiers: Verifiers, tmp_path: Path) -> None:
    text = verifiers.make("alice", "correct horse")
    dearer = Verifiers(tmp_path, Cost(passes=2, memory_kib=64, lanes=1))
    assert dearer.fits("alice", "correct horse", text)
    assert (verifiers.is_stale(text), dearer.is_stale(text)) == (False, True)


def test_verifier_is_nothing_to_guess_with_without_the_key(verifiers: Verifiers, tmp_path: Path) -> None:
    """Whoever has the text and guesses right cannot see that it is right: the digest is keyed."""
    text = verifiers.make("alice", "correct horse")
    guess = Verifiers(tmp_path / "elsewhere", QUICK)
    (tmp_path / "elsewhere").mkdir()
    guess.make("alice", "correct horse")
    with pytest.raises(KeyLost, match="set the password anew"):
        guess.fits("alice", "correct horse", text)


def test_key_lost_is_said_and_not_taken_for_a_wrong_password(verifiers: Verifiers, tmp_path: Path) -> None:
    text = verifiers.make("alice", "correct horse")
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(KeyLost):
        Verifiers(tmp_path, QUICK).fits("alice", "correct horse", text)


def test_key_is_its_owners_alone_and_is_kept(verifiers: Verifiers, tmp_path: Path) -> None:
    text = verifiers.make("alice", "correct horse")
    key = tmp_path / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]
    again = Verifiers(tmp_path, QUICK)
    assert again.fits("alice", "correct horse", text)
    again.make("bob", "x")
    assert key.read_text().strip() not in text


def test_key_made_by_several_threads_is_one(tmp_path: Path) -> None:
    texts: list[str] = []
    makers = [Verifiers(tmp_path, QUICK) for _ in range(8)]
    threads = [
        threading.Thread(target=lambda one=one: texts.append(one.make("alice", "x"))) for one in makers
    ]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(makers[0].fits("alice", "x", text) for text in texts)
    assert len(texts) == len(makers)


@pytest.mark.parametrize("damaged", ["", "zz", "00ff", "é"])
def test_key_that_is_none_is_not_overwritten(damaged: str, tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text(damaged)
    with pytest.raises(JournalCorrupt, match=KEY_FILE):
        Verifiers(tmp_path, QUICK).make("alice", "x")
    assert (tmp_path / KEY_FILE).read_text() == damaged


def test_key_that_cannot_be_kept_makes_no_verifier(tmp_path: Path) -> None:
    with pytest.raises(JournalUnwritable, match=KEY_FILE):
        Verifiers(tmp_path / "gone", QUICK).make("alice", "x")


def test_verifier_printed_shows_nothing() -> None:
    assert "digest" not in repr(Verifier(QUICK, b"salt", "key", b"digest"))


def test_cost_is_what_rfc_9106_recommends_for_64_mib() -> None:
    assert Cost() == Cost(passes=3, memory_kib=64 * 1024, lanes=4)
