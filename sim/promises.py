"""The tables of docs/promises.md, drawn from what the simulator itself goes by, so that the page cannot lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sim.failure_model import FAULTS, LIMITS
from sim.oracles.board import ORACLES
from sim.situations import all_situations


def oracle_table() -> str:
    rows = [(kind.ID, kind.PROMISE, f"`{kind.__module__.replace('.', '/')}.py`") for kind in ORACLES]
    rows.append(
        ("D1", "the same plan gives the same digest in another process", "`sim/explore.py`, `sim/digest.py`")
    )
    return _table(("oracle", "promise", "module"), rows)


def fault_table() -> str:
    rows = [(f"`{name}`", fault.kind, fault.says, _lasts(fault.for_s)) for name, fault in FAULTS.items()]
    return _table(("fault", "of", "what happens", "lasts, s"), rows)


def limit_table() -> str:
    rows = [(f"`{limit.name}`", f"{limit.most:g} {limit.of}", limit.promise) for limit in LIMITS]
    return _table(("limit", "at most", "promised within it"), rows)


def situation_table() -> str:
    return _table(
        ("situation", "what it is"), [(f"`{n}`", says) for n, says in sorted(all_situations().items())]
    )


SECTIONS = {
    "oracles": oracle_table,
    "faults": fault_table,
    "limits": limit_table,
    "situations": situation_table,
}


def filled(page: str) -> str:
    """The page with each table between its markers drawn anew."""
    for name, draw in SECTIONS.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, _, rest = page.partition(begin)
        _, _, tail = rest.partition(end)
        assert tail, f"the page has no place for {name}"
        page = f"{head}{begin}\n{draw()}\n{end}{tail}"
    return page


def _lasts(for_s: tuple[int, int]) -> str:
    return f"{for_s[0]}-{for_s[1]}" if for_s[1] else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def lines() -> Iterator[str]:
        yield "| " + " | ".join(header) + " |"
        yield "|" + "---|" * len(header)
        for row in rows:
            yield "| " + " | ".join(row) + " |"

    return "\n".join(lines()) + "\n"
