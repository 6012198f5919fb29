"""What the protocol's tests share: cutting bytes into chunks, and reading a stream to its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qtools.engines.nsq.protocol import commands
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
from qtools.engines.nsq.protocol.command_reader import CommandLimits, CommandReader
from qtools.engines.nsq.protocol.frames import Frame, FrameReader
from qtools.errors import ProtocolError
from qtools.message import Message


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` in chunks that end at `places`; joined they are `data` again."""
    ends = [*sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=True)]


def bytewise(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


def halves(data: bytes) -> list[list[bytes]]:
    """Every way to cut `data` in two."""
    return [[data[:place], data[place:]] for place in range(1, len(data))]


def decode(chunks: Iterable[bytes], reader: FrameReader | None = None) -> tuple[list[Message], list[Frame], str | None]:
    """The messages and frames in `chunks`, and what ProtocolError ended them, if one did."""
    reader = reader or FrameReader()
    messages: list[Message] = []
    frames: list[Frame] = []
    for chunk in chunks:
        try:
            more, others = reader.read(chunk)
        except ProtocolError as error:
            return messages, frames, str(error)
        messages += more
        frames += others
    return messages, frames, None


def feed(reader: CommandReader, chunk: bytes) -> list[Command]:
    """Everything in `chunk`, going on behind each IDENTIFY and AUTH."""
    found = reader.feed(chunk)
    while found and isinstance(found[-1], (Auth, Identify)):
        more = reader.feed(b"")
        if not more:
            break
        found += more
    return found


def understand(chunks: Iterable[bytes], limits: CommandLimits | None = None) -> list[Command]:
    """The commands in `chunks`, each by itself: how runs were joined depends on how the bytes came."""
    reader = CommandReader(limits or CommandLimits())
    return flat([command for chunk in chunks for command in feed(reader, chunk)])


def flat(found: Sequence[Command]) -> list[Command]:
    """Runs of FIN and of PUB taken apart."""
    single: list[Command] = []
    for command in found:
        match command:
            case Finish():
                single += [Finish(commands.fin([ident])) for ident in command.ids]
            case Publish("PUB", topic, bodies, _, answers):
                assert answers == len(bodies)
                single += [Publish("PUB", topic, [body]) for body in bodies]
            case _:
                single.append(command)
    return single


def encoded(command: Command) -> bytes:
    """A command as a client says it."""
    match command:
        case Identify(body):
            return commands.identify(body)
        case Auth(secret):
            return commands.auth(secret)
        case Sub(topic, channel):
            return commands.sub(topic, channel)
        case Ready(count):
            return commands.rdy(count)
        case Finish():
            return commands.fin(command.ids)
        case Requeue(ident, delay):
            return commands.req([ident], delay)
        case Touch(ident):
            return commands.touch([ident])
        case Close():
            return commands.CLS
        case Nop():
            return commands.NOP
        case Publish("PUB", topic, bodies, _, _):
            return b"".join(commands.pub(topic, body) for body in bodies)
        case Publish("DPUB", topic, [body], delay, _):
            return commands.dpub(topic, body, delay)
        case Publish("MPUB", topic, bodies, _, _):
            return commands.mpub(topic, bodies)
        case Publish() | RefusedCommand():
            raise AssertionError(f"no client says {command}")
