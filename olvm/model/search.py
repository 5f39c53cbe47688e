"""oVirt's search language: from text to a tree and back.

    query      := [ kind ":" ] [ any ] [ "sortby" field [ "asc" | "desc" ] ] [ "page" number ]
    any        := all { "or" all }
    all        := one { "and" one }
    one        := "not" one | "(" any ")" | field operator value | value
    operator   := "=" | "!=" | "<" | "<=" | ">" | ">="

    status=up and host=kvm1* or name != web* sortby name desc page 2
    Vms: memory >= 8GiB and not (cluster = "old lab" or web)

Rules:
1. Words of the language and names of fields have no case; `and` binds closer than `or`.
2. `*` in a value stands for any text. A value alone is looked for in the name.
3. A tree is flat: no `AllOf` stands directly in an `AllOf`, no `AnyOf` in an `AnyOf` (`all_of` and `any_of`
   see to it), so that `parse(show(query)) == query` for every query.

This module does not know which fields exist; `search_fields` does, and `search_targets` turns a tree into a
predicate or into SQL.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Literal, cast

import msgspec

from olvm.model.errors import BadQuery

QUERY_CHARS_MAX = 4096
QUERY_DEPTH_MAX = 40  # brackets and `not` inside each other; a tree is walked by recursion
PAGE_MAX = 1_000_000

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
OPERATORS: tuple[Operator, ...] = ("=", "!=", "<", "<=", ">", ">=")
KEYWORDS = frozenset({"and", "or", "not", "sortby", "page", "asc", "desc"})

# What may stand before the colon, as oVirt writes it or as we do.
_KIND_BY_WORD: dict[str, str] = {
    word: kind
    for kind in ("vms", "hosts", "clusters", "operations", "events")
    for word in (kind, kind.removesuffix("s"))
}


class Comparison(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    field: str  # lower case
    op: Operator
    value: str


class FreeText(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    value: str


class Not(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    part: Expression


class AllOf(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    parts: tuple[Expression, ...]  # two or more, none of them an AllOf


class AnyOf(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    parts: tuple[Expression, ...]  # two or more, none of them an AnyOf


Expression = Comparison | FreeText | Not | AllOf | AnyOf


class Query(msgspec.Struct, frozen=True, kw_only=True):
    kind: str | None = None  # vms, hosts, …: what the prefix asked for
    where: Expression | None = None  # None: everything
    sort_by: str | None = None
    descending: bool = False
    page: int | None = None  # from 1


def all_of(parts: Iterable[Expression]) -> Expression:
    """The flat conjunction of one or more parts."""
    flat = tuple(leaf for part in parts for leaf in (part.parts if isinstance(part, AllOf) else (part,)))
    assert flat
    return flat[0] if len(flat) == 1 else AllOf(parts=flat)


def any_of(parts: Iterable[Expression]) -> Expression:
    """The flat alternative of one or more parts."""
    flat = tuple(leaf for part in parts for leaf in (part.parts if isinstance(part, AnyOf) else (part,)))
    assert flat
    return flat[0] if len(flat) == 1 else AnyOf(parts=flat)


def nearest(word: str, known: Sequence[str]) -> str:
    """ " (did you mean …?)" or nothing: the tail of every message about an unknown word."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


# ---------------------------------------------------------------- from a tree to text

_BARE = re.compile(r"[A-Za-z0-9_.*/+-]+")


def show(query: Query) -> str:
    """The query as text that `parse` reads back to an equal query."""
    parts = [] if query.where is None else [_show(query.where)]
    if query.sort_by is not None:
        parts.append(f"sortby {query.sort_by} {'desc' if query.descending else 'asc'}")
    if query.page is not None:
        parts.append(f"page {query.page}")
    if query.kind is not None:
        parts.insert(0, f"{query.kind}:")
    return " ".join(parts)


def _show(expression: Expression) -> str:
    match expression:
        case Comparison():
            return f"{expression.field} {expression.op} {_show_value(expression.value)}"
        case FreeText():
            return _show_value(expression.value)
        case Not():
            return f"not {_show_inside(expression.part)}"
        case AllOf():
            return " and ".join(_show_inside(part) for part in expression.parts)
        case AnyOf():
            return " or ".join(_show(part) for part in expression.parts)


def _show_inside(expression: Expression) -> str:
    text = _show(expression)
    return f"({text})" if isinstance(expression, AllOf | AnyOf) else text


def _show_value(value: str) -> str:
    if _BARE.fullmatch(value) and value.lower() not in KEYWORDS:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# ---------------------------------------------------------------- from text to tokens


class _Token(msgspec.Struct, frozen=True, kw_only=True):
    kind: Literal["word", "quoted", "operator", "bracket", "end"]
    text: str  # of a quoted value: what is between the quotes, unescaped
    position: int

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text.lower() in words

    def is_bracket(self, bracket: str) -> bool:
        return self.kind == "bracket" and self.text == bracket

    def is_value(self) -> bool:
        return self.kind == "quoted" or (self.kind == "word" and self.text.lower() not in KEYWORDS)


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<operator> != | <= | >= | = | < | > )
      | (?P<bracket> [()] )
      | "(?P<double> (?: [^"\\] | \\. )* )"
      | '(?P<single> (?: [^'\\] | \\. )* )'
      | (?P<word> [^\s()"'=<>!]+ )
      | (?P<end> \Z )
    )""",
    re.VERBOSE | re.DOTALL,
)
_PREFIX = re.compile(r"\s*([A-Za-z]+)\s*:")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def _malformed(text: str, position: int, problem: str) -> BadQuery:
    """One line with a caret before the character that stopped us."""
    before, after = text[max(0, position - 30) : position], text[position : position + 30]
    shown = re.sub(r"\s", " ", f"{before}^{after}")
    return BadQuery(f"cannot read the search at character {position + 1}: {problem}; see ^ in: {shown}")


def _tokens(text: str, position: int) -> list[_Token]:
    tokens: list[_Token] = []
    while not tokens or tokens[-1].kind != "end":
        match = _TOKEN.match(text, position)
        if match is None:
            position += len(text[position:]) - len(text[position:].lstrip())
            raise _malformed(text, position, _unreadable(text[position]))
        kind = match.lastgroup
        assert kind is not None
        token_text, start = match[kind], match.start(kind)
        if kind in ("double", "single"):
            token_text, start, kind = (
                re.sub(r"\\(.)", r"\1", token_text, flags=re.DOTALL),
                start - 1,
                "quoted",
            )
        tokens.append(
            _Token(
                kind=cast(Literal["word", "quoted", "operator", "bracket", "end"], kind),
                text=token_text,
                position=start,
            )
        )
        position = match.end()
    return tokens


def _unreadable(char: str) -> str:
    if char == "!":
        return "! stands only in !=, use not to negate"
    return f"the quote {char} is not closed, add the closing one"


# ---------------------------------------------------------------- from tokens to a tree


def parse(text: str) -> Query:
    """The tree of a search; an empty search asks for everything.

    Raises:
        BadQuery: malformed, longer than `QUERY_CHARS_MAX`, or nested deeper than `QUERY_DEPTH_MAX`.
    """
    if len(text) > QUERY_CHARS_MAX:
        raise BadQuery(f"the search has {len(text)} characters; use at most {QUERY_CHARS_MAX}")
    prefix = _PREFIX.match(text)
    kind = None if prefix is None else _kind(text, prefix)
    parser = _Parser(text, _tokens(text, 0 if prefix is None else prefix.end()))
    return parser.query(kind)


def _kind(text: str, prefix: re.Match[str]) -> str:
    word = prefix[1].lower()
    if word not in _KIND_BY_WORD:
        known = sorted(set(_KIND_BY_WORD.values()))
        hint = f"known are {', '.join(known)}; quote a text that has a :"
        problem = f"unknown kind {word}{nearest(word, known)}, {hint}"
        raise _malformed(text, prefix.start(1), problem)
    return _KIND_BY_WORD[word]


class _Parser:
    """One pass over the tokens; `at` never passes the end token."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self.text = text
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        token = self.token
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def fail(self, problem: str, token: _Token) -> BadQuery:
        return _malformed(self.text, token.position, problem)

    def query(self, kind: str | None) -> Query:
        where = None if self.token.kind == "end" or self.token.is_word("sortby", "page") else self.any()
        sort_by, descending = self.sorting()
        page = self.page()
        if self.token.kind != "end":
            raise self.fail(self.leftover(sort_by, page), self.token)
        return Query(kind=kind, where=where, sort_by=sort_by, descending=descending, page=page)

    def leftover(self, sort_by: str | None, page: int | None) -> str:
        if self.token.is_bracket(")"):
            return "this ) closes nothing, remove it"
        if page is not None:
            return "nothing may follow the page"
        if sort_by is not None:
            return "only asc, desc or page may follow the field of sortby"
        return "expected and, or, sortby or page here; quote a value that has spaces"

    def sorting(self) -> tuple[str | None, bool]:
        if not self.token.is_word("sortby"):
            return None, False
        self.take()
        field = self.field(self.take())
        descending = self.token.is_word("desc")
        if self.token.is_word("asc", "desc"):
            self.take()
        return field, descending

    def page(self) -> int | None:
        if not self.token.is_word("page"):
            return None
        self.take()
        token = self.take()
        if not (token.kind == "word" and re.fullmatch(r"[0-9]{1,7}", token.text)):
            raise self.fail("expected a number of a page", token)
        page = int(token.text)
        if not 1 <= page <= PAGE_MAX:
            raise self.fail(f"pages go from 1 to {PAGE_MAX}", token)
        return page

    def any(self) -> Expression:
        parts = [self.all()]
        while self.token.is_word("or"):
            self.take()
            parts.append(self.all())
        return any_of(parts)

    def all(self) -> Expression:
        parts = [self.one()]
        while self.token.is_word("and"):
            self.take()
            parts.append(self.one())
        return all_of(parts)

    def one(self) -> Expression:
        token = self.take()
        if token.is_word("not"):
            self.deeper(token)
            part = self.one()
            self.depth -= 1
            return Not(part=part)
        if token.is_bracket("("):
            self.deeper(token)
            inside = self.any()
            if not self.token.is_bracket(")"):
                raise self.fail("expected and, or or the ) of an open bracket", self.token)
            self.take()
            self.depth -= 1
            return inside
        if self.token.kind == "operator":
            return self.comparison(self.field(token))
        if not token.is_value():
            raise self.fail("expected a field and its value, or a text to look for", token)
        return FreeText(value=token.text)

    def deeper(self, token: _Token) -> None:
        self.depth += 1
        if self.depth > QUERY_DEPTH_MAX:
            raise self.fail(f"brackets and not go at most {QUERY_DEPTH_MAX} deep", token)

    def field(self, token: _Token) -> str:
        if not (token.kind == "word" and token.is_value() and _FIELD.fullmatch(token.text)):
            raise self.fail("expected the name of a field", token)
        return token.text.lower()

    def comparison(self, field: str) -> Comparison:
        op = cast(Operator, self.take().text)
        assert op in OPERATORS
        token = self.take()
        if not token.is_value():
            raise self.fail(f"expected a value after {op}; quote it if it is a word of the language", token)
        return Comparison(field=field, op=op, value=token.text)
