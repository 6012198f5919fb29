"""One connection to any of several servers, kept; requests and subscriptions over it. In: settings. Out: answers.

    start ─▶ the first server that answers ─▶ subscriptions ─▶ on_up
    a lost connection ─▶ on_down ─▶ the next server ─▶ the same subscriptions again ─▶ on_up

Servers of the same cluster, which a server names in its INFO, are tried after those that the user named.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtools.engines.connections.keep_connected import ConnectionKeeper
from qtools.engines.connections.tls import make_tls_context
from qtools.engines.jetstream.connection import NatsConnection, Subscriber, connect
from qtools.engines.jetstream.protocol import commands
from qtools.engines.jetstream.protocol.headers import status_of
from qtools.engines.jetstream.protocol.server_info import ServerInfo, ServerRefusal
from qtools.engines.jetstream.protocol.server_reader import NatsMessages
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.errors import BrokerError, ConnectFailed, NetworkError, PeerError, QtoolsError, StartError

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("qtools.nats")

REQUEST_TIMEOUT = 10.0  # s
NO_RESPONDERS = 503


class NoResponders(BrokerError):
    """No server reads the subject of a request: JetStream is off, or the stream or the consumer does not exist."""


class NatsClient:
    """A connection that is kept from `start` to `close`.

    on_up: called with each new connection, after all subscriptions were made on it. on_down: called when it is lost.
    on_refusal: called with what a server refuses without closing the connection (permissions).
    """

    def __init__(self, settings: JetStreamSettings) -> None:
        self.settings = settings
        self.on_up: Callable[[NatsConnection], None] | None = None
        self.on_down: Callable[[], None] | None = None
        self.on_refusal: Callable[[ServerRefusal], None] | None = None
        self.inbox = b"_INBOX.%b." % secrets.token_hex(11).encode()
        self.info = ServerInfo("", "", 1024 * 1024)
        self._tls: ssl.SSLContext | None = make_tls_context(settings.tls_files) if settings.tls else None
        self._hosts = list(settings.hosts)
        self._next = 0  # the place in `_hosts` where the next attempt begins
        self._keeper: ConnectionKeeper[NatsConnection] | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._subscriptions: dict[bytes, tuple[bytes, Subscriber]] = {}
        self._last_sid = 0
        self._answers: tuple[bytes, bytes, Subscriber, Callable[[list[int]], None]] | None = None
        self._requests: dict[bytes, tuple[bytes, asyncio.Future[bytes]]] = {}  # by the subject of the answer
        self._last_request = 0

    # ── the connection ──

    async def start(self) -> None:
        """Connect; StartError when no server can be used."""
        if self._keeper is not None:
            return
        self.subscribe(self.inbox + b"r.*", self._answered)
        keeper = self._keeper = ConnectionKeeper(
            str(self.settings), self._connect, self._is_up, self._is_down, lambda _: self._changed.set()
        )
        self._task = asyncio.create_task(keeper.run())
        self._task.add_done_callback(self._task_ended)
        while self.connection is None and keeper.first_error is None and not self._task.done():
            self._changed.clear()
            await self._changed.wait()
        if self.connection is None and keeper.first_error is not None:
            await self.close()
            raise StartError(str(keeper.first_error)) from keeper.first_error
        keeper.is_started = True
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Close the connection after the server has processed all that was sent."""
        keeper, task = self._keeper, self._task
        if keeper is None or task is None:
            return
        keeper.is_closing = True
        if (connection := self.connection) is not None:
            await connection.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._fail_requests()

    @property
    def connection(self) -> NatsConnection | None:
        """The connection that is up, or None."""
        return self._connection

    _connection: NatsConnection | None = None

    @property
    def reconnects(self) -> int:
        return self._keeper.reconnects if self._keeper is not None else 0

    def send(self, data: bytes) -> bool:
        """Send encoded commands; False, and nothing is sent, while no connection is up."""
        if self._connection is None or not self._connection.is_open:
            return False
        self._connection.send(data)
        return True

    async def _connect(self) -> NatsConnection:
        """Try each server once, beginning with the one behind that of the last attempt."""
        errors: list[QtoolsError] = []
        count = len(self._hosts)
        for step in range(count):
            place = (self._next + step) % count
            try:
                connection = await connect(self._hosts[place], self.settings, self._tls)
            except (NetworkError, PeerError) as error:
                errors.append(error)
                continue
            self._next = place
            return connection
        if len(errors) == 1:
            raise errors[0]
        # One that was refused says more than those that do not answer.
        refused = next((error for error in errors if isinstance(error, PeerError)), None)
        if refused is not None:
            raise refused
        is_permanent = all(isinstance(error, ConnectFailed) and error.permanent for error in errors)
        raise ConnectFailed(str(self.settings), "; ".join(map(str, errors)), permanent=is_permanent)

    async def _is_up(self, connection: NatsConnection) -> None:
        self._connection = connection
        self.info = connection.info
        connection.on_refusal = self._refused
        for host in connection.info.connect_urls:
            if host not in self._hosts and len(self._hosts) < 100:
                self._hosts.append(host)
        for sid, (subject, subscriber) in self._subscriptions.items():
            connection.subscribe(subject, sid, subscriber)
        if self._answers is not None:
            inbox, sid, subscriber, connection.on_confirmed = self._answers
            connection.subscribe_to_answers(inbox, sid, subscriber)
        self._changed.set()
        if self.on_up is not None:
            self.on_up(connection)

    def _is_down(self, connection: NatsConnection) -> None:
        self._connection = None
        self._next = (self._next + 1) % len(self._hosts)
        self._fail_requests()
        if self.on_down is not None:
            self.on_down()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Pass the error of a task, which is a defect, to `start` or to the event loop's exception handler."""
        self._changed.set()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            context = {"message": "keeping a connection failed", "exception": error, "task": task}
            asyncio.get_running_loop().call_exception_handler(context)

    # ── subscriptions ──

    def subscribe(self, subject: bytes, subscriber: Subscriber) -> bytes:
        """Subscribe on this and on each later connection. Returns the number of the subscription."""
        self._last_sid += 1
        sid = b"%d" % self._last_sid
        self._subscriptions[sid] = subject, subscriber
        if self._connection is not None:
            self._connection.subscribe(subject, sid, subscriber)
        return sid

    def subscribe_to_answers(
        self, inbox: bytes, subscriber: Subscriber, on_confirmed: Callable[[list[int]], None]
    ) -> None:
        """Before `start`: subscribe to the answers of streams to publishes, on each connection, as
        NatsConnection.subscribe_to_answers says."""
        self._last_sid += 1
        self._answers = inbox, b"%d" % self._last_sid, subscriber, on_confirmed

    def unsubscribe(self, sid: bytes) -> None:
        """End a subscription; messages that are on their way still reach its subscriber."""
        if self._subscriptions.pop(sid, None) is not None and self._connection is not None:
            self._connection.unsubscribe(sid)

    # ── requests ──

    async def request(self, subject: str, body: bytes = b"", time_limit: float = REQUEST_TIMEOUT) -> bytes:
        """Publish a request, and return the body of its answer. NoResponders, NetworkError, BrokerError."""
        connection = self._connection
        if connection is None or not connection.is_open:
            raise NetworkError(str(self.settings), "not connected")
        self._last_request += 1
        reply = b"%br.%d" % (self.inbox, self._last_request)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._requests[reply] = subject.encode(), answer
        connection.send(commands.publish(subject.encode(), body, reply))
        try:
            async with asyncio.timeout(time_limit):
                return await answer
        except TimeoutError:
            what = subject.partition(".API.")[2] or subject
            raise NetworkError(connection.address, f"no answer to {what} within {time_limit:.4g} s") from None
        finally:
            self._requests.pop(reply, None)

    async def request_json(self, subject: str, value: Any = None) -> dict[str, Any]:
        """The same with JSON, from and to the server."""
        body = b"" if value is None else json.dumps(value).encode()
        try:
            found = json.loads(await self.request(subject, body))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BrokerError("ANSWER", f"what answers {subject} is no JetStream")
        return found

    def _answered(self, messages: NatsMessages) -> None:
        for place, subject in enumerate(messages.subjects):
            _, answer = self._requests.get(subject, (b"", None))
            if answer is None or answer.done():
                continue
            block = messages.headers[place] if messages.headers is not None else b""
            if block and status_of(block).code == NO_RESPONDERS:
                answer.set_exception(NoResponders("503", "no server reads the subject of the request"))
            else:
                answer.set_result(messages.bodies[place])

    def _refused(self, refusal: ServerRefusal) -> None:
        """This user may not publish or subscribe to a subject: requests to it fail, and `on_refusal` is called with
        others."""
        is_known = False
        for subject, answer in self._requests.values():
            if subject.decode() == refusal.subject and not answer.done():
                answer.set_exception(refusal.error)
                is_known = True
        if not is_known and self.on_refusal is not None:
            self.on_refusal(refusal)
        elif not is_known:
            log.warning("%s", refusal.error)

    def _fail_requests(self) -> None:
        for _, answer in self._requests.values():
            if not answer.done():
                answer.set_exception(NetworkError(str(self.settings), "the connection was lost"))
                answer.exception()

    def __repr__(self) -> str:
        return f"<NatsClient {self.settings} {'up' if self._connection is not None else 'down'}>"
