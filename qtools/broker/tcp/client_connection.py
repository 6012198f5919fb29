"""One client's conversation: NSQ's V2 protocol. In: commands. Out: answers, and what the broker is asked to do.

    magic ─▶ INIT ── SUB ──▶ SUBSCRIBED ── CLS ──▶ CLOSING
              │ IDENTIFY, then TLS, then snappy or deflate: each changes what the bytes after it mean

Never here: a task, a future or a lock; the one exception is AUTH, which asks another server.
The words of refusal are nsqd 1.3.0's (nsqd/protocol_v2.go): scripts and clients match them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from qtools.broker.core.channel import Channel, TooMany
from qtools.broker.core.consumer import ChannelConsumer
from qtools.broker.core.store import Commit
from qtools.broker.tcp.auth import AuthFailed, Authorization, describe
from qtools.broker.tcp.client_transport import ClientTransport, log
from qtools.broker.tcp.pending_responses import PendingResponses
from qtools.engines.nsq.protocol.command_reader import (
    Auth,
    Close,
    Command,
    CommandReader,
    Finish,
    Identify,
    Nop,
    Publish,
    Ready,
    RefusedCommand,
    Requeue,
    Sub,
    Touch,
    quoted,
)
from qtools.engines.nsq.protocol.commands import MAGIC_V2
from qtools.engines.nsq.protocol.frames import CLOSE_WAIT, ERROR, OK, RESPONSE, encode_frame
from qtools.engines.nsq.protocol.negotiate import NegotiatedClient, NotGranted, negotiate
from qtools.engines.nsq.protocol.transforms import Deflate, Snappy, Tls

if TYPE_CHECKING:
    from qtools.broker.tcp.tcp_server import TcpServer

# nsqd's numbers for the state of a client, which /stats shows (client_v2.go).
INIT, SUBSCRIBED, CLOSING = 0, 3, 4

OWED = 1000  # publishes of one client that may wait for their commit, before it is not listened to

_OK = encode_frame(RESPONSE, OK)
_CLOSE_WAIT = encode_frame(RESPONSE, CLOSE_WAIT)


class ClientConnection(ClientTransport):
    """One client. A Receiver to its consumer, a Client to the broker."""

    def __init__(self, server: TcpServer) -> None:
        super().__init__(server)
        self.state = INIT
        # Until it sends an IDENTIFY, a client has this broker's own defaults.
        self.client = NegotiatedClient(
            heartbeat_interval=server.grants.heartbeat_interval, msg_timeout=server.grants.msg_timeout
        )
        self.published: dict[str, int] = {}
        self.channel: Channel | None = None
        self.consumer: ChannelConsumer | None = None
        self.authorization: Authorization | None = None
        self._magic = b""
        self._reader = self._make_reader()
        self._todo: deque[Command] = deque()
        self._responses = PendingResponses()
        self._held_back = False  # too much waits to be written: not listened to until what it published is safe
        self._settling: Commit | None = None  # what it asked for has to be safe before it is asked for more
        self._waits_for_memory = False  # not listened to, as what clients have begun to send takes too much memory
        self._last_word = False  # hang up when nothing is owed any more
        self._upgrades: deque[str] = deque()
        self._asking: asyncio.Task[None] | None = None  # the auth server

    def _make_reader(self) -> CommandReader:
        return CommandReader(self.server.limits, None if self.server.authority is None else self._refuse_publish)

    # ── bytes come ──────────────────────────────────────────────────────────────────────────────

    def take(self, data: bytes) -> None:
        if not self.greeted:
            self._magic += data
            if len(self._magic) < len(MAGIC_V2):
                return
            if not self._magic.startswith(MAGIC_V2):
                self.refuse("E_BAD_PROTOCOL", "")
                return
            self.greeted = True
            self.client.client_id = self.client.hostname = self.host
            data, self._magic = self._magic[len(MAGIC_V2) :], b""
        commands = self._reader.feed(data)
        if commands:
            self._todo.extend(commands)
            self._go_on()
        if self._reader.is_within_body:
            self.server.unfinished.note(self, len(data), is_new=bool(commands))

    def _go_on(self) -> None:
        """Do what was asked, until something has to be waited for."""
        todo, table = self._todo, self._TABLE
        while todo and self._asking is None and self._settling is None and not self.over:
            command = todo.popleft()
            kind = type(command)
            if self.server.tls_required and not self.secure and kind not in (Identify, RefusedCommand):
                name = command.command if isinstance(command, Publish) else _NAMES[kind]
                self.refuse("E_INVALID", f"cannot {name} in current state (TLS required)")
                return
            table[kind](self, command)

    # ── answers go ──────────────────────────────────────────────────────────────────────────────

    def answer(self, frame: bytes) -> None:
        """An answer, behind those that are still owed."""
        if self._responses:
            self._responses.put(frame)
        else:
            self.out.append(frame)
            self.flush_soon()

    def refuse(self, code: str, text: str) -> None:
        """The last answer: why this connection ends. Without a code it ends without a word."""
        self.over = True
        self.leave()
        self._reader = self._make_reader()  # nothing of an unfinished command stays in memory
        if code:
            told = f"{code} {text}" if text else code
            log.info("%s: %s", self.address, told)
            self.answer(encode_frame(ERROR, told.encode()))
        if self._responses:
            self._last_word = True
        else:
            self.hang_up()

    def _not_fatal(self, name: str, ident: bytes, why: str) -> None:
        text = f"E_{name}_FAILED {name} {ident.decode('latin-1')} failed {why}"
        self.out.append(encode_frame(ERROR, text.encode("latin-1")))
        self.flush_soon()

    # ── what it shares with the broker ──────────────────────────────────────────────────────────

    def make_room(self, room: int) -> None:
        consumer = self.consumer
        if consumer is not None and self.channel is not None:
            consumer.room = room
            if room > 0:
                self.channel.stir(consumer)

    def leave(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        if self.channel is not None and self.consumer is not None:
            channel, self.channel = self.channel, None
            self.broker.leave(channel, self.consumer)

    def shut(self) -> None:
        """The channel is gone, or the broker ends: hang up, once the answers that wait for a commit are given."""
        if self.over or not self._responses:
            super().shut()
            return
        self.over = True
        self.leave()
        self._last_word = True

    @property
    def waits_for_commit(self) -> bool:
        """Whether it has to be told of a commit that is not done."""
        return bool(self._responses)

    def may_listen(self) -> bool:
        is_free = not self._held_back and self._settling is None and not self._waits_for_memory
        return len(self._responses) < OWED and is_free

    # ── memory of a command that is not whole (unfinished_commands.py) ──────────────────────────

    @property
    def unfinished_bytes(self) -> int:
        """Bytes in memory of the command that is not whole; 0 when there is none."""
        return 0 if self.over else self._reader.unfinished_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes until that command is whole, at most."""
        return self._reader.missing_bytes

    def set_waiting_for_memory(self, waits: bool) -> None:
        """Listen to the client no more, or again."""
        if waits != self._waits_for_memory:
            self._waits_for_memory = waits
            if waits and not self.over:
                self.stop_listening()
            elif self._asking is None:
                self.listen_again()

    def end_unfinished(self) -> None:
        """End the connection, as its command takes too long to become whole. The client may try again."""
        self.refuse("E_PUB_FAILED", "PUB failed: too slow for a broker that has no more memory for unfinished commands")

    # ── who it is ───────────────────────────────────────────────────────────────────────────────

    def _identify(self, command: Identify) -> None:
        if self.state != INIT:
            self.refuse("E_INVALID", "cannot IDENTIFY in current state")
            return
        if self._responses:
            # What is owed goes before what this agrees on: not encrypted, not packed.
            self._todo.appendleft(command)
            self._settling = self._responses.last_commit
            self.stop_listening()
            return
        try:
            client = negotiate(command.body, self.server.grants)
        except NotGranted as error:
            self.refuse(error.code, error.text)
            return
        agreed = client.agreed
        wanted = (("tls", agreed.tls_v1), ("snappy", agreed.snappy), ("deflate", agreed.deflate))
        upgrades = [name for name, granted in wanted if granted]
        if upgrades and (self.tls is not None or self.packing is not None):
            self.refuse("E_IDENTIFY_FAILED", "IDENTIFY failed: the connection has been upgraded already")
            return
        self.client = client
        self.beat_every(client.heartbeat_interval / 1000)
        self.answer(encode_frame(RESPONSE, agreed.encode()) if client.negotiates else _OK)
        self._upgrades.extend(upgrades)
        if upgrades:
            self._upgrade()
        else:
            self._todo.extend(self._reader.feed(b""))  # it stops behind an IDENTIFY, for the sake of the others

    def _upgrade(self) -> None:
        """On to the next filter, if one is left."""
        if not self._upgrades:
            return
        rest = self._reader.take_rest()
        self._reader = self._make_reader()
        which = self._upgrades.popleft()
        if which == "tls":
            assert self.server.tls is not None
            self.put_in(tls=Tls(self.server.tls, server_side=True), rest=rest)
            return
        self.put_in(packing=Snappy() if which == "snappy" else Deflate(self.client.agreed.deflate_level), rest=rest)
        self.answer(_OK)

    def secured(self) -> None:
        self.answer(_OK)
        self._upgrade()

    def _auth(self, command: Auth) -> None:
        if self.state != INIT:
            self.refuse("E_INVALID", "cannot AUTH in current state")
        elif self.authorization is not None:
            self.refuse("E_INVALID", "AUTH already set")
        elif self.server.authority is None:
            self.refuse("E_AUTH_DISABLED", "AUTH disabled")
        else:
            self._ask(command.secret, None)

    def _ask(self, secret: bytes, then: Command | None) -> None:
        """Ask the auth server. What the client says meanwhile waits; `then` is done next."""
        self.stop_listening()
        self._asking = asyncio.ensure_future(self._ask_and_go_on(secret, then))

    async def _ask_and_go_on(self, secret: bytes, then: Command | None) -> None:
        assert self.server.authority is not None
        try:
            authorization = await self.server.authority.ask(secret, self.host, self.tls)
        except AuthFailed as error:
            log.warning("%s: AUTH failed: %s", self.address, error)  # the client need not know what is behind us
            self._asking = None
            self.refuse("E_AUTH_FAILED", "AUTH failed")
            return
        except Exception as error:
            self._asking = None
            self.fault(error)
            return
        self._asking = None
        if not authorization.rules:
            self.refuse("E_UNAUTHORIZED", "AUTH no authorizations found")
            return
        self.authorization = authorization
        if then is None:
            self.answer(encode_frame(RESPONSE, describe(authorization)))
        else:
            self._todo.appendleft(then)
        self._todo.extend(self._reader.feed(b""))  # the reader stops behind an AUTH
        self.listen_again()
        self.attempt(self._go_on)

    def _allowed(self, name: str, command: Command, topic: str, channel: str) -> bool:
        """Whether the auth server's word covers it. False when it was refused, or comes again once that is known."""
        if self.authorization is None:
            self.refuse("E_AUTH_FIRST", f"AUTH required before {name}")
            return False
        if self.authorization.expires <= self.broker.now():
            self._ask(self.authorization.secret, command)
            return False
        if not self.authorization.allows(topic, channel):
            names = f"{quoted(topic.encode())} {quoted(channel.encode())}"
            self.refuse("E_UNAUTHORIZED", f"AUTH failed for {name} on {names}")
            return False
        return True

    def _refuse_publish(self, name: str, topic: str) -> RefusedCommand | None:
        """Why a publish whose body has not been read is refused, so that no body is kept for a client without rights.

        None where it is allowed, and where that is decided when its turn comes: behind an AUTH, or an expired one.
        """
        if self._todo or self._asking is not None:
            return None
        authorization = self.authorization
        if authorization is None:
            return RefusedCommand("E_AUTH_FIRST", f"AUTH required before {name}")
        if authorization.expires <= self.broker.now() or authorization.allows(topic, ""):
            return None
        return RefusedCommand("E_UNAUTHORIZED", f'AUTH failed for {name} on {quoted(topic.encode())} ""')

    # ── publishing ──────────────────────────────────────────────────────────────────────────────

    def _publish(self, command: Publish) -> None:
        name, topic = command.command, command.topic
        if self.server.authority is not None and not self._allowed(name, command, topic, ""):
            return
        commit = self.broker.publish(topic, command.bodies, command.delay_ms)
        self.published[topic] = self.published.get(topic, 0) + len(command.bodies)
        frames = _OK if command.answers == 1 else _OK * command.answers
        if commit is None:
            self.answer(frames)
            return
        self._responses.put(frames, commit, name)
        commit.waiters.append(self._settle)
        if self.broker.store.is_crowded:
            self._held_back = True
        if not self.may_listen():
            self.stop_listening()

    def _settle(self) -> None:
        """Give the answers that waited, in their order."""
        due, failure = self._responses.take_due()
        if due:
            self.out += due
            self.flush_soon()
        if failure is not None:
            name, error = failure
            self.refuse(f"E_{name}_FAILED", f"{name} failed {error}")
            return
        self._held_back = self._held_back and bool(self._responses)
        if self._last_word and not self._responses:
            self.hang_up()
            return
        if self._settling is not None and self._settling.done:
            self._settling = None
            self.attempt(self._go_on)
        self.listen_again()

    # ── subscribing ─────────────────────────────────────────────────────────────────────────────

    def _sub(self, command: Sub) -> None:
        if self.state != INIT:
            self.refuse("E_INVALID", "cannot SUB in current state")
            return
        if self.interval <= 0:
            self.refuse("E_INVALID", "cannot SUB with heartbeats disabled")
            return
        if self.server.authority is not None and not self._allowed("SUB", command, command.topic, command.channel):
            return
        topic = self.broker.topics.get(command.topic)
        is_new = topic is None or command.channel not in topic.channels
        channel = self.broker.channel(command.topic, command.channel)
        consumer = ChannelConsumer(
            self,
            msg_timeout=self.client.msg_timeout / 1000,
            max_msg_timeout=self.broker.options.max_msg_timeout,
            sample_rate=self.client.sample_rate,
        )
        try:
            channel.add(consumer)
        except TooMany as error:
            self.refuse("E_SUB_FAILED", f"SUB failed {error}")
            return
        self.channel, self.consumer, self.state = channel, consumer, SUBSCRIBED
        commit = self.broker.store.pending if is_new and not channel.ephemeral else None
        if commit is None:
            self.answer(_OK)  # and with the flush that it causes comes room for messages
            return
        # A channel that was confirmed is there after a crash, so that nothing published meanwhile passes it by.
        # Where it cannot be kept just now it is served all the same.
        self._responses.put(_OK, commit)
        self._settling = commit
        commit.waiters.append(self._settle)

    def _subscribed(self, name: str) -> tuple[Channel, ChannelConsumer] | None:
        """The channel and the place on it; refuses when there is none."""
        if self.channel is None or self.consumer is None:
            self.refuse("E_INVALID", f"cannot {name} in current state")
            return None
        return self.channel, self.consumer

    def _ready(self, command: Ready) -> None:
        if self.state == CLOSING:
            return
        place = self._subscribed("RDY")
        if place is None:
            return
        channel, consumer = place
        most = self.broker.options.max_rdy_count
        if command.count > most:
            self.refuse("E_INVALID", f"RDY count {command.count} out of range 0-{most}")
            return
        consumer.ready = command.count
        channel.stir(consumer)

    def _finish(self, command: Finish) -> None:
        place = self._subscribed("FIN")
        if place is not None:
            channel, consumer = place
            for ident, why in channel.finish_lines(consumer, command):
                self._not_fatal("FIN", ident, why)

    def _requeue(self, command: Requeue) -> None:
        place = self._subscribed("REQ")
        if place is not None:
            channel, consumer = place
            why = channel.requeue(consumer, command.ident, command.delay_ms / 1000, self.broker.now())
            if why:
                self._not_fatal("REQ", command.ident, why)

    def _touch(self, command: Touch) -> None:
        place = self._subscribed("TOUCH")
        if place is not None:
            channel, consumer = place
            why = channel.touch(consumer, command.ident, self.broker.now())
            if why:
                self._not_fatal("TOUCH", command.ident, why)

    def _close(self, command: Close) -> None:
        if self.state != SUBSCRIBED or self.consumer is None:
            self.refuse("E_INVALID", "cannot CLS in current state")
            return
        self.state = CLOSING
        self.consumer.closing = True
        self.consumer.ready = 0
        self.answer(_CLOSE_WAIT)

    def _nop(self, command: Nop) -> None:
        pass

    def _refused(self, command: RefusedCommand) -> None:
        self.refuse(command.code, command.text)

    _TABLE: ClassVar[dict[type, Callable[[ClientConnection, Any], None]]] = {
        Publish: _publish,
        Finish: _finish,
        Nop: _nop,
        Ready: _ready,
        Requeue: _requeue,
        Touch: _touch,
        Identify: _identify,
        Auth: _auth,
        Sub: _sub,
        Close: _close,
        RefusedCommand: _refused,
    }

    def __repr__(self) -> str:
        where = f"{self.channel.topic}/{self.channel.name}" if self.channel is not None else f"state {self.state}"
        return f"<Connection {self.address} {where} {self.consumer or ''}>"


_NAMES: dict[type, str] = {
    Finish: "FIN",
    Nop: "NOP",
    Ready: "RDY",
    Requeue: "REQ",
    Touch: "TOUCH",
    Auth: "AUTH",
    Sub: "SUB",
    Close: "CLS",
}
