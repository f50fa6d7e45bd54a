"""SOQL text to a tree: SELECT, FROM, WHERE, ORDER BY, LIMIT, OFFSET. Knows no objects and no rows.

https://resources.docs.salesforce.com/258/latest/en-us/sfdc/pdf/salesforce_soql_sosl.pdf
What real SOQL has and this subset has not (GROUP BY, aggregates, date literals, ...) is refused as not simulated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from local.simulators.salesforce.errors import Refusal, refuse

LONGEST_QUERY = 100_000
TOKENS = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>'(?:[^'\\]|\\.)*')
      | (?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))
      | (?P<date>\d{4}-\d\d-\d\d)
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+))
      | (?P<word>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
      | (?P<sign><=|>=|!=|<>|[=<>(),:])""",
    re.VERBOSE | re.DOTALL,
)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
KEYWORDS = frozenset({"SELECT", "FROM", "WHERE", "ORDER", "BY", "LIMIT", "OFFSET", "AND", "OR", "NOT", "IN", "LIKE",
                      "INCLUDES", "EXCLUDES", "ASC", "DESC", "NULLS", "FIRST", "LAST"})  # fmt: skip
NOT_SIMULATED = frozenset({"GROUP", "HAVING", "FOR", "WITH", "USING", "UPDATE", "TYPEOF", "ALL", "FIELDS", "TOLABEL",
                           "CONVERTCURRENCY", "FORMAT", "SUM", "AVG", "MIN", "MAX", "COUNT_DISTINCT",
                           "CALENDAR_YEAR", "DAY_ONLY"})  # fmt: skip
DATE_LITERALS = re.compile(r"TODAY|YESTERDAY|TOMORROW|(LAST|THIS|NEXT|N)_\w+", re.IGNORECASE)


class Token(NamedTuple):
    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Literal:
    kind: str  # string, number, date, datetime, boolean, null
    value: Any
    at: int
    text: str


@dataclass(frozen=True)
class Path:
    """A field, perhaps of a parent: Account.Name."""

    parts: tuple[str, ...]
    at: int

    @property
    def text(self) -> str:
        return ".".join(self.parts)


@dataclass(frozen=True)
class Comparison:
    path: Path
    operator: str  # = != < <= > >= LIKE
    literal: Literal


@dataclass(frozen=True)
class Membership:
    path: Path
    operator: str  # IN, NOT IN, INCLUDES, EXCLUDES
    literals: tuple[Literal, ...]


@dataclass(frozen=True)
class SemiJoin:
    path: Path
    negated: bool
    query: Select


@dataclass(frozen=True)
class Not:
    condition: Condition


@dataclass(frozen=True)
class Junction:
    operator: str  # AND, OR
    conditions: tuple[Condition, ...]


Condition = Comparison | Membership | SemiJoin | Not | Junction


@dataclass(frozen=True)
class Order:
    path: Path
    descending: bool
    nulls_first: bool


@dataclass(frozen=True)
class Select:
    items: tuple[Path | Select, ...]  # empty when it counts
    counts: bool
    source: str
    source_at: int
    where: Condition | None
    order: tuple[Order, ...]
    limit: int | None
    offset: int


class Parser:
    """Recursive descent over the tokens of one query."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.position = 0

    def parse(self) -> Select:
        query = self.select()
        if self.peek().kind != "end":
            raise self.unexpected()
        return query

    def select(self, *, nested: bool = False) -> Select:
        self.expect("SELECT")
        counts, items = self.items(nested=nested)
        self.expect("FROM")
        source = self.take("word")
        if self.peek().kind == "word" and self.peek().text.upper() not in KEYWORDS | NOT_SIMULATED:
            raise refuse("NotSimulated", what="an alias in FROM")
        if self.peek().text == ",":
            raise refuse("NotSimulated", what="several objects in FROM")
        where = self.condition() if self.accept("WHERE") else None
        order = self.orders() if self.accept("ORDER") else ()
        limit = self.integer() if self.accept("LIMIT") else None
        offset = self.integer() if self.accept("OFFSET") else 0
        return Select(items, counts, source.text, source.at, where, order, limit, offset)

    def items(self, *, nested: bool) -> tuple[bool, tuple[Path | Select, ...]]:
        items: list[Path | Select] = []
        while True:
            if self.accept("("):
                if nested:
                    raise refuse("NotSimulated", what="a subquery in a subquery")
                items.append(self.select(nested=True))
                self.expect(")")
            else:
                word = self.take("word")
                if self.peek().text == "(":
                    return self.count(word)
                items.append(Path(tuple(word.text.split(".")), word.at))
            if not self.accept(","):
                return False, tuple(items)

    def count(self, word: Token) -> tuple[bool, tuple[Path | Select, ...]]:
        if word.text.upper() != "COUNT":
            raise refuse("NotSimulated", what=f"the function {word.text}")
        self.expect("(")
        if not self.accept(")"):
            raise refuse("NotSimulated", what="count() of a field")
        return True, ()

    def condition(self) -> Condition:
        first = self.simple_condition()
        joined, operator = [first], ""
        while self.peek().text.upper() in ("AND", "OR") and self.peek().kind == "word":
            if operator and self.peek().text.upper() != operator:
                raise self.unexpected()  # AND and OR are not mixed without parentheses
            operator = self.next().text.upper()
            joined.append(self.simple_condition())
        return Junction(operator, tuple(joined)) if operator else first

    def simple_condition(self) -> Condition:
        if self.accept("NOT"):
            return Not(self.simple_condition())
        if self.accept("("):
            inner = self.condition()
            self.expect(")")
            return inner
        word = self.take("word")
        if self.peek().text == "(":
            raise refuse("NotSimulated", what=f"the function {word.text}")
        path = Path(tuple(word.text.split(".")), word.at)
        if self.accept("NOT"):
            self.expect("IN")
            return self.membership(path, "NOT IN")
        operator = self.next()
        if operator.text.upper() in ("IN", "INCLUDES", "EXCLUDES"):
            return self.membership(path, operator.text.upper())
        if operator.text.upper() == "LIKE":
            return Comparison(path, "LIKE", self.literal(like=True))
        if operator.text not in ("=", "!=", "<>", "<", "<=", ">", ">="):
            raise self.unexpected(operator)
        return Comparison(path, "!=" if operator.text == "<>" else operator.text, self.literal())

    def membership(self, path: Path, operator: str) -> Condition:
        self.expect("(")
        if self.peek().text.upper() == "SELECT" and operator in ("IN", "NOT IN"):
            query = self.select(nested=True)
            self.expect(")")
            return SemiJoin(path, operator == "NOT IN", query)
        literals = [self.literal()]
        while self.accept(","):
            literals.append(self.literal())
        self.expect(")")
        return Membership(path, operator, tuple(literals))

    def orders(self) -> tuple[Order, ...]:
        self.expect("BY")
        orders = []
        while True:
            word = self.take("word")
            path = Path(tuple(word.text.split(".")), word.at)
            descending = False
            if self.accept("DESC"):
                descending = True
            else:
                self.accept("ASC")
            nulls_first = True  # https://developer.salesforce.com/docs (ORDER BY): nulls come first by default
            if self.accept("NULLS"):
                nulls_first = bool(self.accept("FIRST"))
                if not nulls_first:
                    self.expect("LAST")
            orders.append(Order(path, descending, nulls_first))
            if not self.accept(","):
                return tuple(orders)

    def literal(self, *, like: bool = False) -> Literal:
        token = self.next()
        match token.kind:
            case "string":
                return Literal("string", _unescape(token, self.text, like=like), token.at, token.text)
            case "number":
                return Literal("number", Decimal(token.text), token.at, token.text)
            case "date":
                return Literal("date", self.valid(date.fromisoformat, token), token.at, token.text)
            case "datetime":
                return Literal(
                    "datetime", self.valid(datetime.fromisoformat, token).astimezone(UTC), token.at, token.text
                )
            case "word" if token.text.lower() in ("true", "false"):
                return Literal("boolean", token.text.lower() == "true", token.at, token.text)
            case "word" if token.text.lower() == "null":
                return Literal("null", None, token.at, token.text)
            case "word" if DATE_LITERALS.fullmatch(token.text):
                raise refuse("NotSimulated", what=f"the date literal {token.text}")
        raise self.unexpected(token)

    def valid(self, read: Any, token: Token) -> Any:
        try:
            return read(token.text)
        except ValueError as exc:
            raise caret("Malformed", self.text, token.at, f"invalid date or time: {token.text}") from exc

    def integer(self) -> int:
        token = self.take("number")
        if not token.text.isdigit():
            raise self.unexpected(token)
        return int(token.text)

    # Tokens

    def peek(self) -> Token:
        return self.tokens[self.position]

    def next(self) -> Token:
        token = self.tokens[self.position]
        if token.kind != "end":
            self.position += 1
        return token

    def accept(self, text: str) -> bool:
        """Whether the next token is this keyword or sign; it is taken when it is."""
        token = self.peek()
        if token.kind in ("word", "sign") and token.text.upper() == text:
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise self.unexpected()

    def take(self, kind: str) -> Token:
        token = self.peek()
        if token.kind != kind or (kind == "word" and token.text.upper() in KEYWORDS):
            raise self.unexpected()
        if kind == "word" and token.text.upper() in NOT_SIMULATED and self.tokens[self.position + 1].text == "(":
            raise refuse("NotSimulated", what=f"{token.text}()")
        return self.next()

    def unexpected(self, token: Token | None = None) -> Refusal:
        token = token or self.peek()
        if token.kind == "end":
            return caret("Malformed", self.text, token.at, "unexpected token: '<EOF>'")
        if token.kind == "word" and token.text.upper() in NOT_SIMULATED:
            return refuse("NotSimulated", what=f"{token.text.upper()} in a query")
        return caret("Malformed", self.text, token.at, f"unexpected token: '{token.text}'")


@lru_cache(maxsize=1024)
def parse(text: str) -> Select:
    if len(text) > LONGEST_QUERY:
        raise refuse("Malformed", message="SOQL statements cannot be longer than 100000 characters.")
    return Parser(text).parse()


def caret(name: str, text: str, at: int, message: str) -> Refusal:
    """A refusal that points at a place of the query."""
    row, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    line = text.split("\n")[row - 1]
    pointer = " " * (column - 1) + "^"
    return refuse(name, message=f"\n{line}\n{pointer}\nERROR at Row:{row}:Column:{column}\n{message}")


def _tokens(text: str) -> list[Token]:
    tokens, at = [], 0
    while at < len(text):
        found = TOKENS.match(text, at)
        if found is None:
            raise caret("Malformed", text, at, f"unexpected token: '{text[at]}'")
        if found.lastgroup != "space":
            tokens.append(Token(str(found.lastgroup), found.group(), at))
        at = found.end()
    return [*tokens, Token("end", "", len(text))]


def _unescape(token: Token, text: str, *, like: bool) -> str:
    """The text of a string literal; in LIKE an escaped % or _ keeps its backslash."""

    def character(found: re.Match[str]) -> str:
        escaped = found.group(1)
        if like and escaped in "_%":
            return "\\" + escaped
        if like and escaped == "\\":
            return "\\\\"
        if escaped not in ESCAPES:
            raise caret(
                "Malformed",
                text,
                token.at,
                f"Invalid string literal {token.text}. Illegal character sequence '\\{escaped}' in string literal.",
            )
        return ESCAPES[escaped]

    return re.sub(r"\\(.)", character, token.text[1:-1], flags=re.DOTALL)
