"""A client's side of a connection, from its first byte to its last. In: bytes, intents. Out: events, bytes to send.

    NEW ─ start ─▶ STARTING ─ connection.start ─▶ TUNING ─ connection.tune ─▶ OPENING ─ open-ok ─▶ OPEN
    OPEN ─ close ─▶ CLOSING ─ close-ok ─▶ CLOSED        any state ─ connection.close of the broker ─▶ CLOSED

connection.close and channel.close of the broker are answered here, and heartbeats are counted. What a reply belongs to
is the caller's to know: the broker answers the methods of one channel in their order.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, NamedTuple

from qtools.engines.amqp.protocol.frames import SMALLEST_FRAME_MAX, AmqpFrameReader, Frame
from qtools.engines.amqp.protocol.methods import HEARTBEAT_FRAME, Method, encode_method
from qtools.engines.amqp.protocol.values import Table
from qtools.errors import AuthError, BrokerError, ProtocolError, one_line

PROTOCOL_HEADER = b"AMQP\0\0\x09\x01"
FRAME_MAX = 131_072  # bytes; RabbitMQ's default, and what it grants at most
CHANNEL_MAX = 2047  # RabbitMQ's default

# What RabbitMQ may do with this client: its page on capabilities of connections.
CAPABILITIES: Table = [
    ("publisher_confirms", True), ("basic.nack", True), ("consumer_cancel_notify", True),
    ("connection.blocked", True), ("authentication_failure_close", True), ("exchange_exchange_bindings", True),
]  # fmt: skip
_AUTHORIZATION = frozenset({403, 530})  # ACCESS_REFUSED; NOT_ALLOWED, as for a vhost


class AmqpState(enum.Enum):
    NEW = "new"
    STARTING = "starting"
    TUNING = "tuning"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Login(NamedTuple):
    """What a client says of itself. heartbeat: s, 0 for none; the smaller one of both sides' counts."""

    mechanism: str = "PLAIN"
    user: str = "guest"
    password: str = "guest"
    vhost: str = "/"
    heartbeat: int = 30
    properties: tuple[tuple[str, str], ...] = ()  # product, version and the like
    frame_max: int = FRAME_MAX

    def response(self) -> bytes:
        """For PLAIN (RFC 4616); EXTERNAL takes the name from the certificate."""
        return b"\0%b\0%b" % (self.user.encode(), self.password.encode()) if self.mechanism == "PLAIN" else b""

    def __repr__(self) -> str:
        return f"<Login {self.mechanism} {self.user} vhost={self.vhost}>"


class Opened(NamedTuple):
    """The handshake is over."""


class Blocked(NamedTuple):
    """The broker takes no more messages, as it lacks memory or disk space; "" when it takes them again."""

    reason: str


class ChannelClosed(NamedTuple):
    """The broker has closed a channel after an error on it. method: the ids of the method that failed, (0, 0) if it
    is not known."""

    channel: int
    error: BrokerError
    method: tuple[int, int]


class ConnectionClosed(NamedTuple):
    """The broker has closed the connection; error: None if it answers our own close."""

    error: BrokerError | None


Event = Frame | Opened | Blocked | ChannelClosed | ConnectionClosed


class AmqpSession:
    """One connection. After ConnectionClosed, or an error that `receive` raises, it cannot be used any more."""

    def __init__(self, login: Login) -> None:
        self.state = AmqpState.NEW
        self.server_properties: Table = []
        self.heartbeat = 0  # s, as agreed
        self.frame_max = FRAME_MAX
        self.channel_max = CHANNEL_MAX
        self._login = login
        self._reader = AmqpFrameReader()
        self._out: list[bytes] = []
        self._channels: set[int] = set()  # open, or being opened
        self._closing: set[int] = set()  # closed by us, and not answered

    # ── intents ──

    def start(self) -> None:
        self.state = AmqpState.STARTING
        self._out.append(PROTOCOL_HEADER)

    def open_channel(self) -> int:
        """The number of a new channel; the broker answers with channel.open-ok. ValueError if there are no more."""
        for number in range(1, self.channel_max + 1):
            if number not in self._channels and number not in self._closing:
                self._channels.add(number)
                self.send(number, "channel.open")
                return number
        raise ValueError(f"all {self.channel_max} channels of the connection are in use")

    def close_channel(self, channel: int) -> None:
        """Nothing that comes on the channel from now on is an event; the broker's close-ok frees its number."""
        if channel in self._channels:
            self._channels.discard(channel)
            self._closing.add(channel)
            self.send(channel, "channel.close", code=200)

    def send(self, channel: int, name: str, **arguments: Any) -> None:
        self._out.append(encode_method(channel, name, **arguments))

    def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Frames that are encoded already."""
        self._out += pieces

    def send_heartbeat(self) -> None:
        if self.state in (AmqpState.OPEN, AmqpState.OPENING):
            self._out.append(HEARTBEAT_FRAME)

    def close(self) -> None:
        """The broker answers with close-ok when it has done all that was sent before."""
        if self.state is AmqpState.OPEN:
            self.state = AmqpState.CLOSING
            self.send(0, "connection.close", code=200, text="done")

    @property
    def has_output(self) -> bool:
        return bool(self._out)

    def take_output(self) -> bytes:
        """All bytes to send."""
        out, self._out = self._out, []
        return out[0] if len(out) == 1 else b"".join(out)

    @property
    def unparsed(self) -> int:
        """Bytes that arrived and are not parsed yet."""
        return len(self._reader)

    # ── what arrives ──

    def receive(self, data: bytes) -> list[Event]:
        """What `data` brings. ProtocolError, or AuthError and BrokerError in the handshake."""
        if self.state is AmqpState.CLOSED:
            return []
        events: list[Event] = []
        for each in self._reader.read(data):
            channel = each.method.channel if not isinstance(each, Method) and hasattr(each, "method") else each.channel  # type: ignore[union-attr]
            if channel == 0:
                if not isinstance(each, Method):
                    raise ProtocolError("a message came on channel 0")
                self._take_of_connection(each, events)
            elif channel in self._channels:
                if isinstance(each, Method) and each.name in _OF_CHANNEL:
                    self._take_of_channel(each, events)
                else:
                    events.append(each)
            elif channel not in self._closing:
                raise ProtocolError(f"a frame came on channel {channel}, which is not open")
            elif isinstance(each, Method):
                self._take_late(each)
        return events

    def _take_of_connection(self, method: Method, events: list[Event]) -> None:
        name, given = method.name, method.arguments
        if name == "connection.close":
            self._refuse(_error_of(given), given, events)
        elif name == "connection.close-ok" and self.state is AmqpState.CLOSING:
            self.state = AmqpState.CLOSED
            events.append(ConnectionClosed(None))
        elif name == "connection.blocked":
            events.append(Blocked(one_line(given["reason"].decode("utf-8", "replace")) or "no reason is given"))
        elif name == "connection.unblocked":
            events.append(Blocked(""))
        elif (name, self.state) == ("connection.start", AmqpState.STARTING):
            self._answer_start(given)
        elif (name, self.state) == ("connection.tune", AmqpState.TUNING):
            self._answer_tune(given)
        elif (name, self.state) == ("connection.open-ok", AmqpState.OPENING):
            self.state = AmqpState.OPEN
            events.append(Opened())
        elif (name, self.state) == ("connection.secure", AmqpState.TUNING):
            raise AuthError("SECURE", "it asks a question that PLAIN and EXTERNAL do not have")
        elif self.state is not AmqpState.CLOSING:
            raise ProtocolError(f"{name} came while the connection is {self.state.value}")

    def _answer_start(self, given: dict[str, Any]) -> None:
        login, offered = self._login, given["mechanisms"].decode("utf-8", "replace").split()
        self.server_properties = given["server_properties"]
        if login.mechanism not in offered:
            advice = " (it needs the plugin rabbitmq_auth_mechanism_ssl)" if login.mechanism == "EXTERNAL" else ""
            raise AuthError("ACCESS_REFUSED", f"authentication by {login.mechanism} is not offered{advice}; it offers"
                            f" {one_line(', '.join(offered))}")  # fmt: skip
        properties: Table = [*login.properties, ("capabilities", CAPABILITIES)]
        self.state = AmqpState.TUNING
        self.send(0, "connection.start-ok", client_properties=properties, mechanism=login.mechanism,
                  response=login.response(), locale="en_US")  # fmt: skip

    def _answer_tune(self, given: dict[str, Any]) -> None:
        login = self._login
        self.frame_max = min(login.frame_max, given["frame_max"] or login.frame_max)
        if self.frame_max < SMALLEST_FRAME_MAX:
            raise ProtocolError(f"frames of {self.frame_max} bytes are less than AMQP's least, {SMALLEST_FRAME_MAX}")
        self._reader.frame_max = self.frame_max
        self.channel_max = min(CHANNEL_MAX, given["channel_max"] or CHANNEL_MAX)
        times = [each for each in (login.heartbeat, given["heartbeat"]) if each]
        self.heartbeat = min(times, default=0)
        self.state = AmqpState.OPENING
        self.send(0, "connection.tune-ok", channel_max=self.channel_max, frame_max=self.frame_max,
                  heartbeat=self.heartbeat)  # fmt: skip
        self.send(0, "connection.open", vhost=login.vhost)

    def _refuse(self, error: BrokerError, given: dict[str, Any], events: list[Event]) -> None:
        """The broker closes the connection."""
        before, self.state = self.state, AmqpState.CLOSED
        self.send(0, "connection.close-ok")
        if before in (AmqpState.STARTING, AmqpState.TUNING, AmqpState.OPENING):
            raise error
        events.append(ConnectionClosed(error))

    def _take_of_channel(self, method: Method, events: list[Event]) -> None:
        channel, given = method.channel, method.arguments
        if method.name == "channel.flow":
            self.send(channel, "channel.flow-ok", active=given["active"])
            return
        self._channels.discard(channel)
        self._reader.forget(channel)
        self.send(channel, "channel.close-ok")
        events.append(ChannelClosed(channel, _error_of(given), (given["class_id"], given["method_id"])))

    def _take_late(self, method: Method) -> None:
        """On a channel that we have closed."""
        if method.name == "channel.close":
            self.send(method.channel, "channel.close-ok")
        elif method.name == "channel.close-ok":
            self._closing.discard(method.channel)
            self._reader.forget(method.channel)

    def __repr__(self) -> str:
        return f"<AmqpSession {self.state.value} channels={len(self._channels)}>"


_OF_CHANNEL = frozenset({"channel.close", "channel.flow"})


def _error_of(given: dict[str, Any]) -> BrokerError:
    """The arguments of connection.close or channel.close as an error. RabbitMQ's text begins with the code's name."""
    text = given["text"].decode("utf-8", "replace")
    name, separator, rest = text.partition(" - ")
    code, why = (name, rest) if separator and name.isupper() else (str(given["code"]), text)
    return (AuthError if given["code"] in _AUTHORIZATION else BrokerError)(code, one_line(why))
