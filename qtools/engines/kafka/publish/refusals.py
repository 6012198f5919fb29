"""Which messages of a publish a cluster has refused. In: delivery reports. Out: refused messages, each with its error.

A broker refuses a whole batch because of one message: without a key in a compacted topic, or with a time that the topic
does not accept. Brokers since 2.4 say which one it is (KIP-467); with older ones each may be. The messages that may be
valid are published again, in smaller and smaller parts, until those that are refused alone are left. The messages of a
part keep their order; messages that were published after them, and are confirmed already, stay before them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from qtools.attributes import Attributes, Headers
from qtools.engines.kafka.client_errors import INVALID_DIFFERENT_RECORD, OF_BATCH, error_of_topic, fault_of_text
from qtools.errors import NetworkError
from qtools.flow.contract import Refused

Groups = Sequence[tuple[str, Sequence[bytes]]]  # topic, bodies
MOST_NAMES = 1000  # of headers that are remembered
Place = tuple[int, int]  # a group of a publish, and a place in it


class HeaderNames:
    """Names of headers, and whether they can be published. confluent-kafka cuts a name at a NUL byte, and ends the
    process where a name has no UTF-8."""

    def __init__(self) -> None:
        self._valid: set[str] = set()

    def fault(self, headers: Headers) -> str:
        """Why a message with `headers` cannot be published; "" if it can."""
        for name, _ in headers:
            if name in self._valid:
                continue
            if fault := fault_of_text(name):
                return f"the name of its header {name!r} {fault}"
            if len(self._valid) < MOST_NAMES:
                self._valid.add(name)
        return ""


class FailedReport(NamedTuple):
    """A report that a message was not delivered. error: KafkaError. place: None if it is known by its `body` only."""

    group: int
    error: Any
    place: int | None
    body: bytes | None


class PendingPublish:
    """A publish that runs. done: set when all its messages have a delivery report. left: its messages without one.
    failed: those that were not delivered."""

    __slots__ = ("done", "failed", "is_queued", "left")

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed: list[FailedReport] = []
        self.is_queued = False
        self.left = 0

    def reporter(self, group: int, place: int | None = None) -> Callable[[Any, Any], None]:
        """What librdkafka calls for each message of `group`, or for the one at `place`."""

        def report(error: Any, message: Any) -> None:
            self.left -= 1
            if error is not None:
                self.failed.append(FailedReport(group, error, place, message.value()))
            if not self.left and self.is_queued and not self.done.done():
                self.done.set_result(None)

        return report


def collect_refused(
    failed: Sequence[FailedReport], groups: Groups, refused: Refused, where: str, last_error: str
) -> list[Place]:
    """Add the messages that were not delivered to `refused`; NetworkError if no broker confirmed one in time. Returns
    those of them that may have been refused because of another message, in order.

    A report of a message without attributes has its bytes and not its place: of messages that are equal in all, the
    first ones are taken. last_error: the reason of a NetworkError, if one is known.
    """
    suspects: dict[int, list[Place]] = {}  # by the code of their error
    places: dict[int, dict[bytes, list[int]]] = {}  # group → body → its places that are not refused, the last first
    for number, error, place, body in failed:
        topic, bodies = groups[number]
        made = error_of_topic(topic, error, where)
        if isinstance(made, NetworkError):
            raise NetworkError(where, last_error or made.reason)
        if place is None:
            if number not in places:
                places[number] = {}
                for index in reversed(range(len(bodies))):
                    if (number, index) not in refused:
                        places[number].setdefault(bodies[index], []).append(index)
            place = places[number][body or b""].pop()
        refused[number, place] = made
        if error.code() in OF_BATCH:
            suspects.setdefault(error.code(), []).append((number, place))
    if INVALID_DIFFERENT_RECORD in suspects:
        return sorted(suspects[INVALID_DIFFERENT_RECORD])
    found = sorted(place for some in suspects.values() for place in some)
    return found if len(found) > 1 else []


async def publish_in_parts(
    groups: Groups,
    columns: Sequence[Attributes],
    suspects: Sequence[Place],
    refused: Refused,
    attempt: Callable[[Groups, Sequence[Attributes], Refused], Awaitable[list[Place]]],
) -> None:
    """Publish `suspects` again; take those that are delivered now out of `refused`.

    columns: the attributes of each group. attempt: publishes groups; it adds what is not delivered to its third
    argument, and returns the places of those that another message may have caused.
    """
    parts = [suspects]
    while parts:
        part = parts.pop()
        numbers = sorted({number for number, _ in part})
        places = [[place for each, place in part if each == number] for number in numbers]
        again: Refused = {}
        suspected = await attempt(
            [
                (groups[number][0], [groups[number][1][place] for place in some])
                for number, some in zip(numbers, places, strict=True)
            ],
            [columns[number].pick(some) for number, some in zip(numbers, places, strict=True)],
            again,
        )
        left: list[Place] = []
        for group, (number, some) in enumerate(zip(numbers, places, strict=True)):
            for nth, place in enumerate(some):
                if (group, nth) in suspected and len(part) > 1:
                    left.append((number, place))
                elif (group, nth) in again:
                    refused[number, place] = again[group, nth]
                else:
                    del refused[number, place]
        half = (len(left) + 1) // 2
        parts += [rest for rest in (left[half:], left[:half]) if rest]
