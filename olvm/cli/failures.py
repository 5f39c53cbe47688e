"""How a failure reads on the command line: one line that says what, which object, why and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from olvm.model.errors import OlvmError

IDS_SHOWN_MAX = 5


class CommandFailed(Exception):
    """What failed has been said already, a line each; only the exit code is left to tell."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while operations were waited for: they go on, and the message says which."""

    def __init__(self, operation_ids: Sequence[str]) -> None:
        super().__init__(operation_ids)
        self.operation_ids = list(operation_ids)


def line_of(error: BaseException) -> str:
    """The error in one line."""
    match error:
        case Interrupted() if error.operation_ids:
            return f"interrupted; {goes_on(error.operation_ids)}"
        case KeyboardInterrupt():
            return "interrupted"
        case OlvmError():
            text = error.message
        case OSError():
            text = error.strerror or str(error)
            text = f"{error.filename}: {text}" if error.filename else f"cannot write the output: {text}"
        case _ if type(error).__module__.startswith("cyclopts"):
            text = f"{_sentence(str(error))}; `olvm --help` shows how"
        case _:
            text = f"internal error, {type(error).__name__}: {error}; run it again with -v and report what it shows"
    return " ".join(text.split())


def goes_on(operation_ids: Sequence[str]) -> str:
    """What becomes of operations that nobody waits for any more, and how to wait again."""
    shown = " ".join(operation_ids[:IDS_SHOWN_MAX])
    more = len(operation_ids) - IDS_SHOWN_MAX
    rest = f" and {more} more" if more > 0 else ""
    verb = "the operation goes on" if len(operation_ids) == 1 else f"{len(operation_ids)} operations go on"
    return f"{verb}{rest and ' (' + rest.strip() + ')'}; wait with `olvm operation wait {shown}`"


def exit_code_of(errors: Sequence[OlvmError]) -> int:
    """Of several failures: their code where they agree, otherwise 1."""
    codes = {error.exit_code for error in errors}
    return codes.pop() if len(codes) == 1 else 1


def _sentence(text: str) -> str:
    text = " ".join(text.split()).rstrip("., ")
    return text[:1].lower() + text[1:]
