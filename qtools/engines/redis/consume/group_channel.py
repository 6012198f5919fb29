"""A subscription through a consumer group. In: entries, acknowledgements. Out: XACK, XCLAIM and the like.

    XREADGROUP ─▶ pending for our consumer ─▶ XACK
                       │  in flight for long: XCLAIM by ourselves, so that no other member takes it (touch)
                       │  requeued: XCLAIM when it is due, which delivers it again and counts the delivery
                       └  at the end: XCLAIM for the consumer RELEASED as idle for long, so that any member takes it

An acknowledgement that was not answered, as its connection was lost, is sent again over the next one: a group knows
which messages are pending, whatever connection they were read through.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from qtools.engines.redelivery import MOST_ATTEMPTS
from qtools.engines.redis.connection import PendingCommands, RedisConnection
from qtools.engines.redis.consume.channel import StreamChannel
from qtools.engines.redis.protocol import commands
from qtools.engines.redis.protocol.replies import Entry, ErrorReply, Reply, as_map, entries_of
from qtools.engines.redis.protocol.stream_ids import FIRST, StreamId
from qtools.engines.redis.server_errors import PASSING, refusal_of
from qtools.errors import NetworkError
from qtools.names import Subscription

log = logging.getLogger("qtools.redis")

PREFIX = "qtools-"  # of the names of our consumers
RELEASED = "qtools-released"  # the consumer of what readers have given back; it is never deleted
RELEASED_IDLE_MS = 10 * 365 * 86_400_000  # longer than any msg_timeout, so that it is taken at once
LEFT_BEHIND_MS = 3_600_000  # after which a consumer that holds nothing is deleted
PAGE = 1000  # entries of one question about what is pending, and of one XCLAIM of those that wait
HISTORY = 100  # entries of one read of what is pending for us, with their bodies
MOST_SCANNED = 100  # entries that one XAUTOCLAIM takes at most; it looks at ten times as many


class GroupChannel(StreamChannel):
    """consumer: our name in the group."""

    def __init__(
        self, subscription: Subscription, address: str, on_changed: Callable[[], None], consumer: str, msg_timeout: int
    ) -> None:
        super().__init__(subscription, address, on_changed)
        self.consumer = consumer
        self.msg_timeout = msg_timeout  # ms
        self.is_created = False  # the group exists, as far as is known
        self._acks: deque[tuple[PendingCommands, Sequence[bytes]]] = deque()  # sent and not answered, in order
        self._unsent: list[Sequence[bytes]] = []  # acknowledgements without a connection
        self._cursor: commands.Word = FIRST  # where the search for idle entries goes on
        self._touched_at = 0.0

    # ── acknowledgements ──

    def finish(self, ids: Sequence[bytes]) -> None:
        if ids:
            self._acknowledge(ids)
        super().finish(ids)

    def touch(self, ids: Sequence[bytes]) -> None:
        if ids and self.commands is not None and self.commands.is_open:
            self.commands.send(commands.claim(self.topic, self.channel, self.consumer, ids, ("JUSTID",)))

    def _acknowledge(self, ids: Sequence[bytes]) -> None:
        if self.commands is None or not self.commands.is_open:
            self._unsent.append(ids)
            return
        request = self.commands.request(commands.acknowledge(self.topic, self.channel, ids))
        self._acks.append((request, ids))
        request.done.add_done_callback(self._acknowledged)

    def _acknowledged(self, done: asyncio.Future[list[Reply]]) -> None:
        if done.cancelled() or done.exception() is not None:
            return  # `down` keeps them
        _, ids = self._acks.popleft()
        reply = done.result()[0]
        if isinstance(reply, int):
            self.acknowledgements_failed += len(ids) - reply
        elif isinstance(reply, ErrorReply) and reply.code in PASSING:
            self._unsent.append(ids)  # `tend` sends them again
        else:
            self.acknowledgements_failed += len(ids)
            log.info("%s: %d acknowledgements failed: %s", self.subscription, len(ids), reply)

    def send_unsent(self) -> None:
        """Send the acknowledgements that have waited for a connection, or were refused for now."""
        unsent, self._unsent = self._unsent, []
        for ids in unsent:
            self._acknowledge(ids)

    def known_ids(self) -> set[bytes]:
        """Also those that are finished, and whose acknowledgement was not answered."""
        known = super().known_ids()
        for _, ids in self._acks:
            known.update(ids)
        for ids in self._unsent:
            known.update(ids)
        return known

    def down(self) -> None:
        """The connection is lost."""
        self._unsent = [*(ids for _, ids in self._acks), *self._unsent]
        self._acks.clear()
        self.commands = self.reader = None
        self.is_asking = False

    # ── the group ──

    async def create(self, connection: RedisConnection, after: commands.Word) -> None:
        """Create the group, if there is none, so that it begins after the id `after`. RedisRefused, NetworkError."""
        (reply,) = await connection.request(commands.create_group(self.topic, self.channel, after)).done
        if isinstance(reply, ErrorReply) and reply.code != "BUSYGROUP":
            raise refusal_of(reply, connection.address, self.topic)
        self.is_created = True

    async def state(self, connection: RedisConnection) -> dict[bytes, Reply] | None:
        """What XINFO GROUPS says of the group; None if there is none. RedisRefused, NetworkError."""
        reply = await connection.ask("XINFO", "GROUPS", self.topic)
        if isinstance(reply, ErrorReply):
            if "no such key" in reply.text:
                return None
            raise refusal_of(reply, connection.address, self.topic)
        return next((found for found in map(as_map, reply) if found.get(b"name") == self.channel.encode()), None)

    # ── what others have left, and what is ours ──

    async def claim_idle(self, most: int) -> list[Entry]:
        """At most `most` entries that their readers have not touched for msg_timeout, with their attempts noted."""
        connection = self.commands
        if connection is None or most < 1:
            return []
        request = commands.claim_idle(
            self.topic, self.channel, self.consumer, self.msg_timeout, self._cursor, min(most, MOST_SCANNED)
        )
        (reply,) = await connection.request(request).done
        if isinstance(reply, ErrorReply):
            if reply.code != "NOGROUP":
                raise refusal_of(reply, connection.address, self.topic)
            return []
        self._cursor = reply[0]
        self._note_gone(len(reply[2]) if len(reply) > 2 else sum(entry is None for entry in reply[1]))
        return await self._unknown(connection, [entry for entry in reply[1] if entry is not None])

    @property
    def has_more_idle(self) -> bool:
        """Whether `claim_idle` has not looked at all that is pending."""
        return self._cursor not in (FIRST, b"0-0")

    async def claim_own(self) -> list[Entry]:
        """Entries that are pending for our consumer and are not known here: their reply was lost with a connection."""
        connection, found, after = self.commands, [], FIRST
        while connection is not None:
            request = commands.read_group(self.channel, self.consumer, HISTORY, self.topic, after.decode())
            (reply,) = await connection.request(request).done
            if isinstance(reply, ErrorReply):
                if reply.code != "NOGROUP":
                    raise refusal_of(reply, connection.address, self.topic)
                break
            entries = [entry for _, some in entries_of(reply) for entry in some]
            if not entries:
                break
            after = entries[-1][0]
            self._note_gone(sum(entry[1] is None for entry in entries))
            found += await self._unknown(connection, [entry for entry in entries if entry[1] is not None])
        return found

    async def claim_waiting(self, ids: Sequence[bytes]) -> list[Entry]:
        """The entries of `ids`, which are delivered again, and counted so."""
        connection = self.commands
        if connection is None:
            return []
        (reply,) = await connection.request(commands.claim(self.topic, self.channel, self.consumer, ids)).done
        if isinstance(reply, ErrorReply):
            raise refusal_of(reply, connection.address, self.topic)
        entries = [entry for entry in reply if entry is not None and entry[1] is not None]
        self._note_gone(len(ids) - len(entries))
        self.note_again([entry[0] for entry in entries])
        return entries

    async def _unknown(self, connection: RedisConnection, entries: list[Entry]) -> list[Entry]:
        """Those of `entries` that are not in flight here; their attempts are noted."""
        if not entries:
            return []
        known = self.known_ids()
        entries = [entry for entry in entries if entry[0] not in known]
        if entries:
            first, last = min(map(_id, entries)), max(map(_id, entries))
            request = commands.pending_of(
                self.topic, self.channel, bytes(first), bytes(last), len(entries) + len(known), self.consumer
            )
            (reply,) = await connection.request(request).done
            if isinstance(reply, list):
                ours = {entry[0] for entry in entries}
                for ident, _, _, count in reply:
                    if ident in ours and count > 1:
                        self.attempts[ident] = min(MOST_ATTEMPTS, count)
        return entries

    def _note_gone(self, count: int) -> None:
        if count:
            log.warning(
                "%s: messages that were deleted from the stream (trimmed, or by XDEL) before they were finished: %d",
                self.subscription, count,
            )  # fmt: skip

    def touch_old(self, now: float) -> None:
        """Touch what is in flight, or waits, for long. now: of the event loop."""
        age = self.msg_timeout / 3000
        for ids in self.ledger.take_due(now, age):
            self.touch(ids)
        if self.waits and now - self._touched_at >= age:
            self._touched_at = now
            waiting = self.waiting_ids()
            for start in range(0, len(waiting), PAGE):
                self.touch(waiting[start : start + PAGE])

    # ── the end ──

    def release(self, ids: Sequence[bytes]) -> None:
        """Give back `ids`, which are not in flight any more: the next member that looks takes them."""
        if ids and self.commands is not None and self.commands.is_open:
            self.commands.send(self._release_command(ids))

    def _release_command(self, ids: Sequence[bytes]) -> bytes:
        options = ("IDLE", RELEASED_IDLE_MS, "JUSTID")
        return commands.claim(self.topic, self.channel, RELEASED, ids, options)

    async def leave(self) -> None:
        """Give back all that is pending for our consumer, and delete it. NetworkError."""
        connection = self.commands
        if connection is None or not self.is_created:
            return
        try:
            while True:
                request = commands.pending_of(self.topic, self.channel, "-", "+", PAGE, self.consumer)
                (reply,) = await connection.request(request).done
                ids = [found[0] for found in reply] if isinstance(reply, list) else []
                if not ids:
                    break
                (reply,) = await connection.request(self._release_command(ids)).done
                if isinstance(reply, ErrorReply):
                    log.info("%s: what is unfinished was not given back: %s", self.subscription, reply)
                    return
                if len(reply) < len(ids):  # the others were deleted from the stream, and are no longer pending
                    await connection.request(
                        commands.acknowledge(self.topic, self.channel, ids_without(ids, reply))
                    ).done
            request = commands.delete_consumers(
                self.topic, self.channel, self.consumer, PREFIX, RELEASED, LEFT_BEHIND_MS
            )
            (reply,) = await connection.request(request).done
            if isinstance(reply, ErrorReply):  # this user may run no scripts; nothing else uses our consumer
                await connection.ask("XGROUP", "DELCONSUMER", self.topic, self.channel, self.consumer)
        except NetworkError as error:
            log.info("%s: %s", self.subscription, error)


def ids_without(ids: Sequence[bytes], others: Sequence[bytes]) -> list[bytes]:
    left = set(others)
    return [ident for ident in ids if ident not in left]


def _id(entry: Entry) -> StreamId:
    return StreamId.of(entry[0])
