"""Reads replies in Python alone. In: chunks of bytes, as they arrive. Out: the replies that are complete.

    +OK\r\n    -ERR text\r\n    :12\r\n    $3\r\nabc\r\n    *2\r\n… …                        RESP2
    _\r\n    #t\r\n    ,1.5\r\n    (123\r\n    =7\r\ntxt:abc\r\n    %1\r\n… …    ~1\r\n…    >1\r\n…     RESP3

Nothing is allocated for a size that a server has only announced. What was parsed of a reply is kept until the rest
arrives, so that no byte is parsed twice; the bytes of a long string are collected in a list until all are there.

Errors that carry a length (!), attributes (|) and strings of unknown length ($?) are refused: no server sends them to
a client that does not ask for them, and hiredis does not read them either.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from qtools.engines.redis.protocol.replies import ErrorReply, Push, Reply
from qtools.errors import ProtocolError

LONGEST_LINE = 65_536  # bytes of a line; only errors are longer than a few dozen
LONGEST_STRING = 1 << 30  # bytes; a server's own default is 512 MiB (proto-max-bulk-len)
DEEPEST = 32  # lists in lists; the deepest reply here, XINFO STREAM … FULL, has 5
LARGEST_REPLY = 1 << 31  # bytes of one reply with all that is in it

_INTEGER = re.compile(rb"-?[0-9]{1,19}")
_BIG_NUMBER = re.compile(rb"[+-]?[0-9]+")
# Ids of entries, of the lengths that they have: a time of 13 digits, a number of 1 to 4.
_ID = rb"(?:" + rb"|".join(rb"\$%d\r\n[0-9-]{%d}" % (length, length) for length in range(15, 19)) + rb")\r\n"
_IDS = re.compile(rb"(?:%b)+" % _ID)  # what XADD answers
# The start of an entry that has only a body, up to the body: most of what is read.
_PLAIN_ENTRY = re.compile(
    rb"\*2\r\n\$1[5678]\r\n((?<=5\r\n)[0-9-]{15}|(?<=6\r\n)[0-9-]{16}|(?<=7\r\n)[0-9-]{17}|(?<=8\r\n)[0-9-]{18})"
    rb"\r\n\*2\r\n\$4\r\nbody\r\n\$([0-9]{1,9})\r\n"
)
_MOST, _LEAST = (1 << 63) - 1, -(1 << 63)  # an integer has 64 bits
_TYPES = frozenset(b"+-:$*_#,(=%~>")
_STRING, _VERBATIM, _LIST = b"$=*"
_LISTS = {0x2A: list, 0x7E: list, 0x25: dict, 0x3E: Push}  # * ~ % >


class _Open(NamedTuple):
    """A list whose items have not all arrived. room: of the items when it is complete."""

    kind: type
    room: int
    items: list[Reply]


class ReplyReader:
    """`read` returns what is complete. After a ProtocolError nothing more can be read."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._waiting: list[bytes] = []  # chunks of a string that is not complete
        self._missing = 0  # bytes until it is complete
        self._open: list[_Open] = []  # the outermost first
        self._size = 0  # bytes since the last complete reply

    def read(self, chunk: bytes) -> list[Reply]:
        """The replies that `chunk` completes, in order; ProtocolError."""
        self._size += len(chunk)
        if self._size > LARGEST_REPLY:
            raise ProtocolError(f"a reply has more than {LARGEST_REPLY:,} bytes")
        if self._missing > 0:
            self._waiting.append(chunk)
            self._missing -= len(chunk)
            if self._missing > 0:
                return []
            self._data, self._at = b"".join(self._waiting), 0
            self._waiting.clear()
            self._missing = 0
        else:
            self._data, self._at = self._data[self._at :] + chunk, 0
        replies: list[Reply] = []
        self._parse(replies)
        if replies:
            self._size = len(self._data) - self._at
        return replies

    def _parse(self, replies: list[Reply]) -> None:
        """Parse what is complete. Runs of the two values that come in millions are parsed in one step each."""
        data, at = self._data, self._at
        find, size, add = data.find, len(data), self._add
        while at < size:
            kind = data[at]
            if kind == _STRING and not self._open and (run := _IDS.match(data, at)) is not None:
                replies += run[0].split(b"\r\n")[1::2]
                at = run.end()
                continue
            if kind == _LIST and self._open:
                if (end := self._parse_plain_entries(at)) > at:
                    at = end
                    continue
            elif kind not in _TYPES:
                raise ProtocolError(f"no reply begins like this: {_shown(data[at:])}")
            end = find(b"\r\n", at, at + LONGEST_LINE)
            if end < 0:
                if size - at >= LONGEST_LINE:
                    raise ProtocolError(f"a line has more than {LONGEST_LINE:,} bytes: {_shown(data[at:])}")
                break
            line = data[at + 1 : end]
            start = end + 2
            if kind in (_STRING, _VERBATIM):
                length = _integer(line)
                if length == -1 and kind == _STRING:
                    at = start
                    add(None, replies)
                    continue
                if not 0 <= length <= LONGEST_STRING:
                    raise ProtocolError(f"a string is said to have {length:,} bytes")
                stop = start + length
                if size < stop + 2:
                    self._missing = stop + 2 - size
                    self._waiting.append(data[at:])
                    self._data, self._at = b"", 0
                    return
                if data[stop : stop + 2] != b"\r\n":
                    raise ProtocolError(f"a string of {length:,} bytes goes on: {_shown(data[stop:])}")
                at = stop + 2
                add(data[start:stop] if kind == _STRING else _verbatim(data[start:stop]), replies)
            elif kind in _LISTS:
                at = start
                self._open_list(_LISTS[kind], _integer(line), replies)
            else:
                at = start
                add(_value(kind, line), replies)
        self._at = at

    def _open_list(self, kind: type, count: int, replies: list[Reply]) -> None:
        if count == -1:
            self._add(None, replies)
            return
        if count < 0:
            raise ProtocolError(f"a list is said to have {count:,} items")
        if len(self._open) >= DEEPEST:
            raise ProtocolError(f"a reply has more than {DEEPEST} lists in lists")
        if count:
            self._open.append(_Open(kind, 2 * count if kind is dict else count, []))
        else:
            self._add(kind(), replies)

    def _add(self, value: Reply, replies: list[Reply]) -> None:
        """`value` is complete, and with it maybe the lists in which it stands."""
        while self._open:
            top = self._open[-1]
            top.items.append(value)
            if len(top.items) < top.room:
                return
            self._open.pop()
            value = _closed(top)
        replies.append(value)

    def _parse_plain_entries(self, at: int) -> int:
        """Parse the entries from `at` on that have only a body, as far as they are complete, but not the last item of
        the list. Returns where they end."""
        data = self._data
        _, room, items = self._open[-1]
        match, size = _PLAIN_ENTRY.match, len(data)
        for _ in range(room - len(items) - 1):
            found = match(data, at)
            if found is None:
                break
            start = found.end()
            stop = start + int(found[2])
            if stop + 2 > size or data[stop : stop + 2] != b"\r\n":
                break
            items.append([found[1], [b"body", data[start:stop]]])
            at = stop + 2
        return at


def _closed(top: _Open) -> Reply:
    """A list all of whose items are there."""
    if top.kind is list:
        return top.items
    if top.kind is Push:
        return Push(top.items)
    try:
        return dict(zip(top.items[::2], top.items[1::2], strict=True))
    except TypeError as error:
        raise ProtocolError("the key of a map is a list") from error


def _value(kind: int, line: bytes) -> Any:
    """The value of a type that is one line. + - : _ # , ("""
    if kind == 0x2B:
        return _text(line)
    if kind == 0x2D:
        return ErrorReply(_text(line).decode("utf-8", "replace"))
    if kind == 0x3A:
        return _integer(line)
    if kind == 0x5F and not line:
        return None
    if kind == 0x23 and line in (b"t", b"T", b"f", b"F"):
        return line in b"tT"
    if kind == 0x2C:
        try:
            return float(line)
        except ValueError:
            pass
    if kind == 0x28 and _BIG_NUMBER.fullmatch(line):
        return line
    raise ProtocolError(f"this is no value: {_shown(bytes((kind,)) + line)}")


def _verbatim(data: bytes) -> bytes:
    if data[3:4] != b":":
        raise ProtocolError(f"a verbatim string has no type: {_shown(data)}")
    return data[4:]


def _text(line: bytes) -> bytes:
    if b"\r" in line or b"\n" in line:
        raise ProtocolError(f"a line has a line break: {_shown(line)}")
    return line


def _integer(line: bytes) -> int:
    if _INTEGER.fullmatch(line) is None or not _LEAST <= (value := int(line)) <= _MOST:
        raise ProtocolError(f"this is no number: {_shown(line)}")
    return value


def _shown(data: bytes) -> str:
    """The first bytes of `data`, for a message."""
    return repr(data[:24])[1:]
