"""What a Redis server answers, as plain data. In: values of a reader. Out: the same, in the shape that callers need.

    RESP                            here
    simple, bulk, verbatim string   bytes; of a verbatim string without its type
    integer, boolean, double        int, bool, float
    big number                      bytes, its digits
    null, null array                None
    array, set                      list
    map                             dict
    error                           ErrorReply, which is not raised
    push                            Push

A server speaks RESP2 until it is asked for RESP3 (HELLO 3). RESP2 has no maps: a list of names and values stands there.
https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtools.errors import one_line

Reply = Any  # as the table above says; a list or a dict holds replies
Entry = Sequence[Any]  # [id, [field, value, field, value, …]]; the list is None if the entry was deleted


class ErrorReply:
    """An error that a server answers to a command. code: its first word ("WRONGTYPE"). text: the rest, for people."""

    __slots__ = ("code", "text")

    def __init__(self, line: str) -> None:
        """line: of the reply, without its first byte and its end."""
        code, _, text = line.partition(" ")
        self.code, self.text = (code, text) if code.isupper() and code.isascii() else ("ERR", line)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ErrorReply) and (self.code, self.text) == (other.code, other.text)

    def __hash__(self) -> int:
        return hash((self.code, self.text))

    def __str__(self) -> str:
        """As one printable line."""
        return one_line(f"{self.code} {self.text}")

    def __repr__(self) -> str:
        return f"ErrorReply({self.code!r}, {self.text!r})"


class Push(list[Reply]):
    """What a server sends without a command before it (RESP3)."""

    __slots__ = ()


def as_map(reply: Reply) -> dict[bytes, Reply]:
    """A reply of names and values as a dict: a map of RESP3, or the list of RESP2; {} for any other reply."""
    if isinstance(reply, dict):
        return reply
    if not isinstance(reply, list):
        return {}
    return {name: value for name, value in zip(reply[::2], reply[1::2], strict=False) if isinstance(name, bytes)}


def entries_of(reply: Reply) -> list[tuple[bytes, list[Entry]]]:
    """A reply to XREAD or XREADGROUP: the entries of each stream, by its key; none where the time to wait was over."""
    if not reply:
        return []
    return list(reply.items()) if isinstance(reply, dict) else [(key, entries) for key, entries in reply]
