"""The broker's side of one connection, in memory: what nsqd does with a handshake, in nsqd's order.

    magic ─▶ IDENTIFY ─▶ JSON ─▶ (TLS ─▶ OK) ─▶ (snappy or deflate ─▶ OK) ─▶ AUTH ─▶ JSON ─▶ commands

In: the bytes a session sends. Out: the bytes to give it. Nothing here waits, nothing is a socket.
"""

from __future__ import annotations

import json
import ssl

from qtools.engines.nsq.protocol.client_commands import Auth, Close, Command, Identify, Nop, Publish, Sub
from qtools.engines.nsq.protocol.command_reader import CommandLimits, CommandReader
from qtools.engines.nsq.protocol.commands import MAGIC_V2
from qtools.engines.nsq.protocol.frames import ERROR, RESPONSE, encode_frame, encode_message
from qtools.engines.nsq.protocol.negotiate import NegotiatedClient, ServerLimits, negotiate
from qtools.engines.nsq.protocol.session import ClientSession, Event
from qtools.engines.nsq.protocol.transforms import Deflate, Snappy, Tls, Transform
from qtools.errors import ConnectFailed
from qtools.message import Message


class Peer:
    def __init__(self, grants: ServerLimits, *, tls: ssl.SSLContext | None = None, secret: bytes = b"") -> None:
        self.client: NegotiatedClient | None = None
        self.heard: list[Command] = []  # but for the handshake
        self.refused_tls: ConnectFailed | None = None
        self._grants = grants
        self._context = tls
        self._secret = secret
        self._begin = b""
        self._reader = CommandReader(CommandLimits())
        self._tls: Tls | None = None
        self._packing: Transform | None = None
        self._tls_ok_due = False
        self._out: list[bytes] = []

    # ── what it says ──

    def say(self, kind: int, data: bytes) -> None:
        self._send(encode_frame(kind, data))

    def deliver(self, message: Message) -> None:
        self._send(encode_message(message))

    def _send(self, data: bytes) -> None:
        if self._packing is not None:
            data = self._packing.encode(data)
        if self._tls is not None:
            data = self._tls.encode(data)
        self._out.append(data)

    def take_output(self) -> bytes:
        out = b"".join(self._out) + (self._tls.take_output() if self._tls is not None else b"")
        self._out.clear()
        return out

    # ── what it hears ──

    def receive(self, data: bytes) -> None:
        try:
            pieces = [data] if self._tls is None else list(self._tls.decode(data))
        except ConnectFailed as error:
            self.refused_tls = self.refused_tls or error
            return
        if self._tls_ok_due and self._tls is not None and self._tls.established:
            self._tls_ok_due = False
            self.say(RESPONSE, b"OK")
            self._pack()
        for piece in pieces:
            self._plain(piece)

    def _plain(self, data: bytes) -> None:
        for piece in [data] if self._packing is None else self._packing.decode(data):
            if self._begin != MAGIC_V2:
                self._begin = piece[:4]
                assert self._begin == MAGIC_V2
                piece = piece[4:]
            for command in self._reader.feed(piece):
                self._heard(command)

    def _heard(self, command: Command) -> None:
        match command:
            case Identify(body):
                assert self._reader.take_rest() == b"", "nothing may be sent before the answer to IDENTIFY"
                self.client = negotiate(body, self._grants)
                self.say(RESPONSE, self.client.agreed.encode() if self.client.negotiates else b"OK")
                if self.client.agreed.tls_v1:
                    assert self._context is not None
                    self._tls = Tls(self._context, server_side=True)
                    self._tls_ok_due = True
                else:
                    self._pack()
            case Auth(secret):
                if secret == self._secret:
                    self.say(RESPONSE, json.dumps({"identity": "me", "permission_count": 1}).encode())
                else:
                    self.say(ERROR, b"E_AUTH_FAILED AUTH failed")
            case Sub() | Close() | Publish() | Nop():
                self.heard.append(command)
                for _ in range(command.answers if isinstance(command, Publish) else not isinstance(command, Nop)):
                    self.say(RESPONSE, b"CLOSE_WAIT" if isinstance(command, Close) else b"OK")
            case _:
                self.heard.append(command)

    def _pack(self) -> None:
        """Compression comes last, and its OK is the first that is compressed."""
        assert self.client is not None
        if self.client.agreed.snappy:
            self._packing = Snappy()
        elif self.client.agreed.deflate:
            self._packing = Deflate(self.client.agreed.deflate_level)
        if self._packing is not None:
            self.say(RESPONSE, b"OK")


def converse(session: ClientSession, peer: Peer, chunk: int = 1 << 20) -> tuple[list[Message], list[Event]]:
    """Carry bytes both ways until neither says more; the session gets them in chunks of at most `chunk`."""
    messages: list[Message] = []
    events: list[Event] = []
    while True:
        out = session.take_output()
        if out:
            peer.receive(out)
        back = peer.take_output()
        for start in range(0, len(back), chunk):
            more, happened = session.receive(back[start : start + chunk])
            messages += more
            events += happened
        if not out and not back:
            return messages, events
