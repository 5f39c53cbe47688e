"""A token is a plan and nothing but that plan, and one that was damaged on its way is refused."""

from __future__ import annotations

import base64
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olvm.model.errors import BadInput
from sim.plan import Knobs, Plan, Shape, Step
from sim.swarm import draw_plan
from sim.token import decode_plan, encode_plan

STEPS = st.builds(
    Step,
    at_ms=st.integers(0, 1 << 40),
    what=st.sampled_from(("start", "cut", "crash_host")),
    target=st.text(max_size=8),
    for_ms=st.integers(0, 1 << 30),
    value=st.integers(-5, 1_000),
    detail=st.text(max_size=8),
)
PLANS = st.builds(
    Plan,
    seed=st.integers(0, 1 << 60),
    hours=st.floats(0.001, 1_000),
    shape=st.builds(Shape, hosts=st.integers(1, 1_000), policy=st.text(max_size=9), telemetry=st.booleans()),
    knobs=st.builds(Knobs, loss_per_10k=st.integers(0, 5_000), quick_timers=st.integers(0, 1)),
    steps=st.lists(STEPS, max_size=5).map(tuple),
    settings=st.dictionaries(st.text(max_size=6), st.floats(0, 1e9), max_size=3),
)
TOKEN = encode_plan(draw_plan(3, hours=0.05))


def raw(token: str) -> bytes:
    return base64.urlsafe_b64decode(token[2:] + "=" * (-(len(token) - 2) % 4))


@given(plan=PLANS)
def test_plan_through_its_token_is_the_same_plan(plan: Plan) -> None:
    token = encode_plan(plan)
    assert decode_plan(token) == plan
    assert token == encode_plan(decode_plan(token))
    assert token.isascii()
    assert not set(token) & set(" \t\n'\"$`\\&|;<>*?"), "a shell takes it as one word"


@given(where=st.integers(2, len(TOKEN) - 1), letter=st.sampled_from("ABab01-_"))
def test_token_with_one_letter_changed_is_refused_or_the_same_plan(where: int, letter: str) -> None:
    damaged = TOKEN[:where] + letter + TOKEN[where + 1 :]
    # The last letter has bits that stand for nothing.
    if damaged == TOKEN or (where == len(TOKEN) - 1 and raw(damaged) == raw(TOKEN)):
        assert decode_plan(damaged) == decode_plan(TOKEN)
        return
    with pytest.raises(BadInput, match="copy it whole"):
        decode_plan(damaged)


@given(length=st.integers(0, len(TOKEN) - 1))
def test_token_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(BadInput):
        decode_plan(TOKEN[:length])


@given(word=st.text(max_size=60))
def test_any_other_word_is_refused_with_a_sentence(word: str) -> None:
    with pytest.raises(BadInput):
        decode_plan("p-" + word)


def test_token_of_a_plan_of_another_release_is_refused() -> None:
    data = zlib.compress(msgspec.msgpack.encode({"seed": "seven"}))
    whole = zlib.crc32(data).to_bytes(4, "big") + data
    with pytest.raises(BadInput, match="of another release"):
        decode_plan("p-" + base64.urlsafe_b64encode(whole).decode().rstrip("="))
