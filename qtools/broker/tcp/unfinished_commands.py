"""Memory for commands whose bodies have not arrived whole. In: connections that wait for the rest of a body. Out: which
of them are read on, and which are ended.

    unfinished commands take ≤ CROWDED_FRACTION × limit      every connection is read
    they take more                                           oldest command first, connections whose missing bytes fit
                                                             below FILL_FRACTION × limit are read; the others are not
    a connection that is read in that case and does not      ended with an error after which clients try again, logged,
    complete its command within PATIENCE_SECONDS             and counted

The connection with the oldest command is always read. So a command is completed, or its connection ended, within
PATIENCE_SECONDS, however much memory the other connections hold. A completed command leaves this budget, and the store
limits it (Store.is_crowded).

Never here: work for each message. A connection is noted when a read of its socket ends within a body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qtools.errors import UsageError
from qtools.web.memory_budget import MemoryBudget, default_limit

if TYPE_CHECKING:
    from qtools.broker.options import Options
    from qtools.broker.tcp.client_transport import ClientTransport

CROWDED_FRACTION = 0.5  # of the limit, up to which every connection is read
# Of the limit, which commands may fill when not every connection is read. The rest is for the first bytes of new
# commands, which are read in one turn.
FILL_FRACTION = 0.75
PATIENCE_SECONDS = 10.0  # 5 MiB in that time are 4 Mbit/s
# The limit is at least this many bodies, so that the largest body that the broker accepts fits while others wait.
LEAST_BODIES = 4


def memory_limit(options: Options) -> int:
    """--max-memory in bytes, or its default. UsageError when bodies that the broker accepts do not fit in it."""
    least = LEAST_BODIES * max(options.max_body_size, options.max_msg_size)
    if not options.max_memory:
        return max(default_limit(), least)
    if options.max_memory < least:
        raise UsageError(
            f"--max-memory {options.max_memory} is less than {LEAST_BODIES} bodies of"
            f" {least // LEAST_BODIES} bytes: give {least} or more, or a lower --max-body-size"
        )
    return options.max_memory


class SendingClient(Protocol):
    """A connection that waits for the rest of a command. unfinished_bytes: in memory of that command; 0 when it is
    whole. missing_bytes: until it is whole, at most."""

    @property
    def transport(self) -> ClientTransport: ...
    @property
    def unfinished_bytes(self) -> int: ...
    @property
    def missing_bytes(self) -> int: ...
    def set_waiting_for_memory(self, waits: bool) -> None:
        """Stop reading from the client, or read on."""
        ...

    def end_unfinished(self) -> None:
        """End the connection."""
        ...


class _Unfinished:
    """The command that a connection waits for. read_since: loop time since when only some connections are read and this
    is one of them; None otherwise."""

    __slots__ = ("read_since",)

    def __init__(self) -> None:
        self.read_since: float | None = None


class UnfinishedCommands:
    """The connections that wait for the rest of a body: a MemoryHolder (web/memory_budget.py)."""

    def __init__(self, budget: MemoryBudget) -> None:
        self.budget = budget
        self._waiting: dict[SendingClient, _Unfinished] = {}  # oldest command first
        self._held = 0  # bytes, at the last look
        self._is_crowded = False  # only some connections are read

    def note(self, connection: SendingClient, size: int, *, is_new: bool) -> None:
        """Note that `connection` has sent `size` bytes, and waits for the rest of a body. is_new: of another body than
        before."""
        if is_new:
            self._waiting.pop(connection, None)
        if connection not in self._waiting:
            if not self._waiting:
                self.budget.add(self)
            self._waiting[connection] = _Unfinished()
            if self._is_crowded and len(self._waiting) > 1:
                connection.set_waiting_for_memory(True)  # until the next look
        self.budget.note(size)

    # ── MemoryHolder ──

    def memory(self) -> int:
        """Bytes that all connections hold. Also decides which connections are read."""
        budget = self.budget
        of_others = max(0, budget.used - self._held)
        held = {connection: connection.unfinished_bytes for connection in self._waiting}
        for connection in [each for each, size in held.items() if not size]:
            del self._waiting[connection], held[connection]
            connection.set_waiting_for_memory(False)
        self._held = sum(held.values())
        self._is_crowded = bool(held) and of_others + self._held > budget.limit * CROWDED_FRACTION
        if not held:
            budget.remove(self)
        elif not self._is_crowded:
            for connection, unfinished in self._waiting.items():
                unfinished.read_since = None
                connection.set_waiting_for_memory(False)
        else:
            self._read_some(held, int(budget.limit * FILL_FRACTION) - of_others - self._held)
        return self._held

    def shed(self) -> str | None:
        """End the connection that holds the most."""
        if not self._waiting:
            return None
        connection = max(self._waiting, key=lambda each: each.unfinished_bytes)
        return self._end(connection)

    # ── the connections ──

    def _read_some(self, held: dict[SendingClient, int], room: int) -> None:
        """Read from the connection with the oldest command, and from those whose missing bytes fit into `room`
        bytes."""
        now = next(iter(held)).transport.broker.now()
        is_oldest = True
        for connection in list(held):
            unfinished = self._waiting[connection]
            missing = connection.missing_bytes
            if is_oldest or missing <= room:
                if unfinished.read_since is None:
                    unfinished.read_since = now
                elif now - unfinished.read_since >= PATIENCE_SECONDS:
                    self._held -= held[connection]
                    self.budget.ended(self._end(connection))
                    continue
                is_oldest = False
                room -= missing
                connection.set_waiting_for_memory(False)
            else:
                unfinished.read_since = None
                connection.set_waiting_for_memory(True)

    def _end(self, connection: SendingClient) -> str:
        """End `connection`. Returns what was done, for the log."""
        del self._waiting[connection]
        size = connection.unfinished_bytes
        connection.end_unfinished()
        return f"ended the connection of {connection.transport.address}, which had sent {size:,} bytes of a command"
