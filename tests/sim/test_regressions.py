"""Every plan that once found something is quiet now; `regressions.py` says what it was."""

from __future__ import annotations

import pytest

from sim.plan import Plan
from sim.reports import REPLAY
from sim.runs import run_plan
from sim.token import decode_plan, encode_plan
from tests.sim.regressions import REGRESSIONS, Regression


def parameter(one: Regression) -> object:
    marks = [pytest.mark.xfail(reason=one.found, raises=AssertionError)] if one.open else []
    return pytest.param(one, id=one.name, marks=marks)


@pytest.mark.parametrize("one", [parameter(one) for one in REGRESSIONS])
def test_plan_that_once_found_something_finds_nothing(one: Regression) -> None:
    plan = one.plan if isinstance(one.plan, Plan) else decode_plan(one.plan)
    outcome = run_plan(plan)
    told = f"{outcome.verdict} {outcome.oracle}: {outcome.sentence}\n{REPLAY} {encode_plan(plan)}"
    assert outcome.verdict == "ok", f"{told}\nit once found: {one.found}"


def test_regressions_have_names_of_their_own() -> None:
    assert len({one.name for one in REGRESSIONS}) == len(REGRESSIONS)
