"""What an error of the demo's stage says of logs that are gone when it is read."""

from __future__ import annotations

from pathlib import Path

from olvm.demo.kvm_stage import LAST_WORDS, last_words


def test_last_words_are_the_last_lines_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "boot.log"
    log.write_bytes(b"first\n" + b"\xff line\n" * LAST_WORDS)
    assert last_words(log).splitlines() == ["\ufffd line"] * LAST_WORDS


def test_log_without_a_word_and_one_that_is_not_there_say_so(tmp_path: Path) -> None:
    (tmp_path / "boot.log").touch()
    assert last_words(tmp_path / "boot.log") == "(no word in boot.log)"
    assert "No such file" in last_words(tmp_path / "none.log")
