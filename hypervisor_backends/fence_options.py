"""What a fence device's settings mean to its agent: which options there are, which are lacking, what goes to stdin.

The agent itself says what it takes (`-o metadata`, read once for each file). An option that it does not know is refused
here: it would be ignored there, and written to the system log with its value. So are options that may not be given at
all (`fence_names.py`).

Secrets: any option may be given as `<option>_file`, the path of a file that only its owner can read and whose first
line is the value. It is read on the host that asks the device, at each call, and is in no journal. A device that is
added with a host must give its secrets so; those of older journals are still passed on. Must not know processes but for
the agent's metadata, nor when what is asked.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec

from hypervisor_backends.fence_names import FILE, OURS, REFUSED, SECRET, may_be_given
from hypervisor_backends.fence_process import INPUT_BYTES_MAX, run_agent
from olvm.model.errors import BadInput

Setting = str | int | float | bool
Settings = Mapping[str, Setting]
Reader = Callable[["Agent", str, Setting], str]

AGENTS = Path("/usr/sbin")
METADATA_WITHIN_S = 30.0  # some import half a cloud for it
SECRET_BYTES_MAX = 4096
TYPE = re.compile(r"(fence_)?([a-z0-9][a-z0-9_]{0,60})")
NO_POWER = {
    "fence_ack_manual": "it asks a person",
    "fence_dummy": "it does nothing and says that it worked",
    "fence_heuristics_ping": "it does nothing but ping",
    "fence_evacuate": "it moves machines and leaves the host running",
    "fence_kdump": "it waits for a dump and leaves the host running",
    "fence_mpath": "it cuts a host from its disks and leaves it running",
    "fence_scsi": "it cuts a host from its disks and leaves it running",
}
TRUE, FALSE = ("1", "yes", "on", "true"), ("0", "no", "off", "false")


class Option(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    required: bool
    default: str
    choices: tuple[str, ...]
    canonical: str  # the newer name of a deprecated one


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    path: Path
    options: dict[str, Option]
    actions: frozenset[str]


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """Options that passed every check. `secrets` are to be struck from whatever the agent says."""

    agent: Agent
    values: dict[str, str]
    secrets: tuple[str, ...]

    def lines(self, action: str) -> str:
        return "".join(
            f"{name}={_quoted(value)}\n" for name, value in ({"action": action} | self.values).items()
        )


def check_options(device: Settings, directory: Path = AGENTS) -> bool:
    """Whether this machine has the agent; if so its options were held against it, all but what secret files hold.

    Those are on the hosts that ask the device. Raises `BadInput`. Cost: some 0.3 s the first time; blocks.
    """
    name = _agent_name(device)
    if name and name not in NO_POWER and not (directory / name).is_file():
        return False
    prepare(device, directory, _stand_in)
    return True


def prepare(device: Settings, directory: Path = AGENTS, read: Reader | None = None) -> Prepared:
    """Raises `BadInput`. Blocks: reads files, and runs the agent the first time."""
    read = read or _read_secret
    agent = agent_of(device, directory)
    given = {name: value for name, value in device.items() if name not in OURS}
    values: dict[str, str] = {}
    secrets: list[str] = []
    for name, value in given.items():
        target = _target(agent, name)
        if target in values:
            raise BadInput(
                f"fence device {agent.name}: option {target} is given twice, as {name} too; give it once"
            )
        text = read(agent, name, value) if target != name else _text(agent, name, value)
        if target != name or SECRET.match(target):
            secrets.append(text)
        if not _is_left_out(agent.options[target], text):
            values[target] = text
    _check_required(agent, {agent.options[name].canonical for name in values})
    if sum(len(name) + len(value.encode()) + 4 for name, value in values.items()) > INPUT_BYTES_MAX // 2:
        raise BadInput(f"fence device {agent.name}: its options are longer than {INPUT_BYTES_MAX // 2} bytes")
    return Prepared(agent=agent, values=values, secrets=tuple(secret for secret in secrets if secret))


# ---------------------------------------------------------------- the agent


def agent_of(device: Settings, directory: Path) -> Agent:
    """`type` is the agent's name, with or without `fence_`."""
    kind, name = device.get("type", ""), _agent_name(device)
    path = directory / name
    if name in NO_POWER:
        raise BadInput(
            f"fence device {name} proves nothing about a host's power: {NO_POWER[name]}; use another one"
        )
    if not name or not os.access(path, os.X_OK) or not path.is_file():
        raise BadInput(
            f"fence device has the unknown type {kind!r}: there is no fence agent {name or kind!r} in {directory}; "
            f"there are {', '.join(agents_in(directory)) or 'none'} (Debian: apt install fence-agents)"
        )
    return _described(path, path.stat().st_mtime_ns)


def _agent_name(device: Settings) -> str:
    """Empty: its type names no agent."""
    kind = device.get("type", "")
    matched = TYPE.fullmatch(kind) if isinstance(kind, str) else None
    return f"fence_{matched[2]}" if matched else ""


def agents_in(directory: Path = AGENTS) -> list[str]:
    """The fence agents that this machine has, by name, without those that switch no power."""
    if not directory.is_dir():
        return []
    found = (path.name for path in directory.glob("fence_*") if os.access(path, os.X_OK))
    return sorted(name for name in found if name not in NO_POWER)


@functools.lru_cache(maxsize=64)
def _described(path: Path, mtime_ns: int) -> Agent:
    del mtime_ns  # an agent that was updated is asked again
    ended = run_agent(path, "", METADATA_WITHIN_S, words=("-o", "metadata"))
    element = re.search(
        r"<resource-agent.*</resource-agent>", ended.said, re.DOTALL
    )  # some print more around it
    try:
        root = ET.fromstring(element[0] if element else "")  # noqa: S314  (a program of this machine's root)
    except ET.ParseError as error:
        raise BadInput(
            f"fence agent {path} does not say what options it has (-o metadata): {error}"
        ) from error
    return Agent(
        name=path.name,
        path=path,
        options=_options(root),
        actions=frozenset(action.get("name", "") for action in root.iterfind("actions/action")),
    )


def _options(root: ET.Element) -> dict[str, Option]:
    parameters = {one.get("name", ""): one for one in root.iterfind("parameters/parameter")}
    newer = {one.get("obsoletes", ""): name for name, one in parameters.items() if one.get("obsoletes")}
    options = {}
    for name, one in parameters.items():
        content = one.find("content")
        options[name] = Option(
            kind="string" if content is None else content.get("type", "string"),
            required=one.get("required") == "1",
            default="" if content is None else content.get("default", ""),
            choices=tuple(choice.get("value", "") for choice in one.iterfind("content/option")),
            canonical=newer.get(name, name),
        )
    return options


def _check_required(agent: Agent, given: set[str]) -> None:
    required = {option.canonical for option in agent.options.values() if option.required} - REFUSED
    if lacking := sorted(required - given):
        raise BadInput(
            f"fence device {agent.name} needs {' and '.join(lacking)}; `{agent.path} -o metadata` explains"
        )


# ---------------------------------------------------------------- one option


def _target(agent: Agent, name: str) -> str:
    """The agent's option that a setting is for. `password_file` is for `password`, unless the agent has it itself."""
    target = name
    if name not in agent.options and name.endswith(FILE):
        target = name.removesuffix(FILE)
    if target not in agent.options:
        raise BadInput(
            f"fence device {agent.name} has no option {name!r}; there are {', '.join(_allowed(agent))}, "
            f"and each with {FILE} for the file that holds it"
        )
    if not may_be_given(target):
        raise BadInput(
            f"fence device {agent.name}: option {name} is not for a device's settings; leave it out "
            f"(a password may stand in a file that password{FILE} names)"
        )
    return target


def _allowed(agent: Agent) -> list[str]:
    return sorted(
        name for name, option in agent.options.items() if may_be_given(name) and option.canonical == name
    )


def _text(agent: Agent, name: str, value: Setting) -> str:
    option = agent.options[name]
    if isinstance(value, bool):
        text = "1" if value else "0"
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    if not text.isprintable():
        raise BadInput(
            f"fence device {agent.name}: option {name} has a line break or another character without a face"
        )
    if option.kind == "boolean" and text.lower() not in (*TRUE, *FALSE):
        raise BadInput(f"fence device {agent.name}: option {name} is true or false, got {text!r}")
    if option.kind in ("integer", "second") and not re.fullmatch(r"-?[0-9]+", text):
        raise BadInput(f"fence device {agent.name}: option {name} is a whole number, got {text!r}")
    if option.kind == "select" and option.choices and text not in option.choices:
        raise BadInput(
            f"fence device {agent.name}: option {name} is one of {', '.join(option.choices)}, got {text!r}"
        )
    return text


def _is_left_out(option: Option, text: str) -> bool:
    """Agents ask whether a boolean was *given*: `ssl_insecure=0` would switch the check of certificates off."""
    return option.kind == "boolean" and text.lower() in FALSE and option.default not in TRUE


def _path(agent: Agent, name: str, value: Setting) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise BadInput(f"fence device {agent.name}: {name} {value} is not the absolute path of a file")
    return value


def _stand_in(agent: Agent, name: str, value: Setting) -> str:
    """For what stands in a file that is not here."""
    return _path(agent, name, value)


def _read_secret(agent: Agent, name: str, value: Setting) -> str:
    """The first line of the file. The message of an error never has what is in it."""
    path = _path(agent, name, value)
    what = f"fence device {agent.name}: {name} {path}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadInput(f"{what} cannot be read on the host that asks the device: {error.strerror}") from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{what} is not a file")
        if status.st_mode & 0o077:
            raise BadInput(f"{what} can be read by others; run chmod 600 {path}")
        data = file.read(SECRET_BYTES_MAX + 1)
    try:
        line = data.decode().split("\n", 1)[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise BadInput(f"{what} holds no text") from None
    if not line or len(data) > SECRET_BYTES_MAX or not line.isprintable():
        raise BadInput(f"{what} must hold the value in its first line, and {SECRET_BYTES_MAX} bytes at most")
    return line


def _quoted(value: str) -> str:
    """Agents cut blanks from both ends and one pair of quotes: what has them of its own gets a pair for that."""
    bare = value.strip() == value and not (value.startswith('"') and value.endswith('"'))
    return value if bare else f'"{value}"'
