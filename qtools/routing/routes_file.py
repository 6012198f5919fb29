"""Parses a routes file. In: a path, or TOML. Out: routes; or an error that names the file, the route and what is wrong.

    [[route]]    to, and optionally name, when, select, sample, last
    [default]    to
    [[test]]     message, and to (the topics it goes to, in any order) or error = true; optionally name, and the
                 variables of the message: key, headers, topic, timestamp, attempts, id, partition, offset

A `to` is a topic, a template for one ('events.\\(.type)'), or a list of them. Unknown keys are refused: a misspelt
`wen` would route everything.
"""

from __future__ import annotations

import re
import tomllib
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from qtools.errors import ExpressionError, NameInvalid, UsageError
from qtools.expressions.expression import NO_VARIABLES, VARIABLES, compile_expression
from qtools.flow.variables import Row
from qtools.names import MAX_NAME_LENGTH, check_topic
from qtools.routing.routes import Route, Routes, To

ROUTE_KEYS = ("name", "when", "to", "select", "sample", "last")
DEFAULT_KEYS = ("to",)
TEST_KEYS = ("name", "message", "to", "error", *VARIABLES)
FILE_KEYS = ("route", "default", "test")

Made = TypeVar("Made")


@dataclass(slots=True)
class Test:
    """A test in a routes file: `message` goes to the topics `to`, or (error) it cannot be routed. row: its
    variables."""

    name: str
    message: bytes
    to: tuple[str, ...]
    error: bool = False
    row: Row = NO_VARIABLES


@dataclass(slots=True)
class RoutesFile:
    """The content of a valid routes file."""

    path: str
    routes: list[Route]
    default: tuple[To, ...]
    tests: list[Test]
    longest_topic: int = MAX_NAME_LENGTH

    def make(self, **settings: Any) -> Routes:
        """The Routes of this file. settings: the other arguments of Routes, which depend on the command."""
        return Routes(self.routes, self.default, longest_topic=self.longest_topic, **settings)

    def failures(self) -> list[str]:
        """A line for each test that fails. In tests a route that samples sends all matching messages."""
        lines = []
        for test in self.tests:
            plan = self.make(draw=lambda: 0.0).plan_bodies([test.message], [test.row])
            went = sorted(topic for topic, _ in plan.groups)
            if plan.failed:
                outcome = f"failed: {plan.failed[0]}"
            else:
                outcome = f"went to {', '.join(went)}" if went else "went nowhere"
            where = f"go to {', '.join(test.to)}" if test.to else "go nowhere"
            wanted = "fail" if test.error else where
            if bool(plan.failed) != test.error or (not test.error and went != sorted(set(test.to))):
                lines.append(f"{self.path}: {test.name}: the message should {wanted}, but {outcome}")
        return lines


def to_of(text: str, longest: int = MAX_NAME_LENGTH) -> To:
    """Parse a topic or a template for one; NameInvalid or ExpressionError if `text` is neither. longest: the most
    characters of a topic."""
    if "\\(" not in text:
        return To(check_topic(text, longest))
    template = compile_expression(f'"{text}"')
    fixed = "".join(template_literals(text))
    if len(fixed) > longest:
        raise NameInvalid("topic", text, f"has {len(fixed)} fixed characters, at most {longest} are allowed")
    bad = re.search(r"[^.a-zA-Z0-9_#-]", fixed)
    if bad is not None:
        raise NameInvalid("topic", text, f"has {bad[0]!r}; allowed are letters, digits and . _ -, and \\(…)")
    return To(text, template)


def template_literals(text: str) -> list[str]:
    """The texts outside of each \\(…) of a valid template."""
    parts, at = [], 0
    while (start := text.find("\\(", at)) >= 0:
        parts.append(text[at:start])
        at = _closing(text, start + 2)
    parts.append(text[at:])
    return parts


def _closing(text: str, at: int) -> int:
    """The index behind the bracket that closes the one before `at`. Brackets within strings do not count."""
    depth, quoted = 1, False
    while at < len(text) and depth:
        char = text[at]
        if char == "\\" and quoted and text[at + 1 : at + 2] == "(":
            at = _closing(text, at + 2)
            continue
        if char == "\\":
            at += 1
        elif char == '"':
            quoted = not quoted
        elif not quoted:
            depth += (char == "(") - (char == ")")
        at += 1
    return at


def parse_routes(path: str, data: bytes, longest: int = MAX_NAME_LENGTH) -> RoutesFile:
    """Parse `data`, the content of the file `path`; UsageError if it is not a valid routes file. longest: the most
    characters of a topic."""
    try:
        loaded = tomllib.loads(data.removeprefix(BOM_UTF8).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 (at byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {_lowered(str(error))}") from error
    reader = _Reader(path, longest)
    reader.known("the file", loaded, FILE_KEYS)
    routes = reader.tables(loaded, "route")
    tests = reader.tables(loaded, "test")
    default = loaded.get("default")
    if default is not None and not isinstance(default, dict):
        raise UsageError(f"{path}: default is not a table: write [default]")
    if not routes and default is None:
        raise UsageError(f"{path} has no [[route]] and no [default]: nothing would go anywhere")
    file = RoutesFile(path, [], (), [], longest)
    for nth, table in enumerate(routes, 1):
        file.routes.append(reader.route(nth, table))
    if default is not None:
        reader.known("[default]", default, DEFAULT_KEYS)
        file.default = reader.targets("[default]", default)
    for nth, table in enumerate(tests, 1):
        file.tests.append(reader.test(nth, table))
    return file


def read_routes(path: str, longest: int = MAX_NAME_LENGTH) -> RoutesFile:
    """The file at `path`; UsageError if it cannot be read, or is not valid. longest: the most characters of a topic."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UsageError(f"cannot read the routes file {path}: {error.strerror or error}") from error
    return parse_routes(path, data, longest)


def tested_routes(path: str, longest: int) -> RoutesFile:
    """As read_routes; UsageError also if a test in the file fails."""
    file = read_routes(path, longest)
    failures = file.failures()
    if failures:
        more = f" (and {len(failures) - 1} more: see q-bridge --check {path})" if len(failures) > 1 else ""
        raise UsageError(failures[0] + more)
    return file


class _Reader:
    """Reads the tables of a file; its errors name the file and the table."""

    def __init__(self, path: str, longest: int) -> None:
        self.path = path
        self.longest = longest

    def fail(self, where: str, why: str) -> UsageError:
        return UsageError(f"{self.path}: {where}: {why}")

    def known(self, where: str, table: Mapping[str, Any], keys: Sequence[str]) -> None:
        for key in table:
            if key not in keys:
                from difflib import get_close_matches

                near = get_close_matches(key, keys, 1)
                raise self.fail(
                    where,
                    f"unknown key {key!r}: " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(keys)}"),
                )

    def tables(self, loaded: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
        tables = loaded.get(key, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise UsageError(f"{self.path}: {key} is not a list of tables: write [[{key}]], with two brackets")
        return tables

    def get(self, where: str, table: Mapping[str, Any], key: str, kind: type, what: str, absent: Any) -> Any:
        value = table.get(key, absent)
        if value is not absent and not isinstance(value, kind):
            raise self.fail(where, f"{key} is {what}, not {value!r}")
        return value

    def route(self, nth: int, table: dict[str, Any]) -> Route:
        name = table.get("name", f"route {nth}")
        where = f"route {nth} ({name!r})" if "name" in table else f"route {nth}"
        self.known(where, table, ROUTE_KEYS)
        if not isinstance(name, str) or not name:
            raise self.fail(where, f"name is a text, not {name!r}")
        when = self.get(where, table, "when", str, "an expression in quotes", None)
        select = self.get(where, table, "select", str, "an expression in quotes", None)
        sample = table.get("sample", 1.0)
        if isinstance(sample, bool) or not isinstance(sample, (int, float)) or not 0 < sample <= 1:
            raise self.fail(where, f"sample is a share above 0 and at most 1, not {sample!r}")
        return Route(
            name,
            self.targets(where, table),
            None if when is None else self.compiled(where, "when", compile_expression, when),
            None if select is None else self.compiled(where, "select", compile_expression, select),
            float(sample),
            self.get(where, table, "last", bool, "true or false", False),
        )

    def targets(self, where: str, table: Mapping[str, Any]) -> tuple[To, ...]:
        given = table.get("to")
        if given is None:
            raise self.fail(where, "it has no to: say which topic it sends to")
        texts = given if isinstance(given, list) else [given]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise self.fail(where, f"to is a topic in quotes, or a list of them, not {given!r}")
        return tuple(
            self.compiled(where, "to", partial(to_of, longest=self.longest), text) for text in dict.fromkeys(texts)
        )

    def compiled(self, where: str, key: str, make: Callable[[str], Made], text: str) -> Made:
        try:
            return make(text)
        except (ExpressionError, NameInvalid) as error:
            raise self.fail(where, f"{key}: {error}") from error

    def test(self, nth: int, table: dict[str, Any]) -> Test:
        where = f"test {nth}"
        self.known(where, table, TEST_KEYS)
        name = self.get(where, table, "name", str, "a text", "")
        where = f"test {nth} ({name!r})" if name else where
        message = self.get(where, table, "message", str, "the body in quotes", None)
        if not message:
            raise self.fail(where, "it has no message")
        error = self.get(where, table, "error", bool, "true or false", False)
        to = self.get(where, table, "to", list, "a list of topics", None)
        if (to is None) is not error:
            raise self.fail(where, "give to (a list of topics, [] for nowhere), or error = true")
        if to is not None and not all(isinstance(topic, str) for topic in to):
            raise self.fail(where, f"to is a list of topics, not {to!r}")
        return Test(where, message.encode(), tuple(to or ()), error, self.row(where, table))

    def row(self, where: str, table: dict[str, Any]) -> Row:
        """The variables of a test's message."""
        for name in ("key", "topic", "id"):
            self.get(where, table, name, str, "a text", None)
        for name in ("timestamp", "attempts", "partition", "offset"):
            if isinstance(self.get(where, table, name, int, "an integer", None), bool):
                raise self.fail(where, f"{name} is an integer, not {table[name]!r}")
        headers = self.get(where, table, "headers", dict, 'a table, as in {name = "value"}', {})
        for name, value in headers.items():
            if not isinstance(value, str):
                raise self.fail(where, f"header {name} is a text, not {value!r}")
        return [table.get(name, absent) for name, absent in zip(VARIABLES, NO_VARIABLES, strict=True)]


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
