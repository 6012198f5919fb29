"""What expressions see of a message besides its body: one row for each message, made only of what is named."""

from __future__ import annotations

from collections.abc import Container, Sequence

import pytest

from qtools.attributes import TOMBSTONE, Attributes
from qtools.expressions.expression import NO_VARIABLES, VARIABLES, Expression, compile_expression
from qtools.flow.filter import Filter
from qtools.flow.variables import names_in, rows_of
from qtools.message import Batch, Message, Messages
from tests.flow.memory import Ledger

KEYS = [b"k0", None, b"\xff"]
HEADERS = [[("a", b"1"), ("b", None), ("a", b"\xfe")], (), [("c-d", "ü".encode())]]


class Log(Ledger):
    """The origin of records, which are numbers; it notes which columns were made."""

    topic = "events"

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def messages_of(self, records: Sequence[int], bodies: list[bytes]) -> Messages:
        self.made.append("messages")
        return Messages.of(Message(n + 100, 1, b"id %d" % n, b) for n, b in zip(records, bodies, strict=True))

    def delivered_more_than(self, times: int, records: Sequence[int]) -> dict[int, int]:
        return {2: 4}

    def attributes_of(self, records: Sequence[int], only: Container[str] = Attributes._fields) -> Attributes:
        self.made += [name for name in Attributes._fields if name in only]
        return Attributes(
            keys=KEYS if "keys" in only else None,
            headers=HEADERS if "headers" in only else None,
            timestamps=[n + 100 for n in records] if "timestamps" in only else None,
            partitions=[7] * len(records) if "partitions" in only else None,
            offsets=list(records) if "offsets" in only else None,
        )


def recorded(log: Log, bodies: list[bytes]) -> Batch:
    numbers = range(len(bodies))
    return Batch([(log, 0, len(bodies))], None, bodies, numbers, numbers)


@pytest.mark.parametrize(
    ("name", "values", "made"),
    [
        ("key", ["k0", None, {"base64": "/w=="}], ["keys"]),
        ("headers", [{"a": ["1", {"base64": "/g=="}], "b": None}, {}, {"c-d": "ü"}], ["headers"]),
        ("topic", ["events"] * 3, ["topics"]),
        ("timestamp", [100, 101, 102], ["timestamps"]),
        ("attempts", [1, 1, 4], []),
        ("id", ["id 0", "id 1", "id 2"], ["messages"]),
        ("partition", [7, 7, 7], ["partitions"]),
        ("offset", [0, 1, 2], ["offsets"]),
        ("tombstone", [False, False, True], []),
    ],
)
def test_each_variable_and_what_is_read_for_it(name: str, values: list[object], made: list[str]) -> None:
    log = Log()
    rows = rows_of(recorded(log, [b"1", b"", TOMBSTONE]), {name})
    assert [row[VARIABLES.index(name)] for row in rows] == values
    assert log.made == made
    others = [place for place, other in enumerate(VARIABLES) if other != name]
    assert all(not row[place] for row in rows for place in others)


def test_nothing_is_read_for_expressions_without_variables() -> None:
    log = Log()
    batch = recorded(log, [b"1", b"2", b"3"])
    assert rows_of(batch, names_in([compile_expression(".a"), None])) == [NO_VARIABLES] * 3
    assert log.made == []


def test_a_message_of_nsq_and_a_line_of_a_file() -> None:
    nsq = Batch.of(Ledger(), Messages.of([Message(5, 2, b"0123456789abcdef", b"x")]))
    line = Batch.of_bodies(Ledger(), [b"x"])
    assert [dict(zip(VARIABLES, *rows_of(batch, VARIABLES), strict=True)) for batch in (nsq, line)] == [
        {"key": None, "headers": {}, "topic": "events", "timestamp": 5, "attempts": 2, "id": "0123456789abcdef",
         "partition": None, "offset": None, "tombstone": False},
        {"key": None, "headers": {}, "topic": "events", "timestamp": None, "attempts": None, "id": None,
         "partition": None, "offset": None, "tombstone": False},
    ]  # fmt: skip


def test_messages_of_several_origins_have_their_own_topics() -> None:
    class Other(Ledger):
        topic = "other"

    batch = Batch.joined([Batch.of_bodies(Ledger(), [b"1"]), Batch.of_bodies(Other(), [b"2", b"3"])])
    assert [row[VARIABLES.index("topic")] for row in rows_of(batch, {"topic"})] == ["events", "other", "other"]


# ── the filter ──────────────────────────────────────────────────────────────────────────────────


def compiled(text: str | None) -> Expression | None:
    return None if text is None else compile_expression(text)


@pytest.mark.parametrize(
    ("where", "select", "passed"),
    [
        ('$key == "k0"', None, {0: b"{}"}),
        ("$headers.a[0]", "{$key, offset: $offset}", {0: b'{"key":"k0","offset":0}'}),
        ('$headers["c-d"] == "ü"', None, {2: b""}),
        ("$offset > 0", "select($key != null) | $key", {2: b'{"base64":"/w=="}'}),
        (None, "if $key == null then . else empty end", {}),
        ("$attempts > 1 and $timestamp == 102 and $partition == 7", None, {2: b""}),
        ('$offset == 0 or .a == "needs JSON"', None, {0: b"{}"}),
    ],
)
def test_where_and_select(where: str | None, select: str | None, passed: dict[int, bytes]) -> None:
    places, bodies, _ = Filter(compiled(where), compiled(select)).run(recorded(Log(), [b"{}", b"no JSON", b""]))
    assert dict(zip(places, bodies, strict=True)) == passed


def test_only_what_needs_the_body_fails_where_the_body_is_not_json() -> None:
    some = recorded(Log(), [b"{}", b"no JSON", b""])
    assert Filter(compiled("$offset >= 0"), compiled("[$offset]")).run(some)[2] == {}
    assert list(Filter(compiled("$offset < 2"), compiled("[.]")).run(some)[2]) == [1]
    assert list(Filter(compiled("$offset >= 0 and . != 1"), None).run(some)[2]) == [1, 2]
