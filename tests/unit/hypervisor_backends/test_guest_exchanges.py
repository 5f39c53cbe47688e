"""An original oVirt guest agent, of every version, speaks to our host side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hypervisor_backends.protocol import CallResult
from tests.unit.hypervisor_backends.guest_talk import Talk, code

EXCHANGES = sorted(Path(__file__).with_name("exchanges").glob("*.jsonl"))


class Replay:
    def __init__(self) -> None:
        self.one = Talk()
        self.one.said.clear()  # the file says when the line is there
        self.calls: list[list[CallResult]] = []

    def step(self, step: dict[str, Any]) -> None:
        match step:
            case {"connected": True}:
                self.one.talk.connected()
            case {"guest": message}:
                self.one.talk.feed(json.dumps(message).encode() + b"\n", self.one.now_ns)
            case {"host": message}:
                name, arguments = self.one.said.pop(0)
                assert {"__name__": name, **arguments} == message
            case {"call": message}:
                self.calls.append(self.one.call(message, step.get("with")))
            case {"answered": wanted}:
                assert code(self.calls[0]) == wanted
                if wanted != "open":
                    self.calls.pop(0)
            case {"after_s": seconds}:
                self.one.pass_s(seconds)
            case {"facts": wanted}:
                facts = json.loads(msgspec.json.encode(self.one.facts))
                assert {name: facts[name] for name in wanted} == wanted
            case _:
                raise AssertionError(f"no such step: {step}")
        if "host" not in step and "call" not in step:
            self.one.talk.expire(self.one.now_ns)


@pytest.mark.parametrize("path", EXCHANGES, ids=lambda path: path.stem)
def test_original_agent_is_spoken_to_as_it_expects(path: Path) -> None:
    replay = Replay()
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            step = json.loads(line)
            assert "host" in step or not replay.one.said, f"the host said {replay.one.said} before"
            replay.step(step)
        except AssertionError as error:
            raise AssertionError(f"{path.name}:{number}: {error}") from error
    assert replay.one.said == []
    assert replay.calls == []


def test_exchanges_are_of_every_version() -> None:
    names = {path.stem for path in EXCHANGES}
    assert {f"version_{number}" for number in range(4)} <= names
