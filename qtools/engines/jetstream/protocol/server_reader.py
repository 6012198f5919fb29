r"""Server to client. In: chunks, as they are read from a socket. Out: events, in the order of the bytes.

    INFO {json}\r\n
    MSG <subject> <sid> [reply] <size>\r\n<body>\r\n
    HMSG <subject> <sid> [reply] <size of headers> <size of headers and body>\r\n<headers><body>\r\n
    PING\r\n   PONG\r\n   +OK\r\n   -ERR '<text>'\r\n

https://docs.nats.io/reference/reference-protocols/nats-protocol
Messages of one subscription that follow each other are one event, with a column for each part of them. No memory is
allocated for a size that the server has only announced.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from qtools.errors import ProtocolError
from qtools.receive_buffer import ReceiveBuffer

# A server's max_control_line is 4 KiB unless it is raised; INFO may list hundreds of servers.
LONGEST_LINE = 64 * 1024
LONGEST_INFO = 1024 * 1024
# The most that a server can be configured to accept (max_payload), and its headers.
MOST_BYTES = 65 * 1024 * 1024


class NatsMessages:
    """Messages of the subscription `sid`, by column. replies: b"" for a message without one. headers: the header
    block of each message, b"" for none; or None if no message has one."""

    __slots__ = ("bodies", "headers", "replies", "sid", "subjects")

    def __init__(self, sid: bytes) -> None:
        self.sid = sid
        self.subjects: list[bytes] = []
        self.replies: list[bytes] = []
        self.bodies: list[bytes] = []
        self.headers: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.bodies)

    def __repr__(self) -> str:
        return f"<NatsMessages {len(self)} of subscription {self.sid.decode('latin-1')}>"


class ControlLine(NamedTuple):
    """A line without a message. verb: INFO, PING, PONG, +OK or -ERR. argument: the rest of the line, without quotes."""

    verb: bytes
    argument: bytes = b""


class ConfirmedPublishes(NamedTuple):
    """Answers to publishes that say no more than that a stream has stored the message: numbers of the publishes."""

    numbers: list[int]


NatsEvent = NatsMessages | ControlLine | ConfirmedPublishes


class ServerReader:
    """Parses what a server sends."""

    def __init__(self) -> None:
        self._buffer = ReceiveBuffer()
        self._confirmations: re.Pattern[bytes] | None = None
        self._numbers = re.compile(b"")

    def expect_confirmations(self, inbox: bytes, sid: bytes) -> None:
        """From now on, answers of streams to the subjects `inbox` + NUMBER, which come to the subscription `sid`, are
        events of their own: a third of the work for each. Other answers stay messages."""
        start = b"MSG " + re.escape(inbox)
        # The answers of all servers since 2.9; see pub_acks.py.
        answer = rb'\d{1,18} %b  ?\d+\r\n\{"stream":"[^"\\\r\n]+", ?"seq":\d+\}\r\n' % re.escape(sid)
        self._confirmations = re.compile(b"(?:%b%b)+" % (start, answer))
        self._numbers = re.compile(rb"%b(\d+) " % start)

    def receive(self, chunk: bytes) -> list[NatsEvent]:
        """The events in `chunk` and in what had arrived before. ProtocolError if the bytes are not NATS's protocol;
        nothing can be parsed after that."""
        buffer = self._buffer
        if not buffer.add(chunk):
            return []
        data, at = buffer.data, buffer.at
        end = len(data)
        find = data.find
        events: list[NatsEvent] = []
        run = NatsMessages(b"")
        subjects, replies, bodies = run.subjects, run.replies, run.bodies
        confirmations = self._confirmations
        while at < end:
            if confirmations is not None and (found := confirmations.match(data, at)) is not None:
                stop = found.end()
                events.append(ConfirmedPublishes(list(map(int, self._numbers.findall(data, at, stop)))))
                run = NatsMessages(b"")
                bodies = run.bodies
                at = stop
                continue
            eol = find(b"\r\n", at)
            if eol < 0:
                self._check_line(data[at : at + LONGEST_LINE + 1], end - at)
                break
            words = data[at:eol].split(b" ")
            verb = words[0]
            if verb == b"MSG":
                count = len(words)
                size = words[-1]
                # Servers before 2.10 write two spaces where there is no reply.
                if (count != 5 and count != 4) or not size.isdigit() or len(size) > 9:
                    raise _wrong_line(data[at:eol])
                start = eol + 2
                stop = start + int(size)
                if stop + 2 > end:
                    if stop - start > MOST_BYTES:
                        raise ProtocolError(f"the server announces a message of {stop - start:,} bytes")
                    buffer.at = at
                    buffer.need(stop + 2 - at)
                    return events
                if data[stop : stop + 2] != b"\r\n":
                    raise ProtocolError("a message is not followed by a line's end")
                if words[2] != run.sid or not bodies:
                    run = NatsMessages(words[2])
                    events.append(run)
                    subjects, replies, bodies = run.subjects, run.replies, run.bodies
                subjects.append(words[1])
                replies.append(words[3] if count == 5 else b"")
                bodies.append(data[start:stop])
                if run.headers is not None:
                    run.headers.append(b"")
                at = stop + 2
            elif verb == b"HMSG":
                header_size, stop = _sizes(words, data[at:eol])
                start = eol + 2
                stop += start
                if stop + 2 > end:
                    buffer.at = at
                    buffer.need(stop + 2 - at)
                    return events
                if data[stop : stop + 2] != b"\r\n":
                    raise ProtocolError("a message is not followed by a line's end")
                if words[2] != run.sid or not bodies:
                    run = NatsMessages(words[2])
                    events.append(run)
                    subjects, replies, bodies = run.subjects, run.replies, run.bodies
                if run.headers is None:
                    run.headers = [b""] * len(bodies)
                subjects.append(words[1])
                replies.append(words[3] if len(words) == 6 else b"")
                bodies.append(data[start + header_size : stop])
                run.headers.append(data[start : start + header_size])
                at = stop + 2
            else:
                events.append(_control_line(verb, data[at:eol]))
                run = NatsMessages(b"")
                bodies = run.bodies
                at = eol + 2
        buffer.at = at
        return events

    @staticmethod
    def _check_line(line: bytes, length: int) -> None:
        """ProtocolError if the line that has not ended cannot be one of NATS."""
        if length > (LONGEST_INFO if line.startswith(b"INFO ") else LONGEST_LINE) or not _may_begin(line):
            raise _wrong_line(line)


_VERBS = (b"INFO ", b"MSG ", b"HMSG ", b"PING", b"PONG", b"+OK", b"-ERR")


def _may_begin(line: bytes) -> bool:
    return any(line.startswith(verb) or verb.startswith(line) for verb in _VERBS)


def _sizes(words: list[bytes], line: bytes) -> tuple[int, int]:
    """The bytes of the headers, and of headers and body together, of an HMSG line."""
    if len(words) not in (5, 6) or not (words[-1].isdigit() and words[-2].isdigit()):
        raise _wrong_line(line)
    if len(words[-1]) > 9 or len(words[-2]) > 9 or int(words[-2]) > int(words[-1]):
        raise _wrong_line(line)
    if int(words[-1]) > MOST_BYTES:
        raise ProtocolError(f"the server announces a message of {int(words[-1]):,} bytes")
    return int(words[-2]), int(words[-1])


def _control_line(verb: bytes, line: bytes) -> ControlLine:
    if verb in (b"PING", b"PONG", b"+OK") and verb == line.rstrip(b" "):
        return ControlLine(verb)
    if verb == b"-ERR":
        return ControlLine(verb, line[4:].strip(b" '"))
    if verb == b"INFO":
        return ControlLine(verb, line[5:].strip(b" "))
    raise _wrong_line(line)


def _wrong_line(line: bytes) -> ProtocolError:
    shown = line[:40].decode("latin-1")
    return ProtocolError(f"its bytes are not NATS's protocol: {shown!r}", "HTTP" if line.startswith(b"HTTP/") else "")
