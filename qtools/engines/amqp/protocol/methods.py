"""The methods of AMQP 0-9-1 that are used here, and RabbitMQ's extensions of them. In: a name, arguments. Out: a frame.

    method frame   ├ 1 ┼ channel 2 ┼ size 4 ┼ class 2 ┼ method 2 ┼ arguments … ┼ 0xCE ┤

Both directions are here, so that tests can play the server. Bits that follow each other share an octet.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from qtools.engines.amqp.protocol.values import long, read_long, read_short, read_table, short, table
from qtools.errors import ProtocolError

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8  # types of frames
FRAME_END = 0xCE
END = b"\xce"

_FRAME = struct.Struct(">BHI")
_IDS = struct.Struct(">HH")
_NUMBERS = {"octet": struct.Struct(">B"), "short": struct.Struct(">H"), "long": struct.Struct(">I"),
            "longlong": struct.Struct(">Q")}  # fmt: skip

# Class and method → name and arguments (the XML of the specification; RabbitMQ's confirm.select, connection.blocked,
# connection.unblocked, connection.update-secret and basic.nack).
_GRAMMAR = """
10 10 connection.start          version_major:octet version_minor:octet server_properties:table mechanisms:longstr \
locales:longstr
10 11 connection.start-ok       client_properties:table mechanism:shortstr response:longstr locale:shortstr
10 20 connection.secure         challenge:longstr
10 21 connection.secure-ok      response:longstr
10 30 connection.tune           channel_max:short frame_max:long heartbeat:short
10 31 connection.tune-ok        channel_max:short frame_max:long heartbeat:short
10 40 connection.open           vhost:shortstr reserved_1:shortstr reserved_2:bit
10 41 connection.open-ok        reserved_1:shortstr
10 50 connection.close          code:short text:shortstr class_id:short method_id:short
10 51 connection.close-ok
10 60 connection.blocked        reason:shortstr
10 61 connection.unblocked
20 10 channel.open              reserved_1:shortstr
20 11 channel.open-ok           reserved_1:longstr
20 20 channel.flow              active:bit
20 21 channel.flow-ok           active:bit
20 40 channel.close             code:short text:shortstr class_id:short method_id:short
20 41 channel.close-ok
40 10 exchange.declare          reserved_1:short exchange:shortstr type:shortstr passive:bit durable:bit \
auto_delete:bit internal:bit no_wait:bit arguments:table
40 11 exchange.declare-ok
40 20 exchange.delete           reserved_1:short exchange:shortstr if_unused:bit no_wait:bit
40 21 exchange.delete-ok
50 10 queue.declare             reserved_1:short queue:shortstr passive:bit durable:bit exclusive:bit \
auto_delete:bit no_wait:bit arguments:table
50 11 queue.declare-ok          queue:shortstr message_count:long consumer_count:long
50 20 queue.bind                reserved_1:short queue:shortstr exchange:shortstr routing_key:shortstr no_wait:bit \
arguments:table
50 21 queue.bind-ok
50 40 queue.delete              reserved_1:short queue:shortstr if_unused:bit if_empty:bit no_wait:bit
50 41 queue.delete-ok           message_count:long
60 10 basic.qos                 prefetch_size:long prefetch_count:short global:bit
60 11 basic.qos-ok
60 20 basic.consume             reserved_1:short queue:shortstr consumer_tag:shortstr no_local:bit no_ack:bit \
exclusive:bit no_wait:bit arguments:table
60 21 basic.consume-ok          consumer_tag:shortstr
60 30 basic.cancel              consumer_tag:shortstr no_wait:bit
60 31 basic.cancel-ok           consumer_tag:shortstr
60 40 basic.publish             reserved_1:short exchange:shortstr routing_key:shortstr mandatory:bit immediate:bit
60 50 basic.return              code:short text:shortstr exchange:shortstr routing_key:shortstr
60 60 basic.deliver             consumer_tag:shortstr delivery_tag:longlong redelivered:bit exchange:shortstr \
routing_key:shortstr
60 70 basic.get                 reserved_1:short queue:shortstr no_ack:bit
60 71 basic.get-ok              delivery_tag:longlong redelivered:bit exchange:shortstr routing_key:shortstr \
message_count:long
60 72 basic.get-empty           reserved_1:shortstr
60 80 basic.ack                 delivery_tag:longlong multiple:bit
60 90 basic.reject              delivery_tag:longlong requeue:bit
60 120 basic.nack               delivery_tag:longlong multiple:bit requeue:bit
85 10 confirm.select            no_wait:bit
85 11 confirm.select-ok
"""


class Form(NamedTuple):
    """A method: its ids, and its arguments as (name, kind)."""

    ids: tuple[int, int]
    name: str
    arguments: tuple[tuple[str, str], ...]


def _forms() -> list[Form]:
    forms = []
    for line in filter(None, _GRAMMAR.splitlines()):
        number, method, name, *words = line.split()
        pairs = [tuple(word.split(":")) for word in words]
        forms.append(Form((int(number), int(method)), name, tuple((name, kind) for name, kind in pairs)))
    return forms


FORMS = {form.name: form for form in _forms()}
_BY_IDS = {form.ids: form for form in FORMS.values()}
# Methods that a content follows.
WITH_CONTENT = frozenset({"basic.publish", "basic.return", "basic.deliver", "basic.get-ok"})


class Method(NamedTuple):
    """A method that arrived. arguments: strings as bytes, tables as lists of pairs."""

    channel: int
    name: str
    arguments: dict[str, Any]


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME.pack(kind, channel, len(payload)) + payload + END


HEARTBEAT_FRAME = frame(HEARTBEAT, 0, b"")


def encode_method(channel: int, name: str, **given: Any) -> bytes:
    """The frame of a method. An argument that is not given is 0, False, "" or an empty table. ValueError if a name is
    longer than 255 bytes."""
    form = FORMS[name]
    parts = [_IDS.pack(*form.ids)]
    bits = count = 0
    for argument, kind in form.arguments:
        value = given.pop(argument, None)
        if kind == "bit":
            bits |= bool(value) << count
            count += 1
            continue
        if count:
            parts.append(b"%c" % bits)
            bits = count = 0
        if kind == "shortstr":
            parts.append(short(value or b""))
        elif kind == "longstr":
            parts.append(long(value or b""))
        elif kind == "table":
            parts.append(table(value or []))
        else:
            parts.append(_NUMBERS[kind].pack(value or 0))
    if count:
        parts.append(b"%c" % bits)
    if given:
        raise TypeError(f"{name} has no argument {', '.join(given)}")
    return frame(METHOD, channel, b"".join(parts))


def decode_method(channel: int, payload: bytes) -> Method:
    """A method frame's payload. ProtocolError if it is malformed, or of a method that is not used here."""
    try:
        form = _BY_IDS.get(_IDS.unpack_from(payload, 0))
        if form is None:
            number, method = _IDS.unpack_from(payload, 0)
            raise ProtocolError(f"the unknown method {method} of class {number} came")
        return _decode(channel, form, payload)
    except (struct.error, IndexError) as error:
        raise ProtocolError("a method ends before its last argument") from error


def _decode(channel: int, form: Form, payload: bytes) -> Method:
    found: dict[str, Any] = {}
    at, bit = 4, 0
    for argument, kind in form.arguments:
        if kind == "bit":
            if not bit:
                bits, at = payload[at], at + 1
            found[argument] = bool(bits >> bit & 1)
            bit += 1
            continue
        bit = 0
        if kind == "shortstr":
            found[argument], at = read_short(payload, at)
        elif kind == "longstr":
            found[argument], at = read_long(payload, at)
        elif kind == "table":
            found[argument], at = read_table(payload, at)
        else:
            found[argument], at = _NUMBERS[kind].unpack_from(payload, at)[0], at + _NUMBERS[kind].size
    if at != len(payload):
        raise ProtocolError(f"{form.name} goes on behind its last argument")
    return Method(channel, form.name, found)
