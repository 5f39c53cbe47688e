"""Tables that a question may not read, whatever way it takes.

Rules:
1. A statement in which the name of a hidden table stands anywhere is refused: as a table, an alias, or a text that a
   function could take for a table's name.
2. So is one that calls a table function which is not in OFFERED: several take a table's name, or SQL itself, as a
   text, which an expression may put together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from olvm.model.errors import BadQuery, Denied

# Of DuckDB 2.0's, those that make rows of their arguments, or tell of tables what may be told.
OFFERED: Final = frozenset(
    {
        "duckdb_columns",
        "duckdb_constraints",
        "duckdb_databases",
        "duckdb_functions",
        "duckdb_indexes",
        "duckdb_keywords",
        "duckdb_memory",
        "duckdb_schemas",
        "duckdb_settings",
        "duckdb_tables",
        "duckdb_types",
        "duckdb_views",
        "generate_series",
        "json_each",
        "json_tree",
        "pg_timezone_names",
        "pragma_database_size",
        "pragma_show",
        "pragma_table_info",
        "pragma_version",
        "range",
        "repeat",
        "repeat_row",
        "unnest",
    }
)


def check_shown(tree: object, hidden: frozenset[str]) -> None:
    """Refuse the statement whose syntax tree this is, if it could read a hidden table.

    Args:
        tree: as DuckDB's `json_serialize_sql` gives it.
        hidden: names in lower case.

    Raises:
        Denied, BadQuery: it is not run.
    """
    if not isinstance(tree, dict) or tree.get("error"):
        said = tree.get("error_message") if isinstance(tree, dict) else None
        raise BadQuery(f"the statement cannot be looked through ({said}); write it as a select")
    nodes = list(_nodes(tree))
    texts = [node.lower() for node in nodes if isinstance(node, str)]
    named = next((name for name in sorted(hidden) if any(name in text for text in texts)), "")
    if named:
        raise Denied(f"table {named} is read by the engine alone; a query may not name it")
    for node in nodes:
        if isinstance(node, dict) and node.get("type") == "TABLE_FUNCTION":
            _check_offered(str(node.get("function", {}).get("function_name", "")).lower())


def _check_offered(function: str) -> None:
    if function not in OFFERED:
        known = ", ".join(sorted(OFFERED))
        raise BadQuery(f"table function {function or '?'} is not offered here; those that are: {known}")


def _nodes(tree: object) -> Iterator[dict[str, Any] | str]:
    """Every object and text of it. Deep trees are walked without recursion."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, str):
            yield node
