"""Client → server, on the broker's side. In: chunks of bytes. Out: commands (client_commands.py).

Commands in a row are combined where that saves work: a run of FINs is one Finish, whose lines are not split, as the
broker may know which line comes next; PUBs to one topic are one Publish, with several replies. The end of an MPUB is
found by its message count, as in nsqd. The body size that it declares is checked against the limits only, since some
producers declare a wrong one.

What nsqd would refuse becomes a RefusedCommand with nsqd's code and text; after it the reader returns nothing more.
Whether a command is allowed in the state of a connection is decided by the broker.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from qtools.engines.nsq.protocol.client_commands import (
    Auth,
    Close,
    Command,
    Finish,
    Identify,
    Nop,
    Publish,
    Ready,
    RefusedCommand,
    Requeue,
    Sub,
    Touch,
)
from qtools.engines.nsq.protocol.commands import fin
from qtools.names import is_valid_name
from qtools.receive_buffer import ReceiveBuffer

_OBJECT_BYTES = 48  # of a message of an MPUB, beside its bytes and their length: an object, and its place in a list
MAX_LINE = 16 * 1024  # nsqd's read buffer; at a longer line it closes the connection without an error frame


@dataclass(slots=True)
class CommandLimits:
    """nsqd's defaults for what a client may send; bytes and milliseconds."""

    max_msg_size: int = 1024 * 1024
    max_body_size: int = 5 * 1024 * 1024
    max_req_timeout_ms: int = 3_600_000


_size_at = struct.Struct(">i").unpack_from
_FIN_RUN = re.compile(rb"(?:FIN [0-9a-f]{16}\n)++")  # others come one by one


def quoted(text: bytes) -> str:
    """A name in nsqd's error texts, as Go quotes it (near enough for anything printable)."""
    shown = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return f'"{shown.decode("utf-8", "backslashreplace")}"'


class _Stop(Exception):
    """Ends the parsing of one command: `refused`, or None if more bytes are needed. It does not leave this file."""

    def __init__(self, refused: RefusedCommand | None = None) -> None:
        self.refused = refused


def _refuse(code: str, text: str) -> _Stop:
    return _Stop(RefusedCommand(code, text))


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _number(raw: bytes) -> int | None:
    """Plain ASCII digits, as nsqd reads them (nothing at all is 0); None for anything else."""
    if not raw:
        return 0
    return int(raw) if raw.isdigit() and len(raw) < 19 else None


# (PUB, MPUB or DPUB; topic) → why it is refused before its body is read, or None
RefusePublish = Callable[[str, str], RefusedCommand | None]


class CommandReader:
    """Parses chunks into commands. After a RefusedCommand it returns nothing more.

    refuse_publish: is called before the body of a publish is read, where clients need rights.
    """

    __slots__ = ("_buffer", "_dead", "_limits", "_mpub", "_publish_lines", "_refuse_publish")

    def __init__(self, limits: CommandLimits, refuse_publish: RefusePublish | None = None) -> None:
        self._limits = limits
        self._refuse_publish = refuse_publish
        self._buffer = ReceiveBuffer()
        self._dead = False
        # An MPUB that has arrived in part: its topic, its message count, the messages so far, the body's bytes so far.
        self._mpub: tuple[str, int, list[bytes], int] | None = None
        # Lines of PUB and MPUB that were parsed, as producers send the same ones again and again.
        self._publish_lines: dict[bytes, tuple[str, str]] = {}

    def feed(self, chunk: bytes) -> list[Command]:
        """The commands that are complete with `chunk`. The list ends after an IDENTIFY, as the bytes that follow may be
        compressed or encrypted, and after an AUTH, as the rest depends on its outcome: to continue call `feed(b"")`,
        or `take_rest`."""
        commands: list[Command] = []
        if self._dead or not self._buffer.add(chunk):
            return commands
        try:
            while True:
                command = self._next()
                last = commands[-1] if commands else None
                if (
                    type(command) is Publish
                    and type(last) is Publish
                    and command.command == "PUB" == last.command
                    and command.topic == last.topic
                ):
                    last.bodies += command.bodies
                    last.answers += 1
                    continue
                commands.append(command)
                if type(command) is Identify or type(command) is Auth:
                    return commands
        except _Stop as stop:
            if stop.refused is not None:
                self._dead = True
                commands.append(stop.refused)
        return commands

    @property
    def is_within_body(self) -> bool:
        """Whether a body has arrived in part."""
        return self._buffer.is_waiting

    @property
    def unfinished_bytes(self) -> int:
        """About how many bytes of memory an incomplete command takes; 0 between two commands."""
        if not self._buffer.is_waiting:
            return 0
        size = len(self._buffer)
        if self._mpub is not None:
            _, _, bodies, total = self._mpub
            size += total + len(bodies) * _OBJECT_BYTES
        return size

    @property
    def missing_bytes(self) -> int:
        """At most how many bytes have to arrive until the command is complete."""
        if self._mpub is not None:  # what it declared may be wrong
            return self._limits.max_body_size - self._mpub[3] - len(self._buffer)
        return self._buffer.missing

    def take_rest(self) -> bytes:
        """Return and forget the bytes after the last command, for a transform that decodes them."""
        return self._buffer.take_rest()

    def _next(self) -> Command:
        if self._mpub is not None:
            return self._go_on_with_mpub()
        buffer = self._buffer
        data, at = buffer.data, buffer.at
        run = _FIN_RUN.match(data, at)
        if run is not None:
            buffer.at = run.end()
            return Finish(run[0])
        end = data.find(b"\n", at, at + MAX_LINE)
        if end < 0:
            if len(data) - at >= MAX_LINE:
                raise _refuse("", f"a command line of more than {MAX_LINE} bytes")
            raise _Stop
        line = data[at : end - 1] if data[end - 1 : end] == b"\r" and end > at else data[at:end]
        known = self._publish_lines.get(line)
        if known is not None:
            command, topic = known
            return self._publish(command, topic, 0, end + 1)
        name, *params = line.split(b" ")
        return self._command(name, params, line, end + 1)

    def _command(self, name: bytes, params: list[bytes], line: bytes, after: int) -> Command:
        """The command whose line ends before `after`."""
        buffer = self._buffer
        if name in (b"PUB", b"MPUB", b"DPUB"):
            return self._publish_line(name.decode(), params, line, after)
        if name in (b"IDENTIFY", b"AUTH"):
            word = name.decode()
            if word == "AUTH" and params:
                raise _refuse("E_INVALID", "AUTH invalid number of parameters")
            body = self._body(word, after)
            return Identify(body) if word == "IDENTIFY" else Auth(body)
        buffer.at = after
        match name:
            case b"NOP":
                return Nop()
            case b"FIN":
                return Finish(fin([_ident("FIN", params, 1)]))
            case b"REQ":
                ident = _ident("REQ", params, 2)
                delay = _number(params[1])
                if delay is None:
                    raise _refuse("E_INVALID", f"REQ could not parse timeout {_shown(params[1])}")
                return Requeue(ident, min(delay, self._limits.max_req_timeout_ms))
            case b"TOUCH":
                return Touch(_ident("TOUCH", params, 1))
            case b"RDY":
                count = _number(params[0]) if params else 1
                if count is None:
                    raise _refuse("E_INVALID", f"RDY could not parse count {_shown(params[0])}")
                return Ready(count)
            case b"SUB":
                if len(params) < 2:
                    raise _refuse("E_INVALID", "SUB insufficient number of parameters")
                for kind, raw in (("topic", params[0]), ("channel", params[1])):
                    if not is_valid_name(raw.decode("latin-1")):
                        raise _refuse(f"E_BAD_{kind.upper()}", f"SUB {kind} name {quoted(raw)} is not valid")
                return Sub(params[0].decode(), params[1].decode())
            case b"CLS":
                return Close()
        raise _refuse("E_INVALID", f"invalid command {_shown(name)}")

    def _publish_line(self, command: str, params: list[bytes], line: bytes, after: int) -> Publish:
        if len(params) < (2 if command == "DPUB" else 1):
            raise _refuse("E_INVALID", f"{command} insufficient number of parameters")
        topic = params[0].decode("latin-1")
        if not is_valid_name(topic):
            again = "E_BAD_TOPIC " if command == "MPUB" else ""  # nsqd repeats its code here
            raise _refuse("E_BAD_TOPIC", f"{again}{command} topic name {quoted(params[0])} is not valid")
        delay = 0
        if command == "DPUB":
            longest = self._limits.max_req_timeout_ms
            parsed = _number(params[1])
            if parsed is None:
                raise _refuse("E_INVALID", f"DPUB could not parse timeout {_shown(params[1])}")
            if parsed > longest:
                raise _refuse("E_INVALID", f"DPUB timeout {parsed} out of range 0-{longest}")
            delay = parsed
        if self._refuse_publish is not None:
            refused = self._refuse_publish(command, topic)
            if refused is not None:
                if command != "MPUB":  # as nsqd: MPUB is refused at its line, the others behind a size that is good
                    self._message_size(command, after)
                raise _Stop(refused)
        if command != "DPUB":
            if len(self._publish_lines) >= 256:
                self._publish_lines.clear()
            self._publish_lines[line] = (command, topic)
        return self._publish(command, topic, delay, after)

    def _publish(self, command: str, topic: str, delay_ms: int, after: int) -> Publish:
        """The publish whose body begins at `after`."""
        buffer = self._buffer
        data = buffer.data
        if command != "MPUB":
            stop = after + 4 + self._message_size(command, after)
            if stop > len(data):
                buffer.need(stop - buffer.at)
                raise _Stop
            buffer.at = stop
            return Publish(command, topic, [data[after + 4 : stop]], delay_ms)
        # nsqd refuses each number as soon as it has read it: a client that sends no more must get its answer.
        longest = self._limits.max_body_size
        if len(data) >= after + 4:
            (size,) = _size_at(data, after)
            if size <= 0:
                raise _refuse("E_BAD_BODY", f"MPUB invalid body size {size}")
            if size > longest:
                raise _refuse("E_BAD_BODY", f"MPUB body too big {size} > {longest}")
        if len(data) < after + 8:
            raise _Stop
        (count,) = _size_at(data, after + 4)
        if not 0 < count <= (longest - 4) // 5:  # 5: a length and at least one byte
            raise _refuse("E_BAD_BODY", f"MPUB invalid message count {count}")
        buffer.at = after + 8
        self._mpub = (topic, count, [], 4)
        return self._go_on_with_mpub()

    def _message_size(self, command: str, after: int) -> int:
        """The length of the one message of a PUB or DPUB, which stands at `after`."""
        data = self._buffer.data
        if len(data) < after + 4:
            raise _Stop
        (size,) = _size_at(data, after)
        if size <= 0:
            raise _refuse("E_BAD_MESSAGE", f"{command} invalid message body size {size}")
        if size > self._limits.max_msg_size:
            raise _refuse("E_BAD_MESSAGE", f"{command} message too big {size} > {self._limits.max_msg_size}")
        return int(size)

    def _go_on_with_mpub(self) -> Publish:
        """Parse the messages of an MPUB that have arrived; no message is parsed twice."""
        assert self._mpub is not None
        topic, count, bodies, total = self._mpub
        buffer = self._buffer
        data, at, end = buffer.data, buffer.at, len(buffer.data)
        begun = at
        longest, append, size_at = self._limits.max_msg_size, bodies.append, _size_at
        # The end of the largest body that is allowed, whatever size it declares; one comparison checks both ends.
        most = at + self._limits.max_body_size - total
        end = min(end, most)
        for _ in range(count - len(bodies)):
            stop = start = at + 4
            if start > end:
                break
            (size,) = size_at(data, at)
            if not 0 < size <= longest:
                if size <= 0:
                    raise _refuse("E_BAD_MESSAGE", f"MPUB invalid message({len(bodies)}) body size {size}")
                raise _refuse("E_BAD_MESSAGE", f"MPUB message too big {size} > {longest}")
            stop = start + size
            if stop > end:
                break
            append(data[start:stop])
            at = stop
        else:
            buffer.at = at
            self._mpub = None
            return Publish("MPUB", topic, bodies)
        buffer.at = at
        if stop > most:
            limit = self._limits.max_body_size
            raise _refuse("E_BAD_BODY", f"MPUB body too big {limit + stop - most} > {limit}")
        self._mpub = (topic, count, bodies, total + at - begun)
        buffer.need(stop - at)
        raise _Stop

    def _body(self, command: str, after: int) -> bytes:
        """The body of IDENTIFY or AUTH, whose length stands at `after`."""
        buffer = self._buffer
        if len(buffer.data) < after + 4:
            raise _Stop
        (size,) = _size_at(buffer.data, after)
        longest = self._limits.max_body_size
        if size > longest:
            raise _refuse("E_BAD_BODY", f"{command} body too big {size} > {longest}")
        if size <= 0:
            raise _refuse("E_BAD_BODY", f"{command} invalid body size {size}")
        stop = after + 4 + size
        if stop > len(buffer.data):
            buffer.need(stop - buffer.at)
            raise _Stop
        buffer.at = stop
        return buffer.data[after + 4 : stop]


def _ident(command: str, params: list[bytes], wanted: int) -> bytes:
    if len(params) < wanted:
        raise _refuse("E_INVALID", f"{command} insufficient number of params")
    if len(params[0]) != 16:
        raise _refuse("E_INVALID", "invalid message ID")
    return params[0]
