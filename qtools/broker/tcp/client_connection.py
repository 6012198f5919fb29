"""The commands of one NSQ client (protocol V2). In: commands. Out: responses, and calls to the broker.

    magic ─▶ commands, each checked against the state of the client (client_states.py)
             IDENTIFY may add transforms to all bytes after its response (client_upgrades.py)

Never here: a task, a future or a lock, except for AUTH, which asks another server.
The texts of errors are nsqd 1.3.0's (nsqd/protocol_v2.go), because scripts and clients match them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from qtools.broker.core.channel import Channel
from qtools.broker.core.consumer import ChannelConsumer
from qtools.broker.core.store import Commit
from qtools.broker.tcp import subscriber_commands
from qtools.broker.tcp.auth import Authorization, describe
from qtools.broker.tcp.client_authorization import ClientAuthorization
from qtools.broker.tcp.client_states import IGNORED, INIT, TABLE, TLS_REQUIRED, ClientState
from qtools.broker.tcp.client_states import refusal as refusal_in_state
from qtools.broker.tcp.client_transport import ClientTransport, log
from qtools.broker.tcp.client_upgrades import ClientUpgrades
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
from qtools.engines.nsq.protocol.frames import ERROR, OK, RESPONSE, encode_frame
from qtools.engines.nsq.protocol.negotiate import NegotiatedClient, NotGranted

if TYPE_CHECKING:
    from qtools.broker.tcp.contract import ClientServer

MOST_PENDING = 1000  # responses that one client may wait for, before the broker stops reading from it

_OK = encode_frame(RESPONSE, OK)


class ClientConnection:
    """One client: a TransportClient, and the Receiver of its consumer. transport: its socket."""

    def __init__(self, server: ClientServer) -> None:
        self.server = server
        self.broker = server.broker
        self.transport = ClientTransport(server.broker, self)
        self.deliver = self.transport.deliver
        self._enter(TLS_REQUIRED if server.tls_required else INIT)
        # Until it sends an IDENTIFY, a client has the defaults of this broker.
        self.client = NegotiatedClient(
            heartbeat_interval=server.grants.heartbeat_interval, msg_timeout=server.grants.msg_timeout
        )
        self.published: dict[str, int] = {}
        self.channel: Channel | None = None
        self.consumer: ChannelConsumer | None = None
        self._authorization = (
            None if server.authority is None else ClientAuthorization(self, self.transport, server.authority)
        )
        self._magic = b""
        self._reader = self._make_reader()
        self._commands: deque[Command] = deque()
        self._responses = PendingResponses()
        self.waits_for_store = False  # too much waits to be written: not read until its own messages are on disk
        self._awaited: Commit | None = None  # the commit that must be done before the next command is executed
        self.waits_for_memory = False  # not read, because unfinished commands of all clients take too much memory
        self._ends_after_responses = False
        self._upgrades = ClientUpgrades(self.transport, server)

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
        if not self.transport.greeted:
            self._magic += data
            if len(self._magic) < len(MAGIC_V2):
                return
            if not self._magic.startswith(MAGIC_V2):
                self.refuse("E_BAD_PROTOCOL", "")
                return
            self.transport.greeted = True
            self.client.client_id = self.client.hostname = self.transport.host
            data, self._magic = self._magic[len(MAGIC_V2) :], b""
        commands = self._reader.feed(data)
        if commands:
            self._commands.extend(commands)
            self._execute()
        if self._reader.is_within_body:
            self.server.unfinished.note(self, len(data), is_new=bool(commands))

    def _execute(self) -> None:
        """Execute the commands, until one has to wait for something."""
        commands, waits, transport = self._commands, self._authorization is not None, self.transport
        while commands and self._awaited is None and not transport.over and not (waits and self._is_authorizing):
            command = commands.popleft()
            handler = self._handlers.get(type(command))
            if handler is None:
                self.refuse("E_INVALID", refusal_in_state(self.state, command))
                return
            handler(self, command)

    def _enter(self, state: ClientState) -> None:
        self.state = state
        self._handlers = self._HANDLERS[state]

    def follow(self, command: type) -> None:
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
            self.transport.out.append(frame)
            self.transport.flush_soon()

    def refuse(self, code: str, text: str) -> None:
        """Send an error and end the connection. Without a `code`, end it without an error."""
        self.transport.over = True
        self.unsubscribe()
        self._reader = self._make_reader()  # frees the memory of an unfinished command
        if code:
            error = f"{code} {text}" if text else code
            log.info("%s: %s", self.transport.address, error)
            self.answer(encode_frame(ERROR, error.encode()))
        if self._responses:
            self._ends_after_responses = True
        else:
            self.transport.hang_up()

    def report_failure(self, name: str, ident: bytes, why: str) -> None:
        """Send an error that does not end the connection."""
        text = f"E_{name}_FAILED {name} {ident.decode('latin-1')} failed {why}"
        self.transport.out.append(encode_frame(ERROR, text.encode("latin-1")))
        self.transport.flush_soon()

    # ── called by the broker and the transport ──────────────────────────────────────────────────────────

    def connected(self) -> None:
        self.server.connected(self)

    def disconnected(self) -> None:
        self.server.disconnected(self)

    def make_room(self, room: int) -> None:
        consumer = self.consumer
        if consumer is not None and self.channel is not None:
            consumer.room = room
            if room > 0:
                self.channel.schedule(consumer)

    def unsubscribe(self) -> None:
        if self._authorization is not None:
            self._authorization.cancel()
        if self.channel is not None and self.consumer is not None:
            channel, self.channel = self.channel, None
            self.broker.unsubscribe(channel, self.consumer)

    def close_after_responses(self) -> None:
        """End the connection, because the channel was deleted or the broker ends, once all responses are sent."""
        if self.transport.over:
            return
        if not self._responses:
            self.transport.hang_up()
            return
        self.transport.over = True
        self.unsubscribe()
        self._ends_after_responses = True

    @property
    def waits_for_commit(self) -> bool:
        """Whether a response waits for a commit."""
        return bool(self._responses)

    def may_read(self) -> bool:
        is_free = not self.waits_for_store and self._awaited is None and not self.waits_for_memory
        return len(self._responses) < MOST_PENDING and is_free

    # ── for unfinished_commands.py ──────────────────────────

    @property
    def unfinished_bytes(self) -> int:
        """Bytes in memory of a command that has not arrived whole; 0 when there is none."""
        return 0 if self.transport.over else self._reader.unfinished_bytes

    @property
    def missing_bytes(self) -> int:
        """Bytes until that command is whole, at most."""
        return self._reader.missing_bytes

    def set_waiting_for_memory(self, waits: bool) -> None:
        """Stop reading from the client, or read on."""
        if waits != self.waits_for_memory:
            self.waits_for_memory = waits
            if waits and not self.transport.over:
                self.transport.pause_reading()
            elif not self._is_authorizing:
                self.transport.resume_reading()

    def end_unfinished(self) -> None:
        """End the connection, because its command takes too long to arrive. The client may try again."""
        self.refuse("E_PUB_FAILED", "PUB failed: too slow for a broker that has no more memory for unfinished commands")

    # ── identification ───────────────────────────────────────────────────────────────────────────────

    def _identify(self, command: Identify) -> None:
        if self._responses:
            # Pending responses are sent before the transforms that this command adds.
            self._commands.appendleft(command)
            self._awaited = self._responses.last_commit
            self.transport.pause_reading()
            return
        try:
            client = self._upgrades.negotiate(command.body)
        except NotGranted as error:
            self.refuse(error.code, error.text)
            return
        self.client = client
        self.transport.set_heartbeat(client.heartbeat_interval / 1000)
        self.answer(encode_frame(RESPONSE, client.agreed.encode()) if client.negotiates else _OK)
        if self._upgrades:
            self._upgrade()
        else:
            # the reader stops behind an IDENTIFY, as it may add a transform
            self._commands.extend(self._reader.feed(b""))

    def _upgrade(self) -> None:
        """Add the next transform, if one is left."""
        if self._upgrades:
            rest = self._reader.take_rest()
            self._reader = self._make_reader()
            if self._upgrades.add_next(rest):
                self.answer(_OK)

    def secured(self) -> None:
        if self.state is TLS_REQUIRED:
            self._enter(INIT)
        self.answer(_OK)
        self._upgrade()

    def _auth(self, command: Auth) -> None:
        if self._authorization is None:
            self.refuse("E_AUTH_DISABLED", "AUTH disabled")
        else:
            self._authorization.authenticate(command.secret)

    def authorized(self, then: Command | None) -> None:
        """Continue after the auth server has answered: with `then`, or with the answer to AUTH."""
        assert self.authorization is not None
        if then is None:
            self.answer(encode_frame(RESPONSE, describe(self.authorization)))
        else:
            self._commands.appendleft(then)
        self._commands.extend(self._reader.feed(b""))  # the reader stops behind an AUTH
        self.transport.resume_reading()
        self.transport.attempt(self._execute)

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
            self.waits_for_store = True
        if not self.may_read():
            self.transport.pause_reading()

    def _settle(self) -> None:
        """Send the responses whose commits are done, in order."""
        due, failure = self._responses.take_due()
        if due:
            self.transport.out += due
            self.transport.flush_soon()
        if failure is not None:
            name, error = failure
            self.refuse(f"E_{name}_FAILED", f"{name} failed {error}")
            return
        self.waits_for_store = self.waits_for_store and bool(self._responses)
        if self._ends_after_responses and not self._responses:
            self.transport.hang_up()
            return
        if self._awaited is not None and self._awaited.done:
            self._awaited = None
            self.transport.attempt(self._execute)
        self.transport.resume_reading()

    # ── for subscriber_commands.py ──────────────────────────

    def is_authorized(self, name: str, command: Command, topic: str, channel: str) -> bool:
        """Whether the client may send `command`. If not, it was refused, or is authorized again first."""
        return self._authorization is None or self._authorization.allows(name, command, topic, channel)

    def answer_after(self, commit: Commit, frame: bytes) -> None:
        """Send a response, and execute the next command, once `commit` is done, even if it fails."""
        self._responses.put(frame, commit)
        self._awaited = commit
        commit.waiters.append(self._settle)

    def _ignore(self, command: Command) -> None:
        pass

    def _refused(self, command: RefusedCommand) -> None:
        self.refuse(command.code, command.text)

    _HANDLER_OF: ClassVar[dict[type, Callable[[ClientConnection, Any], None]]] = {
        Publish: _publish,
        Finish: subscriber_commands.finish,
        Nop: _ignore,
        Ready: subscriber_commands.ready,
        Requeue: subscriber_commands.requeue,
        Touch: subscriber_commands.touch,
        Identify: _identify,
        Auth: _auth,
        Sub: subscriber_commands.sub,
        Close: subscriber_commands.close,
    }
    # For each state, the commands that are not refused. RefusedCommand is an error that the reader has found.
    _HANDLERS: ClassVar[dict[ClientState, dict[type, Callable[[ClientConnection, Any], None]]]] = {}
    for _state, _row in TABLE.items():
        _HANDLERS[_state] = {RefusedCommand: _refused}
        for _command, _next in _row.items():
            _HANDLERS[_state][_command] = _ignore if _next is IGNORED else _HANDLER_OF[_command]

    def __repr__(self) -> str:
        where = f"{self.channel.topic}/{self.channel.name}" if self.channel is not None else self.state.value
        return f"<ClientConnection {self.transport.address} {where} {self.consumer or ''}>"
