"""Which messages of a publish a cluster has refused. In: delivery reports. Out: refused messages, each with its error.

A broker refuses a whole batch because of one message: without a key in a compacted topic, or with a time that the topic
does not accept. Brokers since 2.4 say which ones they are (KIP-467), and librdkafka passes that on if they are two or
more; of a batch with one invalid message, and with older brokers, the reports of all messages are equal. So a report
that a message is invalid says for certain only that its batch has an invalid message, and a batch may have messages of
several publishes. The messages that may be valid are published again, without others, in smaller and smaller parts,
until those that are refused alone are left. The messages of a part keep their order; messages that were published after
them, and are confirmed already, stay before them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from qtools.attributes import Attributes, Headers
from qtools.engines.kafka.client_errors import INVALID_DIFFERENT_RECORD, OF_BATCH, error_of_topic, fault_of_text
from qtools.errors import NetworkError
from qtools.flow.contract import Refused

Groups = Sequence[tuple[str, Sequence[bytes]]]  # topic, bodies
MOST_NAMES = 1000  # of headers that are remembered
MOST_RUNS = 16  # of messages with equal reports, that are published each by itself
Place = tuple[int, int]  # a group of a publish, and a place in it
Parts = Sequence[Sequence[Place]]  # each is to be published by itself; they are in order, and so are the places of each


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
    """A report that a message was not delivered to `partition`. error: KafkaError. place: None if it is known by its
    `body` only."""

    group: int
    error: Any
    place: int | None
    body: bytes | None
    partition: int


class PendingPublish:
    """A publish that runs. done: set when all its messages have a delivery report. left: its messages without one.
    failed: those that were not delivered, in the order of their reports: those of a batch follow one another, in the
    order in which they were queued."""

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
                self.failed.append(FailedReport(group, error, place, message.value(), message.partition()))
            if not self.left and self.is_queued and not self.done.done():
                self.done.set_result(None)

        return report


def collect_refused(
    failed: Sequence[FailedReport], groups: Groups, refused: Refused, where: str, last_error: str
) -> Parts:
    """Add the messages that were not delivered to `refused`; NetworkError if no broker confirmed one in time. Returns
    those of them that may have been refused because of another message.

    A report of a message without attributes has its bytes and not its place: of messages that are equal in all, the
    first ones are taken. last_error: the reason of a NetworkError, if one is known.
    """
    batches: dict[tuple[str, int], list[tuple[Place, int]]] = {}  # topic and partition → places and codes, as reported
    places: dict[int, dict[bytes, list[int]]] = {}  # group → body → its places that are not refused, the last first
    for number, error, place, body, partition in failed:
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
            batches.setdefault((topic, partition), []).append(((number, place), error.code()))
    return _parts(sorted(suspect for reports in batches.values() for suspect in _suspects(reports)))


def _suspects(reports: Sequence[tuple[Place, int]]) -> Iterator[tuple[Place, bool]]:
    """The messages of one partition that may be valid, each with whether it is valid for certain.

    One that stands alone between two that are valid is invalid for certain: had its batch no other invalid message, all
    messages of the batch would be reported like it.
    """
    is_valid = [code == INVALID_DIFFERENT_RECORD for _, code in reports]
    last = len(reports) - 1
    for index, (place, _) in enumerate(reports):
        if is_valid[index] or not (0 < index < last and is_valid[index - 1] and is_valid[index + 1]):
            yield place, is_valid[index]


def _parts(suspects: Sequence[tuple[Place, bool]]) -> Parts:
    """Split messages in the order of the publish, so that those which are valid for certain are apart if possible."""
    parts: list[Sequence[Place]] = []
    for is_valid, run in groupby(suspects, key=lambda suspect: suspect[1]):
        some = [place for place, _ in run]
        parts += [some] if is_valid else _halves(some)
        if len(parts) > MOST_RUNS:
            return _halves([place for place, _ in suspects])
    return parts


def _halves(places: Sequence[Place]) -> list[Sequence[Place]]:
    half = (len(places) + 1) // 2
    return [some for some in (places[:half], places[half:]) if some]


async def publish_in_parts(
    groups: Groups,
    columns: Sequence[Attributes],
    suspects: Parts,
    refused: Refused,
    attempt: Callable[[Groups, Sequence[Attributes], Refused], Awaitable[Parts]],
) -> None:
    """Publish `suspects` again; take those that are delivered now out of `refused`.

    columns: the attributes of each group. attempt: publishes groups, while nothing else is published; it adds what is
    not delivered to its third argument, and returns those messages that another one may have caused.
    """
    parts = list(reversed(suspects))
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
        for group, (number, some) in enumerate(zip(numbers, places, strict=True)):
            for nth, place in enumerate(some):
                if (group, nth) in again:
                    refused[number, place] = again[group, nth]
                else:
                    del refused[number, place]
        if len(part) == 1:
            continue  # no other message was in its batch
        left: list[Sequence[Place]] = [
            [(numbers[group], places[group][nth]) for group, nth in some] for some in suspected
        ]
        if len(left) == 1 and len(left[0]) == len(part):
            left = _halves(part)
        parts += reversed(left)
