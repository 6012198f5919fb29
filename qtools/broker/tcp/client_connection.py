"""The commands of one NSQ client (protocol V2). In: commands. Out: responses, and calls to the broker.

    magic ─▶ commands, each checked against the state of the client (client_states.py)
             IDENTIFY may add TLS, and then snappy or deflate, to all bytes after its response

Never here: a task, a future or a lock, except for AUTH, which asks another server.
The texts of errors are nsqd 1.3.0's (nsqd/protocol_v2.go), because scripts and clients match them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from qtools.broker.core.channel import Channel, TooMany
from qtools.broker.core.consumer import ChannelConsumer
from qtools.broker.core.store import Commit
from qtools.broker.tcp.auth import Authorization, describe
from qtools.broker.tcp.client_authorization import ClientAuthorization
from qtools.broker.tcp.client_states import IGNORED, INIT, TABLE, TLS_REQUIRED, ClientState
from qtools.broker.tcp.client_states import refusal as refusal_in_state
from qtools.broker.tcp.client_transport import ClientTransport, log
from qtools.broker.tcp.pending_responses import PendingResponses
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
from qtools.engines.nsq.protocol.command_reader import CommandReader
from qtools.engines.nsq.protocol.commands import MAGIC_V2
from qtools.engines.nsq.protocol.frames import CLOSE_WAIT, ERROR, OK, RESPONSE, encode_frame
from qtools.engines.nsq.protocol.negotiate import NegotiatedClient, NotGranted, negotiate
from qtools.engines.nsq.protocol.transforms import Deflate, Snappy, Tls

if TYPE_CHECKING:
    from qtools.broker.tcp.contract import ConnectionServer

MOST_PENDING = 1000  # responses that one client may wait for, before the broker stops reading from it

_OK = encode_frame(RESPONSE, OK)
_CLOSE_WAIT = encode_frame(RESPONSE, CLOSE_WAIT)


class ClientConnection(ClientTransport):
    """One client: the Receiver of its consumer, and a BrokerClient."""

    server: ConnectionServer

    def __init__(self, server: ConnectionServer) -> None:
        super().__init__(server)
        self._enter(TLS_REQUIRED if server.tls_required else INIT)
        # Until it sends an IDENTIFY, a client has the defaults of this broker.
        self.client = NegotiatedClient(
            heartbeat_interval=server.grants.heartbeat_interval, msg_timeout=server.grants.msg_timeout
        )
        self.published: dict[str, int] = {}
        self.channel: Channel | None = None
        self.consumer: ChannelConsumer | None = None
        self._authorization = None if server.authority is None else ClientAuthorization(self, server.authority)
        self._magic = b""
        self._reader = self._make_reader()
        self._commands: deque[Command] = deque()
        self._responses = PendingResponses()
        self._waits_for_store = False  # too much waits to be written: not read until its own messages are on disk
        self._awaited: Commit | None = None  # the commit that must be done before the next command is executed
        self._waits_for_memory = False  # not read, because unfinished commands of all clients take too much memory
        self._ends_after_responses = False
        self._upgrades: deque[str] = deque()

    def _make_reader(self) -> CommandReader:
        return CommandReader(self.server.limits, None if self._authorization is None else self._refuse_publish)

    def _refuse_publish(self, name: str, topic: str) -> RefusedCommand | None:
        """The refusal of a publish before its body is read. Behind other commands, it is decided later."""
        if self._authorization is None or self._commands:
            return None
        return self._authorization.refuse_publish(name, topic)

    @property
    def authorization(self) -> Authorization | None:
        """What the client is authorized to do; None before AUTH, and without auth servers."""
        return None if self._authorization is None else self._authorization.current

    @property
    def _is_authorizing(self) -> bool:
        return self._authorization is not None and self._authorization.task is not None

    # ── input ──────────────────────────────────────────────────────────────────────────────

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
            self._commands.extend(commands)
            self._execute()
        if self._reader.is_within_body:
            self.server.unfinished.note(self, len(data), is_new=bool(commands))

    def _execute(self) -> None:
        """Execute the commands, until one has to wait for something."""
        commands, waits = self._commands, self._authorization is not None
        while commands and self._awaited is None and not self.over and not (waits and self._is_authorizing):
            command = commands.popleft()
            handler = self._handlers.get(type(command))
            if handler is None:
                self.refuse("E_INVALID", refusal_in_state(self.state, command))
                return
            handler(self, command)

    def _enter(self, state: ClientState) -> None:
        self.state = state
        self._handlers = self._HANDLERS[state]

    def _follow(self, command: type) -> None:
        """Enter the state that the table has after `command`."""
        following = TABLE[self.state][command]
        if isinstance(following, ClientState) and following is not self.state:
            self._enter(following)

    # ── responses ──────────────────────────────────────────────────────────────────────────────

    def answer(self, frame: bytes) -> None:
        """Send a response, after all that are pending."""
        if self._responses:
            self._responses.put(frame)
        else:
            self.out.append(frame)
            self.flush_soon()

    def refuse(self, code: str, text: str) -> None:
        """Send an error and end the connection. Without a `code`, end it without an error."""
        self.over = True
        self.leave()
        self._reader = self._make_reader()  # frees the memory of an unfinished command
        if code:
            error = f"{code} {text}" if text else code
            log.info("%s: %s", self.address, error)
            self.answer(encode_frame(ERROR, error.encode()))
        if self._responses:
            self._ends_after_responses = True
        else:
            self.hang_up()

    def _report_failure(self, name: str, ident: bytes, why: str) -> None:
        """Send an error that does not end the connection."""
        text = f"E_{name}_FAILED {name} {ident.decode('latin-1')} failed {why}"
        self.out.append(encode_frame(ERROR, text.encode("latin-1")))
        self.flush_soon()

    # ── called by the broker and the transport ──────────────────────────────────────────────────────────

    def make_room(self, room: int) -> None:
        consumer = self.consumer
        if consumer is not None and self.channel is not None:
            consumer.room = room
            if room > 0:
                self.channel.stir(consumer)

    def leave(self) -> None:
        if self._authorization is not None:
            self._authorization.cancel()
        if self.channel is not None and self.consumer is not None:
            channel, self.channel = self.channel, None
            self.broker.leave(channel, self.consumer)

    def shut(self) -> None:
        """End the connection, because the channel was deleted or the broker ends, once all responses are sent."""
        if self.over or not self._responses:
            super().shut()
            return
        self.over = True
        self.leave()
        self._ends_after_responses = True

    @property
    def waits_for_commit(self) -> bool:
        """Whether a response waits for a commit."""
        return bool(self._responses)

    def may_read(self) -> bool:
        is_free = not self._waits_for_store and self._awaited is None and not self._waits_for_memory
        return len(self._responses) < MOST_PENDING and is_free

    # ── for unfinished_commands.py ──────────────────────────

    @property
    def unfinished_bytes(self) -> int:
        """Bytes in memory of a command that has not arrived whole; 0 when there is none."""
        return 0 if self.over else self._reader.unfinished_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes until that command is whole, at most."""
        return self._reader.missing_bytes

    def set_waiting_for_memory(self, waits: bool) -> None:
        """Stop reading from the client, or read on."""
        if waits != self._waits_for_memory:
            self._waits_for_memory = waits
            if waits and not self.over:
                self.pause_reading()
            elif not self._is_authorizing:
                self.resume_reading()

    def end_unfinished(self) -> None:
        """End the connection, because its command takes too long to arrive. The client may try again."""
        self.refuse("E_PUB_FAILED", "PUB failed: too slow for a broker that has no more memory for unfinished commands")

    # ── identification ───────────────────────────────────────────────────────────────────────────────

    def _identify(self, command: Identify) -> None:
        if self._responses:
            # Pending responses are sent before the transforms that this command adds.
            self._commands.appendleft(command)
            self._awaited = self._responses.last_commit
            self.pause_reading()
            return
        try:
            client = negotiate(command.body, self.server.grants)
        except NotGranted as error:
            self.refuse(error.code, error.text)
            return
        agreed = client.agreed
        wanted = (("tls", agreed.tls_v1), ("snappy", agreed.snappy), ("deflate", agreed.deflate))
        upgrades = [name for name, granted in wanted if granted]
        if upgrades and (self.tls is not None or self.compression is not None):
            self.refuse("E_IDENTIFY_FAILED", "IDENTIFY failed: the connection has been upgraded already")
            return
        self.client = client
        self.set_heartbeat(client.heartbeat_interval / 1000)
        self.answer(encode_frame(RESPONSE, agreed.encode()) if client.negotiates else _OK)
        self._upgrades.extend(upgrades)
        if upgrades:
            self._upgrade()
        else:
            # the reader stops behind an IDENTIFY, as it may add a transform
            self._commands.extend(self._reader.feed(b""))

    def _upgrade(self) -> None:
        """Add the next transform, if one is left."""
        if not self._upgrades:
            return
        rest = self._reader.take_rest()
        self._reader = self._make_reader()
        which = self._upgrades.popleft()
        if which == "tls":
            assert self.server.tls is not None
            self.add_transform(tls=Tls(self.server.tls, server_side=True), rest=rest)
            return
        compression = Snappy() if which == "snappy" else Deflate(self.client.agreed.deflate_level)
        self.add_transform(compression=compression, rest=rest)
        self.answer(_OK)

    def secured(self) -> None:
        if self.state is TLS_REQUIRED:
            self._enter(INIT)
        self.answer(_OK)
        self._upgrade()

    def _auth(self, command: Auth) -> None:
        if self._authorization is None:
            self.refuse("E_AUTH_DISABLED", "AUTH disabled")
        elif self._authorization.current is not None:
            self.refuse("E_INVALID", "AUTH already set")
        else:
            self._authorization.request(command.secret, None)

    def authorized(self, then: Command | None) -> None:
        """Continue after the auth server has answered: with `then`, or with the answer to AUTH."""
        assert self.authorization is not None
        if then is None:
            self.answer(encode_frame(RESPONSE, describe(self.authorization)))
        else:
            self._commands.appendleft(then)
        self._commands.extend(self._reader.feed(b""))  # the reader stops behind an AUTH
        self.resume_reading()
        self.attempt(self._execute)

    # ── publishing ──────────────────────────────────────────────────────────────────────────────

    def _publish(self, command: Publish) -> None:
        name, topic = command.command, command.topic
        if self._authorization is not None and not self._authorization.allows(name, command, topic, ""):
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
            self._waits_for_store = True
        if not self.may_read():
            self.pause_reading()

    def _settle(self) -> None:
        """Send the responses whose commits are done, in order."""
        due, failure = self._responses.take_due()
        if due:
            self.out += due
            self.flush_soon()
        if failure is not None:
            name, error = failure
            self.refuse(f"E_{name}_FAILED", f"{name} failed {error}")
            return
        self._waits_for_store = self._waits_for_store and bool(self._responses)
        if self._ends_after_responses and not self._responses:
            self.hang_up()
            return
        if self._awaited is not None and self._awaited.done:
            self._awaited = None
            self.attempt(self._execute)
        self.resume_reading()

    # ── subscribing ─────────────────────────────────────────────────────────────────────────────

    def _sub(self, command: Sub) -> None:
        if self.interval <= 0:
            self.refuse("E_INVALID", "cannot SUB with heartbeats disabled")
            return
        authorization = self._authorization
        if authorization is not None and not authorization.allows("SUB", command, command.topic, command.channel):
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
        self.channel, self.consumer = channel, consumer
        self._follow(Sub)
        commit = self.broker.store.pending if is_new and not channel.ephemeral else None
        if commit is None:
            self.answer(_OK)  # the flush after it calls make_room
            return
        # A channel whose SUB was confirmed must survive a crash, so that it misses nothing that is published
        # afterwards. If it cannot be stored now, its messages are delivered all the same.
        self._responses.put(_OK, commit)
        self._awaited = commit
        commit.waiters.append(self._settle)

    def _subscription(self) -> tuple[Channel, ChannelConsumer]:
        """The channel and the consumer of a client in a state in which it has both."""
        assert self.channel is not None
        assert self.consumer is not None
        return self.channel, self.consumer

    def _ready(self, command: Ready) -> None:
        channel, consumer = self._subscription()
        most = self.broker.options.max_rdy_count
        if command.count > most:
            self.refuse("E_INVALID", f"RDY count {command.count} out of range 0-{most}")
            return
        consumer.ready = command.count
        channel.stir(consumer)

    def _finish(self, command: Finish) -> None:
        channel, consumer = self._subscription()
        for ident, why in channel.finish_lines(consumer, command):
            self._report_failure("FIN", ident, why)

    def _requeue(self, command: Requeue) -> None:
        channel, consumer = self._subscription()
        why = channel.requeue(consumer, command.ident, command.delay_ms / 1000, self.broker.now())
        if why:
            self._report_failure("REQ", command.ident, why)

    def _touch(self, command: Touch) -> None:
        channel, consumer = self._subscription()
        why = channel.touch(consumer, command.ident, self.broker.now())
        if why:
            self._report_failure("TOUCH", command.ident, why)

    def _close(self, command: Close) -> None:
        _, consumer = self._subscription()
        self._follow(Close)
        consumer.closing = True
        consumer.ready = 0
        self.answer(_CLOSE_WAIT)

    def _ignore(self, command: Command) -> None:
        pass

    def _refused(self, command: RefusedCommand) -> None:
        self.refuse(command.code, command.text)

    _HANDLER_OF: ClassVar[dict[type, Callable[[ClientConnection, Any], None]]] = {
        Publish: _publish,
        Finish: _finish,
        Nop: _ignore,
        Ready: _ready,
        Requeue: _requeue,
        Touch: _touch,
        Identify: _identify,
        Auth: _auth,
        Sub: _sub,
        Close: _close,
    }
    # For each state, the commands that are not refused. RefusedCommand is an error that the reader has found.
    _HANDLERS: ClassVar[dict[ClientState, dict[type, Callable[[ClientConnection, Any], None]]]] = {}
    for _state, _row in TABLE.items():
        _HANDLERS[_state] = {RefusedCommand: _refused}
        for _command, _next in _row.items():
            _HANDLERS[_state][_command] = _ignore if _next is IGNORED else _HANDLER_OF[_command]

    def __repr__(self) -> str:
        where = f"{self.channel.topic}/{self.channel.name}" if self.channel is not None else self.state.value
        return f"<ClientConnection {self.address} {where} {self.consumer or ''}>"
