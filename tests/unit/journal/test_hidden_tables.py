"""No way of asking leads to a hidden table; what people ask goes through."""

from __future__ import annotations

import pytest

from olvm.journal.snapshot import SqlParser
from olvm.model.errors import BadQuery, Denied

HIDDEN = frozenset({"user_verifiers"})


@pytest.fixture(scope="module")
def parser() -> SqlParser:
    return SqlParser()


@pytest.mark.parametrize(
    "sql",
    [
        "select * from user_verifiers",
        "from USER_Verifiers",
        'select * from "User_Verifiers"',
        "table user_verifiers",
        "select * from main.user_verifiers",
        "select * from engine.main.user_verifiers",
        "select * from 'user_verifiers'",
        "summarize user_verifiers",
        "describe user_verifiers",
        "show user_verifiers",
        "select * from (summarize user_verifiers)",
        "select (select verifier from user_verifiers limit 1)",
        "select name from users where exists (from user_verifiers v where v.name = users.name)",
        "values ((select verifier from user_verifiers))",
        "unpivot user_verifiers on verifier into name n value v",
        "with x as (from user_verifiers) from x",
        # A common table of that name hides it from a list of names, and may be made of it all the same.
        "with user_verifiers as (select * from main.user_verifiers) from user_verifiers",
        "select * from users u left join user_verifiers using (name)",
        "select * from vms union all select * from user_verifiers",
        "explain select * from user_verifiers",
        "explain analyze select * from user_verifiers",
        "explain (analyze, format json) from user_verifiers",
        "select * from query_table('user_verifiers')",
        "select * from query_table(['user_verifiers'])",
        "select * from query('from user_verifiers')",
        "from histogram('user_verifiers', verifier)",
        "from pragma_storage_info('user_verifiers')",
        "from json_execute_serialized_sql(json_serialize_sql('from user_verifiers'))",
    ],
)
def test_question_that_names_a_hidden_table_is_refused(sql: str, parser: SqlParser) -> None:
    with pytest.raises(Denied, match="user_verifiers"):
        parser.check_shown(sql, HIDDEN)


@pytest.mark.parametrize(
    "sql",
    [
        "select * from query_table('user_' || 'verifiers')",
        "select * from query_table($1)",
        "select * from query(concat('from user_', 'verifiers'))",
        "from histogram(reverse('sreifirev_resu'), verifier)",
        "from histogram_values(concat('user_', 'verifiers'), verifier)",
        "from json_execute_serialized_sql(json_serialize_sql('from user_' || 'verifiers'))",
        "from pragma_storage_info('user_' || 'verifiers')",
        "from duckdb_table_sample('user_' || 'verifiers')",
        "from QUERY('select 1')",
        "select * from vms, query('select 1')",
        "select (select max(x) from query('select 1 as x'))",
        "select * from read_csv('/etc/passwd')",
    ],
)
def test_question_by_a_function_that_takes_a_name_or_sql_is_refused(sql: str, parser: SqlParser) -> None:
    with pytest.raises(BadQuery, match="not offered"):
        parser.check_shown(sql, HIDDEN)


@pytest.mark.parametrize(
    "sql",
    [
        "pivot user_verifiers on name using first(verifier)",
        "from vms; from user_verifiers",
        "copy user_verifiers to 'x.csv'",
        "call query_table('user_verifiers')",
        "selec",
        "",
    ],
)
def test_question_that_is_no_select_is_refused(sql: str, parser: SqlParser) -> None:
    with pytest.raises(BadQuery):
        parser.check_shown(sql, HIDDEN)


@pytest.mark.parametrize(
    "sql",
    [
        "select * from users",
        "from users where name = 'verifiers'",
        "select count(*) from vms v, json_each(v.tasks)",
        "select unnest(guest_ips) from vms",
        "select * from range(10), generate_series(1, 3)",
        "with recursive t(n) as (select 1 union all select n + 1 from t where n < 5) from t",
        "show tables",
        "show all tables",
        "describe vms",
        "summarize vms",
        "from duckdb_tables()",
        "explain analyze from vms",
        "select host, count(*) from history.samples group by all",
    ],
)
def test_question_of_anything_else_goes_through(sql: str, parser: SqlParser) -> None:
    parser.check_shown(sql, HIDDEN)
