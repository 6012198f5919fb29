"""One client connection without its socket. In: bytes as they arrive, and commands to send. Out: events, and bytes.

client_states.py has the states, and the commands that each allows; `_HANDLERS`, at the end, says what each state does
with what arrives. The broker's heartbeats are answered here, with a NOP in the next bytes that are sent. The broker
replies in the order of the commands that have a reply (IDENTIFY, AUTH, SUB, PUB, MPUB, DPUB, CLS), so a queue of tags
shows which command a reply belongs to. The session never reads a clock and never waits.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.client_states import (
    AUTHENTICATING,
    BEFORE_MESSAGES,
    CLOSED,
    CLOSING,
    COMMANDS,
    IDENTIFYING,
    NEW,
    READY,
    SUBSCRIBED,
    UPGRADING,
    CommandNotAllowed,
    SessionState,
)
from qtools.engines.nsq.protocol.frames import CLOSE_WAIT, ERROR, HEARTBEAT, MESSAGE, OK, RESPONSE, Frame, FrameReader
from qtools.engines.nsq.protocol.identify import IdentifyRequest, IdentifyResponse
from qtools.engines.nsq.protocol.stamped_messages import StampedMessages
from qtools.engines.nsq.protocol.transforms import Deflate, Snappy, Tls, Transform
from qtools.errors import AuthError, BrokerError, ProtocolError, SizeError, UpgradeRefused
from qtools.message import Messages

if TYPE_CHECKING:
    import ssl

# The only errors after which nsqd goes on with the connection.
NOT_FATAL = frozenset({"E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"})
_AUTH_CODES = frozenset({"E_AUTH_FIRST", "E_AUTH_FAILED", "E_AUTH_DISABLED", "E_AUTH_ERROR", "E_UNAUTHORIZED"})
_SIZE_CODES = frozenset({"E_BAD_MESSAGE", "E_BAD_BODY"})


@dataclass(slots=True)
class Established:
    """The handshake is over; commands may be sent."""

    agreed: IdentifyResponse


@dataclass(slots=True)
class Answered:
    """The broker has executed the command that was sent with `tag`."""

    tag: Any


@dataclass(slots=True)
class RefusedRequest:
    """An error frame. `tag` is that of the command it answers, or None; `fatal`: the broker closes the connection."""

    tag: Any
    error: BrokerError
    fatal: bool


Event = Established | Answered | RefusedRequest


def broker_error(data: bytes, command: str = "") -> BrokerError:
    """The exception for an error frame. The code alone decides which; the text is for people."""
    code, _, text = data.decode("utf-8", "replace").partition(" ")
    if code in _AUTH_CODES:
        return AuthError(code, text, command)
    if code in _SIZE_CODES:
        return SizeError(code, text, command)
    if code == "E_INVALID" and "TLS required" in text:  # nsqd has no code for it
        text += ": give --tls"
    return BrokerError(code, text, command)


class ClientSession:
    """See the head of this file. request: what IDENTIFY asks for, TLS and compression among it.

    tls: the TLS context, if `request.tls_v1`. server_hostname: the name that the certificate must have.
    secret: what AUTH sends if the broker requires it.
    """

    def __init__(
        self,
        request: IdentifyRequest,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str = "",
        secret: bytes | None = None,
    ) -> None:
        self._enter(NEW)
        self.agreed = IdentifyResponse()
        self.heartbeats = 0
        self._request = request
        self._context = tls
        self._server_hostname = server_hostname
        self._secret = secret
        self._reader = FrameReader()
        self._tls: Tls | None = None
        self._packing: Transform | None = None
        self._upgrades: deque[str] = deque()
        self._unanswered: deque[Any] = deque()
        self._out: list[bytes] = []
        self._messages: Messages = StampedMessages([], [], [])
        self._events: list[Event] = []

    # ── bytes ──

    def start(self) -> None:
        """Begin the handshake; each of its further steps follows from what arrives."""
        self._send("IDENTIFY", commands.MAGIC_V2 + commands.identify(self._request.encode()))

    def receive(self, data: bytes) -> tuple[Messages, list[Event]]:
        """The messages in `data`, and what else happened.

        ProtocolError for bytes that are not NSQ's, and for messages before `subscribe`; UpgradeRefused and AuthError
        when the broker does not grant what the handshake asks for; ConnectFailed when TLS fails.
        """
        self._messages, self._events = StampedMessages([], [], []), []
        for piece in self._decoded(data):
            self._take(piece)
        return self._messages, self._events

    def take_output(self) -> bytes:
        """All bytes to be sent now, in one piece; b"" when there are none."""
        out = b"".join(self._out)
        self._out.clear()
        if self._packing is not None:
            out = self._packing.encode(out)
        if self._tls is not None:
            out = self._tls.encode(out) if self._tls.established else self._tls.take_output()
        return out

    @property
    def has_output(self) -> bool:
        """Whether `take_output` would give anything."""
        return bool(self._out) or (self._tls is not None and self._tls.has_output)

    # ── commands; CommandNotAllowed in the wrong state, and dropped after a fatal error ──

    def subscribe(self, topic: str, channel: str, tag: Any) -> None:
        self._send("SUB", commands.sub(topic, channel))
        self._unanswered.append(tag)

    def ready(self, count: int) -> None:
        self._send("RDY", commands.rdy(count))

    def finish(self, ids: Sequence[bytes]) -> None:
        if ids:
            self._send("FIN", commands.fin(ids))

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        if ids:
            self._send("REQ", commands.req(ids, delay_ms))

    def touch(self, ids: Sequence[bytes]) -> None:
        if ids:
            self._send("TOUCH", commands.touch(ids))

    def stop_receiving(self, tag: Any) -> None:
        """Ask for no more messages; those in flight can still be finished, requeued, touched."""
        self._send("CLS", commands.CLS)
        self._unanswered.append(tag)

    def publish(self, encoded: bytes, count: int, tag: Any) -> None:
        """Send `count` encoded PUBs, MPUBs or DPUBs; each is answered by an Answered or RefusedRequest with `tag`."""
        self._send("PUB", encoded)
        self._unanswered.extend(itertools.repeat(tag, count))

    def nop(self) -> None:
        """Show the broker that this client is alive, as the reply to a heartbeat does."""
        self._send("NOP", commands.NOP)

    def allows(self, command: str) -> bool:
        """Whether the state allows `command` (NSQ's name; PUB for MPUB and DPUB too)."""
        return command in self._allowed

    def _send(self, command: str, encoded: bytes) -> None:
        after = self._allowed.get(command)
        if after is None:
            if self.state is CLOSED:
                return
            raise CommandNotAllowed(command, self.state)
        if after is not self.state:
            self._enter(after)
        self._out.append(encoded)

    def _enter(self, state: SessionState) -> None:
        self.state = state
        self._allowed = COMMANDS[state]
        self._handlers = _HANDLERS[state]
        self._reads_single_frames = state in BEFORE_MESSAGES

    @property
    def unanswered_count(self) -> int:
        return len(self._unanswered)

    @property
    def unanswered(self) -> list[Any]:
        """The tags of the commands that were sent and not answered, oldest first."""
        return list(self._unanswered)

    # ── what arrives ──

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        if self._tls is None:
            return self._unpacked(data)
        return (piece for plain in self._tls.decode(data) for piece in self._unpacked(plain))

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        return iter((data,)) if self._packing is None else self._packing.decode(data)

    def _take(self, data: bytes) -> None:
        # During the handshake, the bytes after a frame may be encrypted or compressed.
        while self._reads_single_frames:
            frame = self._reader.read_one(data)
            if frame is None:
                return
            data = b""
            self._handle(frame)
        messages, frames = self._reader.read(data)
        if self._messages:
            self._messages.extend(messages)
        else:
            self._messages = messages
        for frame in frames:
            self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        kind = _BEAT if frame.data == HEARTBEAT and frame.kind == RESPONSE else frame.kind
        self._handlers[kind](self, frame)

    def _identified(self, frame: Frame) -> None:
        self.agreed = IdentifyResponse.decode(frame.data)
        self._check_upgrades()
        self._enter(UPGRADING)
        self._next_upgrade()

    def _upgraded(self, frame: Frame) -> None:
        if frame.data != OK:
            raise ProtocolError(f"{frame.data[:40]!r} came where the upgrade's OK was due")
        self._next_upgrade()

    def _authenticated(self, frame: Frame) -> None:
        self._establish()

    def _handshake_refused(self, frame: Frame) -> None:
        command = "AUTH" if self.state is AUTHENTICATING else "IDENTIFY"
        self._enter(CLOSED)
        raise broker_error(frame.data, command)

    def _check_upgrades(self) -> None:
        request, agreed = self._request, self.agreed
        for what, requested, granted, advice in (
            ("TLS", request.tls_v1, agreed.tls_v1, "start it with a TLS certificate, or leave --tls away"),
            ("snappy", request.snappy, agreed.snappy, "enable it there, or leave --snappy away"),
            ("deflate", request.deflate, agreed.deflate, "enable it there, or leave --deflate away"),
        ):
            if requested and not granted:
                raise UpgradeRefused(what, advice)
            if granted and not requested:
                raise ProtocolError(f"the broker turned to {what} without being asked")
            if granted:
                self._upgrades.append(what)

    def _next_upgrade(self) -> None:
        """Apply the next transform. The broker's OK comes through it, and may have arrived already."""
        if not self._upgrades:
            if self.agreed.auth_required:
                if self._secret is None:
                    raise AuthError(
                        "E_AUTH_FIRST",
                        "it requires a secret: give --auth-secret-file or QTOOLS_AUTH_SECRET",
                        "IDENTIFY",
                    )
                self._send("AUTH", commands.auth(self._secret))
            else:
                self._establish()
            return
        rest = self._reader.take_rest()
        self._reader = FrameReader()
        upgrade = self._upgrades.popleft()
        if upgrade == "TLS":
            assert self._context is not None, "request.tls_v1 needs a TLS context"
            self._tls = Tls(self._context, server_hostname=self._server_hostname)
        else:
            self._packing = Snappy() if upgrade == "snappy" else Deflate(self.agreed.deflate_level)
        latest: Transform | None = self._packing or self._tls  # those before it have decoded `rest`
        if rest and latest is not None:
            for piece in latest.decode(rest):
                self._take(piece)

    def _establish(self) -> None:
        self._enter(READY)
        self._events.append(Established(self.agreed))

    def _heartbeat(self, frame: Frame) -> None:
        self.heartbeats += 1
        self.nop()

    def _replied(self, frame: Frame) -> None:
        if frame.data != OK and frame.data != CLOSE_WAIT:
            raise ProtocolError(f"{frame.data[:40]!r} came, which answers no command")
        if not self._unanswered:
            raise ProtocolError(f"{frame.data.decode()} came, and no command was waiting for it")
        self._events.append(Answered(self._unanswered.popleft()))

    def _refused(self, frame: Frame) -> None:
        error = broker_error(frame.data)
        if error.code in NOT_FATAL:
            self._events.append(RefusedRequest(None, error, fatal=False))
            return
        self._enter(CLOSED)
        tag = self._unanswered.popleft() if self._unanswered else None
        self._events.append(RefusedRequest(tag, error, fatal=True))

    def _unasked(self, frame: Frame) -> None:
        what = "a message before anything was subscribed" if frame.kind == MESSAGE else "a frame before IDENTIFY"
        raise ProtocolError(f"the broker sent {what}")

    def _ignore(self, frame: Frame) -> None:
        """After a fatal error nothing is answered any more."""

    def __repr__(self) -> str:
        return f"<Session {self.state.value} unanswered={len(self._unanswered)}>"


_BEAT = -1  # in `_HANDLERS`: a RESPONSE that is a heartbeat

_Handlers = dict[int, Callable[[ClientSession, Frame], None]]


def _handlers(response: Callable[[ClientSession, Frame], None]) -> _Handlers:
    """Those of a step of the handshake, which goes on with `response`."""
    return {
        _BEAT: ClientSession._heartbeat,
        RESPONSE: response,
        ERROR: ClientSession._handshake_refused,
        MESSAGE: ClientSession._unasked,
    }


_ESTABLISHED: _Handlers = {
    _BEAT: ClientSession._heartbeat,
    RESPONSE: ClientSession._replied,
    ERROR: ClientSession._refused,
}

# state → frame type → what is done with a frame of that type. From SUB on, `_take` reads the messages apart from these.
_HANDLERS: dict[SessionState, _Handlers] = {
    NEW: dict.fromkeys((_BEAT, RESPONSE, ERROR, MESSAGE), ClientSession._unasked),
    IDENTIFYING: _handlers(ClientSession._identified),
    UPGRADING: _handlers(ClientSession._upgraded),
    AUTHENTICATING: _handlers(ClientSession._authenticated),
    READY: {**_ESTABLISHED, MESSAGE: ClientSession._unasked},
    SUBSCRIBED: _ESTABLISHED,
    CLOSING: _ESTABLISHED,
    CLOSED: dict.fromkeys((_BEAT, RESPONSE, ERROR), ClientSession._ignore),
}
