"""The tree of commands, and the one place that turns what happened into an exit code and a line on stderr.

Rules:
1. Data goes to stdout, everything else to stderr. A failure is one line, `olvm: …`; `-v` adds the traceback.
2. Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict, 5 denied, 6 wait timed out, 7 engine
   unreachable, 130 interrupted.
3. A reader of stdout that goes away (`| head`) is no failure.
4. A noun's module is imported when that noun is named, so that help and completion stay quick.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError

from olvm.cli.failures import CommandFailed, Interrupted, line_of
from olvm.model.errors import OlvmError
from olvm.version import VERSION

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_LEADING_WITH_VALUE = ("-d", "--directory")
_LEADING_ALONE = ("-v", "--verbose")

app = App(
    name="olvm",
    help="A virtualization control plane: clusters of hosts, the machines on them, and what happens to both.",
    help_epilogue="Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict, 5 denied, 6 wait timed out, "
    "7 engine unreachable, 130 interrupted.",
    help_format="plaintext",
    version=VERSION,
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)

_COMMANDS = (
    ("demo", "demonstration:demo", "Show the whole story on this machine: start, fail, recover."),
    ("up", "lifecycle:up", "Start a data center that stays up in the background."),
    ("down", "lifecycle:down", "Stop it in order; machines and operations are kept."),
    ("status", "lifecycle:status", "Show its silos with processes, queues and journals."),
    (
        "cluster",
        "cluster:app",
        "Clusters: which hosts belong together, and how machines are spread over them.",
    ),
    ("host", "host:app", "Hosts: add them, take them out of service, bring them back."),
    ("vm", "vm:app", "Virtual machines: create, start, stop and watch them."),
    ("policy", "policy:app", "Scheduling policies: which there are, and what one of your own may say."),
    ("affinity", "affinity:app", "Affinity groups: machines together or apart, on some hosts or off them."),
    ("user", "user:app", "Users: whom the engine authenticates, to be logged on inside machines."),
    ("operation", "operation:app", "Operations: the durable record of every command."),
    ("event", "event:app", "Events: what happened, in order."),
    ("top", "top:top", "Hosts and machines as they are now, the busiest first."),
    ("report", "report:report", "What the last hours were like, as text and as one HTML file."),
    ("metrics", "metrics:metrics", "Serve Prometheus metrics on a local endpoint."),
    ("history", "history:app", "History: a copy of what was measured and what happened."),
    ("sql", "sql:sql", "Run a reading SQL statement over engine and history."),
    ("sim", "sim:app", "The simulator: seeds, faults, oracles, and a token for each failure."),
    ("experiment", "experiment:app", "Placement experiments: real traces, policies, energy and its price."),
    ("version", "version:version", "Print the version."),
    ("completion", "completion:completion", "Print a shell's completion script."),
)
for _order, (_name, _path, _help) in enumerate(_COMMANDS):
    app.command(f"olvm.cli.{_path}", name=_name, help=_help, sort_key=_order)


def run(tokens: Sequence[str]) -> int:
    """Parse and run; every outcome ends as an exit code."""
    verbose = not {"-v", "--verbose"}.isdisjoint(tokens)
    code = EXIT_FAILED
    try:
        command = _parsed(_leading_options_last(list(tokens)))
        code = command()
    except BrokenPipeError:
        code = 0
    except KeyboardInterrupt as interrupt:
        _say(interrupt, verbose)
        code = EXIT_INTERRUPTED
    except OlvmError as error:
        _say(error, verbose)
        code = error.exit_code
    except CommandFailed as failed:
        code = failed.exit_code
    except CycloptsError as error:
        _say(error, verbose)
        code = EXIT_USAGE
    except Exception as fault:  # noqa: BLE001 - the supervisor: a person gets a line, whatever broke
        _say(fault, verbose)
    return _flushed(code, verbose)


def _parsed(tokens: list[str]) -> Callable[[], int]:
    function, bound, _ = app.parse_args(tokens)

    def command() -> int:
        result = function(*bound.args, **bound.kwargs)
        return result if isinstance(result, int) else 0  # help and `--version` return nothing

    return command


def _leading_options_last(tokens: list[str]) -> list[str]:
    """`olvm -d DIR vm list` as `olvm vm list -d DIR`: options belong to commands, habit puts them first."""
    moved: list[str] = []
    while tokens:
        if tokens[0] in _LEADING_WITH_VALUE and len(tokens) > 1:
            moved += [tokens.pop(0), tokens.pop(0)]
        elif tokens[0] in _LEADING_ALONE or tokens[0].startswith("--directory="):
            moved.append(tokens.pop(0))
        else:
            break
    end = tokens.index("--") if "--" in tokens else len(tokens)
    return [*tokens[:end], *moved, *tokens[end:]] if tokens else moved


def _say(error: BaseException, verbose: bool) -> None:
    with contextlib.suppress(OSError):
        if verbose and not isinstance(error, Interrupted):
            traceback.print_exception(error, file=sys.stderr)
        print(f"olvm: {line_of(error)}", file=sys.stderr)


def _flushed(code: int, verbose: bool) -> int:
    """Write out what stdout holds back; what cannot be written is let go, or the interpreter complains again."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            _say(error, verbose)
            return code or EXIT_FAILED
    return code
