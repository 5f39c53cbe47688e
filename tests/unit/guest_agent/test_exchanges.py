"""VDSM's side of recorded exchanges, built from the specification, against our agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guest_agent import protocol as p
from tests.unit.guest_agent.agent_bench import AgentBench

EXCHANGES = Path(__file__).with_name("exchanges")


def fits(said: dict[str, Any], expected: dict[str, Any]) -> bool:
    return all(key in said and value in ("*", said[key]) for key, value in expected.items())


@pytest.mark.parametrize("path", sorted(EXCHANGES.glob("vdsm_*.jsonl")), ids=lambda path: path.stem)
def test_exchange_with_vdsm_gets_the_answers_it_expects(path: Path, tmp_path: Path) -> None:
    bench = AgentBench(tmp_path)
    bench.agent.connected()
    bench.agent.tick()
    bench.wait_for_errands()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        step = json.loads(line)
        if "host" in step:
            message = dict(step["host"])
            bench.order(message.pop("__name__"), **message)
        elif "after_s" in step:
            bench.pass_time(step["after_s"])
        elif "forget" in step:
            bench.said.clear()
        elif "never" in step:
            assert not bench.named(step["never"]), f"line {number}"
        else:
            found = any(fits(one, step["guest"]) for one in bench.said)
            assert found, f"line {number}: {step['guest']} is not among {bench.said}"
    assert "Geheim!7" not in json.dumps(bench.said)


def test_exchanges_name_messages_that_the_protocol_knows() -> None:
    for path in EXCHANGES.glob("original_agent_*.jsonl"):
        for line in path.read_text().splitlines():
            step = json.loads(line)
            if "guest" in step:
                assert step["guest"]["__name__"] in p.FROM_GUEST
            else:
                assert step["host"]["__name__"] in p.TO_GUEST
