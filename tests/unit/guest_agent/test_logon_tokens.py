"""A token opens one session, for one user, once, soon. Every other use has its own refusal, and is counted."""

from __future__ import annotations

import pytest

from guest_agent.credentials import LIFE_S, REASONS, Tokens


class Bench:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.owner_by_session: dict[str, str] = {}
        self.tokens = Tokens(lambda session: self.owner_by_session.get(session, ""), lambda: self.now_s)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_token_used_by_its_user_in_its_session_in_time_is_granted(bench: Bench) -> None:
    token = bench.tokens.make("alice", "hvc0")
    bench.now_s += LIFE_S
    assert bench.tokens.check(token, "alice", "hvc0") == ""
    assert set(bench.tokens.refused.values()) == {0}


def test_token_used_twice_is_refused_as_replayed(bench: Bench) -> None:
    token = bench.tokens.make("alice", "hvc0")
    bench.tokens.check(token, "alice", "hvc0")
    assert bench.tokens.check(token, "alice", "hvc0") == "replayed"
    assert bench.tokens.check(token, "alice", "tty1") == "replayed"
    bench.tokens.make("alice", "hvc0")
    assert bench.tokens.check(token, "alice", "hvc0") == "replayed"
    assert bench.tokens.refused["replayed"] == 3


def test_token_of_another_user_is_refused_and_spent(bench: Bench) -> None:
    token = bench.tokens.make("alice", "hvc0")
    assert bench.tokens.check(token, "mallory", "hvc0") == "other user"
    assert bench.tokens.check(token, "alice", "hvc0") == "no token"


@pytest.mark.parametrize("has_its_own", [False, True])
def test_token_of_another_session_is_refused(bench: Bench, has_its_own: bool) -> None:
    token = bench.tokens.make("alice", "hvc0")
    if has_its_own:
        bench.tokens.make("alice", "tty1")
    assert bench.tokens.check(token, "alice", "tty1") == "other session"
    assert bench.tokens.check(token, "alice", "hvc0") == ""


def test_token_after_its_life_is_refused_as_late_for_good(bench: Bench) -> None:
    token = bench.tokens.make("alice", "hvc0")
    bench.now_s += LIFE_S + 0.001
    assert bench.tokens.check(token, "alice", "hvc0") == "late"
    bench.now_s -= LIFE_S
    assert bench.tokens.check(token, "alice", "hvc0") == "no token"


def test_token_for_a_session_that_another_user_has_or_has_locked_is_refused(bench: Bench) -> None:
    token = bench.tokens.make("alice", "hvc0")
    bench.owner_by_session["hvc0"] = "bob"
    assert bench.tokens.check(token, "alice", "hvc0") == "locked by another"
    assert bench.tokens.refused["locked by another"] == 1


def test_token_for_a_session_that_the_user_has_locked_is_granted(bench: Bench) -> None:
    token = bench.tokens.make("alice", "hvc0")
    bench.owner_by_session["hvc0"] = "alice"
    assert bench.tokens.check(token, "alice", "hvc0") == ""


def test_new_token_of_a_session_ends_the_one_before(bench: Bench) -> None:
    before = bench.tokens.make("alice", "hvc0")
    after = bench.tokens.make("bob", "hvc0")
    assert bench.tokens.check(before, "alice", "hvc0") == "no token"
    assert bench.tokens.check(after, "bob", "hvc0") == ""


@pytest.mark.parametrize("token", ["", "0" * 48, "é", "\ud800"])
def test_token_that_was_never_made_is_refused(bench: Bench, token: str) -> None:
    assert bench.tokens.check(token, "alice", "hvc0") == "no token"
    bench.tokens.make("alice", "hvc0")
    assert bench.tokens.check(token, "alice", "hvc0") == "no token"
    assert bench.tokens.check(token, "", "") == "no token"


def test_tokens_are_never_alike(bench: Bench) -> None:
    assert len({bench.tokens.make("alice", "hvc0") for _ in range(100)}) == 100


def test_refusals_have_every_reason_from_the_beginning(bench: Bench) -> None:
    assert tuple(bench.tokens.refused) == REASONS
