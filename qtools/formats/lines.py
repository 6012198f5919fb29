"""Splits chunks of bytes into messages: by a delimiter between them, or a length before each. In: chunks. Out: bodies,
and back.

    raw         body delimiter body delimiter body             the last one may lack its delimiter
    whole       body                                            the whole input is one message
    length32    ├ length 4, big-endian ┼ body … ┤ …

A splitter counts in `consumed` the bytes of complete messages, with their delimiters and with empty messages, so that
reading can begin again at that byte. The chunks of a message are joined once, however small they are, and at most
`longest` bytes of one message are in memory.
"""

from __future__ import annotations

import struct
from typing import Any, Protocol

from qtools.errors import InputError

# bytes. The publisher refuses and logs a body over the broker's limit (nsqd's --max-msg-size is 1 MiB); this is the
# limit of the memory for a message whose end has not been found.
LONGEST = 64 * 1024 * 1024

_LENGTH = struct.Struct(">I")


class Splitter(Protocol):
    """Bytes in, bodies out."""

    base: int  # the offset in the input of the first chunk, for error messages
    consumed: int  # bytes of input from the first chunk to the end of the last body that was returned
    overhead: int  # bytes that a message takes in the input beyond its body
    ends: list[int] | None  # if `overhead` varies: `consumed` behind each message that ended in the last chunk
    empty: int  # all empty messages that were left out
    empty_at: list[int]  # their places among the messages that ended in the last chunk
    records: list[Any] | None  # of the bodies that were returned last (envelope_records.py), if it keeps them

    def feed(self, chunk: bytes) -> list[bytes]:
        """The bodies that end in `chunk`. For damage, InputError is raised by the next call, after the complete bodies
        before the damage have been returned."""

    def end(self) -> list[bytes]:
        """The last body, when the input has ended; InputError if it ended within a message."""


class DelimiterSplitter:
    """Messages with a delimiter between them; the last needs none. Empty messages are left out, and counted."""

    def __init__(self, delimiter: bytes = b"\n", longest: int = LONGEST, *, base: int = 0) -> None:
        if not delimiter:
            raise ValueError("an empty delimiter")
        self.base = base
        self.consumed = 0
        self.overhead = len(delimiter)
        self.ends: list[int] | None = None
        self.empty = 0
        self.empty_at: list[int] = []
        self.records: list[Any] | None = None
        self._delimiter = delimiter
        self._longest = longest
        self._rest: list[bytes] = []  # chunks of a message whose end has not been found
        self._rest_size = 0
        self._tail = b""  # its last bytes: a delimiter may begin there and end in the next chunk
        self._broken: InputError | None = None

    def feed(self, chunk: bytes) -> list[bytes]:
        bodies = self.feed_all(chunk)
        self.empty_at = [] if all(bodies) else [place for place, body in enumerate(bodies) if not body]
        if not self.empty_at:
            return bodies
        self.empty += len(self.empty_at)
        return [body for body in bodies if body]

    def feed_all(self, chunk: bytes) -> list[bytes]:
        """As `feed`, with the empty bodies."""
        if self._broken is not None:
            raise self._broken
        delimiter = self._delimiter
        if self._rest:
            if delimiter not in chunk and (not self._tail or delimiter not in self._tail + chunk[: len(delimiter) - 1]):
                self._hold(chunk)
                return []
            self._rest.append(chunk)
            chunk = b"".join(self._rest)
            self._forget()
        bodies = chunk.split(delimiter)
        last = bodies.pop()
        if len(chunk) > self._longest:
            for place, body in enumerate(bodies):
                if len(body) > self._longest:
                    del bodies[place:]
                    self.consumed += sum(map(len, bodies)) + place * len(delimiter)
                    self._break(at_once=not bodies)
                    return bodies
        self.consumed += len(chunk) - len(last)
        if last:
            self._hold(last, at_once=not bodies)
        return bodies

    def end(self) -> list[bytes]:
        self.empty_at = []
        if self._rest_size > self._longest:
            self._break()
        if self._broken is not None:
            raise self._broken
        last = b"".join(self._rest)
        self._forget()
        self.consumed += len(last)
        return [last] if last else []

    def _hold(self, chunk: bytes, at_once: bool = True) -> None:
        self._rest.append(chunk)
        self._rest_size += len(chunk)
        begun = len(self._delimiter) - 1
        if begun:
            self._tail = chunk[-begun:] if len(chunk) >= begun else (self._tail + chunk)[-begun:]
        if self._rest_size > self._longest + begun:  # its last bytes may belong to a delimiter
            self._break(at_once)

    def _forget(self) -> None:
        self._rest.clear()
        self._rest_size = 0
        self._tail = b""

    def _break(self, at_once: bool = True) -> None:
        """Fail from now on; raise at once if there are no complete bodies to return first."""
        self._forget()
        self._broken = InputError(
            f"a message of more than {self._longest} bytes begins at byte {self.base + self.consumed}:"
            " is the delimiter right?",
            self.base + self.consumed,
            too_long=True,
        )
        if at_once:
            raise self._broken


class WholeSplitter:
    """The whole input as one message. An empty input has no message."""

    def __init__(self, longest: int = LONGEST, *, base: int = 0) -> None:
        self.base = base
        self.consumed = 0
        self.overhead = 0
        self.ends: list[int] | None = None
        self.empty = 0
        self.empty_at: list[int] = []
        self.records: list[Any] | None = None
        self._longest = longest
        self._chunks: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._longest:
            self._chunks.clear()
            raise InputError(
                f"the input has more than {self._longest} bytes, and with -d '' it is one message",
                self.base,
                too_long=True,
            )
        return []

    def end(self) -> list[bytes]:
        body = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self.consumed += len(body)
        return [body] if body else []


class LengthSplitter:
    """Messages with a length before each, 4 bytes big-endian. Empty messages are left out, and counted, or, with
    `keep_empty`, returned too."""

    def __init__(self, longest: int = LONGEST, *, base: int = 0, keep_empty: bool = False) -> None:
        self._keep_empty = keep_empty
        self.base = base
        self.consumed = 0
        self.overhead = _LENGTH.size
        self.ends: list[int] | None = None
        self.empty = 0
        self.empty_at: list[int] = []
        self.records: list[Any] | None = None
        self._broken: InputError | None = None
        self._longest = longest
        self._rest: list[bytes] = []
        self._have = 0
        self._need = 4

    def feed(self, chunk: bytes) -> list[bytes]:
        if self._broken is not None:
            raise self._broken
        self.empty_at = []
        self._rest.append(chunk)
        self._have += len(chunk)
        if self._have < self._need:
            return []
        data = b"".join(self._rest)
        bodies: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= 4:
            (length,) = _LENGTH.unpack_from(data, at)
            if length > self._longest:
                place = self.base + self.consumed + at
                self._broken = InputError(
                    f"the length at byte {place} is {length}, more than any message has: is the input length32?",
                    place,
                    too_long=True,
                )
                break
            if end - at - 4 < length:
                break
            if length or self._keep_empty:
                bodies.append(data[at + 4 : at + 4 + length])
            else:
                self.empty += 1
                self.empty_at.append(len(bodies) + len(self.empty_at))
            at += 4 + length
        self.consumed += at
        if self._broken is not None:
            self._rest.clear()
            if not bodies:
                raise self._broken
            return bodies
        self._rest = [data[at:]]
        self._have = end - at
        self._need = 4 if self._have < 4 else 4 + int(_LENGTH.unpack_from(data, at)[0])
        return bodies

    def end(self) -> list[bytes]:
        self.empty_at = []
        if self._broken is not None:
            raise self._broken
        if self._have:
            raise InputError(
                f"the input ends within a message: of the {self._need} bytes at byte {self.base + self.consumed}"
                f" only {self._have} are there",
                self.base + self.consumed,
            )
        return []


def join_lines(bodies: list[bytes], delimiter: bytes) -> bytes:
    """All bodies, each followed by `delimiter`."""
    return delimiter.join(bodies) + delimiter if bodies else b""


def join_lengths(bodies: list[bytes]) -> bytes:
    """All bodies, each with its length before it."""
    pack = _LENGTH.pack
    return b"".join([pack(len(body)) + body for body in bodies])
