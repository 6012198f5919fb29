"""One client connection without its socket. In: bytes as they arrive, and intents. Out: events, and bytes.

    NEW ─start─▶ IDENTIFYING ─JSON─▶ UPGRADING ─OK of TLS, of snappy or deflate─▶ AUTHENTICATING ─▶ READY
                      └──────────────────── what was not asked for is skipped ────────────────────▶ READY
    READY ─subscribe─▶ READY, subscribed ─stop_receiving─▶ CLOSE_WAIT …   any ─fatal error─▶ CLOSED

Heartbeats are answered here, with the next bytes that leave. Answers come in the order of the commands
that are answered at all (IDENTIFY, AUTH, SUB, PUB, MPUB, DPUB, CLS), so a queue of tags tells which
one an answer belongs to. The session never reads a clock and never waits.
"""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtools.engines.nsq.protocol import commands
from qtools.engines.nsq.protocol.frames import CLOSE_WAIT, ERROR, HEARTBEAT, MESSAGE, OK, Frame, FrameReader
from qtools.engines.nsq.protocol.identify import IdentifyRequest, IdentifyResponse
from qtools.engines.nsq.protocol.transforms import Deflate, Snappy, Tls, Transform
from qtools.errors import AuthError, BrokerError, ProtocolError, SizeError, UpgradeRefused
from qtools.message import Messages

if TYPE_CHECKING:
    import ssl

# The only errors after which nsqd goes on with the connection.
NOT_FATAL = frozenset({"E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"})
_AUTH_CODES = frozenset({"E_AUTH_FIRST", "E_AUTH_FAILED", "E_AUTH_DISABLED", "E_AUTH_ERROR", "E_UNAUTHORIZED"})
_SIZE_CODES = frozenset({"E_BAD_MESSAGE", "E_BAD_BODY"})


class SessionState(enum.Enum):
    """Where a connection stands. CLOSED is behind a fatal error: messages still come, nothing is answered."""

    NEW = "new"
    IDENTIFYING = "identifying"
    UPGRADING = "upgrading"
    AUTHENTICATING = "authenticating"
    READY = "ready"
    CLOSED = "closed"


_AFTER_HANDSHAKE = frozenset({SessionState.READY, SessionState.CLOSED})


@dataclass(slots=True)
class Established:
    """The handshake is over; commands may be sent."""

    agreed: IdentifyResponse


@dataclass(slots=True)
class Answered:
    """The command sent with `tag` was done."""

    tag: Any


@dataclass(slots=True)
class RefusedRequest:
    """An error frame. `tag` is the command it answers, or None; `fatal` when the broker closes now."""

    tag: Any
    error: BrokerError
    fatal: bool


Event = Established | Answered | RefusedRequest


def broker_error(data: bytes, command: str = "") -> BrokerError:
    """An error frame's data as the exception for it. Only the code decides; the text is for people."""
    code, _, text = data.decode("utf-8", "replace").partition(" ")
    if code in _AUTH_CODES:
        return AuthError(code, text, command)
    if code in _SIZE_CODES:
        return SizeError(code, text, command)
    if code == "E_INVALID" and "TLS required" in text:  # nsqd has no code for it
        text += ": give --tls"
    return BrokerError(code, text, command)


class ClientSession:
    """See the head of this file. `wishes` says what to ask for, TLS and compression among it.

    tls: the context to shake hands with, when `wishes.tls_v1`; `server_hostname` is what to verify.
    secret: what AUTH sends, should the broker require it.
    """

    def __init__(
        self,
        wishes: IdentifyRequest,
        *,
        tls: ssl.SSLContext | None = None,
        server_hostname: str = "",
        secret: bytes | None = None,
    ) -> None:
        self.state = SessionState.NEW
        self.agreed = IdentifyResponse()
        self.heartbeats = 0
        self._wishes = wishes
        self._context = tls
        self._server_hostname = server_hostname
        self._secret = secret
        self._reader = FrameReader()
        self._tls: Tls | None = None
        self._packing: Transform | None = None
        self._upgrades: deque[str] = deque()
        self._unanswered: deque[Any] = deque()
        self._out: list[bytes] = []
        self._messages = Messages([], [], [])
        self._events: list[Event] = []

    # ── bytes ──

    def start(self) -> None:
        """Say hello; the rest of the handshake follows from what arrives."""
        self._out += (commands.MAGIC_V2, commands.identify(self._wishes.encode()))
        self.state = SessionState.IDENTIFYING

    def receive(self, data: bytes) -> tuple[Messages, list[Event]]:
        """Everything in `data`: the messages, and what else happened.

        Raises ProtocolError for bytes that are not NSQ's, UpgradeRefused and AuthError when the handshake
        cannot end as was asked for, ConnectFailed when TLS fails.
        """
        self._messages, self._events = Messages([], [], []), []
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

    # ── intents ──

    def subscribe(self, topic: str, channel: str, tag: Any) -> None:
        self._unanswered.append(tag)
        self._out.append(commands.sub(topic, channel))

    def ready(self, count: int) -> None:
        self._out.append(commands.rdy(count))

    def finish(self, ids: Sequence[bytes]) -> None:
        if ids:
            self._out.append(commands.fin(ids))

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        if ids:
            self._out.append(commands.req(ids, delay_ms))

    def touch(self, ids: Sequence[bytes]) -> None:
        if ids:
            self._out.append(commands.touch(ids))

    def stop_receiving(self, tag: Any) -> None:
        """Ask for no more messages; those in flight can still be finished, requeued, touched."""
        self._unanswered.append(tag)
        self._out.append(commands.CLS)

    def publish(self, encoded: bytes, count: int, tag: Any) -> None:
        """Send `count` encoded PUBs, MPUBs or DPUBs; each is answered by an Answered or Refused with `tag`."""
        self._unanswered.extend(itertools.repeat(tag, count))
        self._out.append(encoded)

    def nop(self) -> None:
        """A sign of life: the broker hears it as it hears the answer to a heartbeat."""
        self._out.append(commands.NOP)

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
        while self.state not in _AFTER_HANDSHAKE:
            frame = self._reader.read_one(data)
            if frame is None:
                return
            if frame.kind == MESSAGE:
                raise ProtocolError("the broker sent a message before anything was subscribed")
            data = b""
            self._shake(frame)
        messages, frames = self._reader.read(data)
        if self._messages:
            self._messages.extend(messages)
        else:
            self._messages = messages
        for frame in frames:
            self._answer(frame)

    def _shake(self, frame: Frame) -> None:
        """One step of the handshake."""
        if frame.data == HEARTBEAT and frame.kind != ERROR:
            self._heartbeat()
            return
        if frame.kind == ERROR:
            command = "AUTH" if self.state is SessionState.AUTHENTICATING else "IDENTIFY"
            self.state = SessionState.CLOSED
            raise broker_error(frame.data, command)
        if self.state is SessionState.IDENTIFYING:
            self.agreed = IdentifyResponse.decode(frame.data)
            self._check_upgrades()
            self.state = SessionState.UPGRADING
        elif self.state is SessionState.UPGRADING:
            if frame.data != OK:
                raise ProtocolError(f"{frame.data[:40]!r} came where the upgrade's OK was due")
        elif self.state is SessionState.AUTHENTICATING:
            self._establish()
            return
        self._next_upgrade()

    def _check_upgrades(self) -> None:
        wishes, agreed = self._wishes, self.agreed
        for what, wished, granted, advice in (
            ("TLS", wishes.tls_v1, agreed.tls_v1, "start it with a TLS certificate, or leave --tls away"),
            ("snappy", wishes.snappy, agreed.snappy, "enable it there, or leave --snappy away"),
            ("deflate", wishes.deflate, agreed.deflate, "enable it there, or leave --deflate away"),
        ):
            if wished and not granted:
                raise UpgradeRefused(what, advice)
            if granted and not wished:
                raise ProtocolError(f"the broker turned to {what} without being asked")
            if granted:
                self._upgrades.append(what)

    def _next_upgrade(self) -> None:
        """Put the next filter in place; the broker's OK comes through it, and may be here already."""
        if not self._upgrades:
            if self.agreed.auth_required:
                if self._secret is None:
                    raise AuthError(
                        "E_AUTH_FIRST",
                        "it requires a secret: give --auth-secret-file or QTOOLS_AUTH_SECRET",
                        "IDENTIFY",
                    )
                self.state = SessionState.AUTHENTICATING
                self._out.append(commands.auth(self._secret))
            else:
                self._establish()
            return
        rest = self._reader.take_rest()
        self._reader = FrameReader()
        upgrade = self._upgrades.popleft()
        if upgrade == "TLS":
            assert self._context is not None, "wishes.tls_v1 goes with a context"
            self._tls = Tls(self._context, server_hostname=self._server_hostname)
        else:
            self._packing = Snappy() if upgrade == "snappy" else Deflate(self.agreed.deflate_level)
        latest: Transform | None = self._packing or self._tls  # `rest` has been through those before it
        if rest and latest is not None:
            for piece in latest.decode(rest):
                self._take(piece)

    def _establish(self) -> None:
        self.state = SessionState.READY
        self._events.append(Established(self.agreed))

    def _heartbeat(self) -> None:
        self.heartbeats += 1
        self._out.append(commands.NOP)

    def _answer(self, frame: Frame) -> None:
        if self.state is SessionState.CLOSED:
            return
        if frame.kind == ERROR:
            error = broker_error(frame.data)
            if error.code in NOT_FATAL:
                self._events.append(RefusedRequest(None, error, fatal=False))
                return
            self.state = SessionState.CLOSED
            tag = self._unanswered.popleft() if self._unanswered else None
            self._events.append(RefusedRequest(tag, error, fatal=True))
        elif frame.data == HEARTBEAT:
            self._heartbeat()
        elif frame.data in (OK, CLOSE_WAIT):
            if not self._unanswered:
                raise ProtocolError(f"{frame.data.decode()} came, and no command was waiting for it")
            self._events.append(Answered(self._unanswered.popleft()))
        else:
            raise ProtocolError(f"{frame.data[:40]!r} came, which answers no command")

    def __repr__(self) -> str:
        return f"<Session {self.state.value} unanswered={len(self._unanswered)}>"
