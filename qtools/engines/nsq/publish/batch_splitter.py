"""Messages split into publish commands. In: bodies for topics. Out: commands, each within the broker's limits. No I/O.

    [(topic, bodies) …] ─▶ refuse what no broker takes ─▶ MPUBs of at most `batch_count` messages and `batch_bytes`
                                                          with a delay: one DPUB a message (no MPUB can be deferred)

The limits are nsqd's defaults until `learn` is called with the broker's own. `version` counts how often they changed,
so that commands which were made by older limits can be split again before they are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtools.engines.nsq.protocol import commands
from qtools.errors import MessageRefused
from qtools.flow.contract import Refused
from qtools.flow.gather import request_ends

MAX_MSG_SIZE = 1024 * 1024  # bytes: nsqd's --max-msg-size
MAX_BODY_SIZE = 5 * 1024 * 1024  # bytes: nsqd's --max-body-size

Group = tuple[str, Sequence[bytes]]  # a topic and the bodies for it


@dataclass(slots=True)
class PublishCommand:
    """One PUB, MPUB or DPUB: bodies for one topic, which the broker accepts or refuses together.

    group: index of the group that the bodies come from. places: index in that group, for each body.
    delay_ms: how long the broker defers the message; 0 for not at all. A deferred command that is sent has one body.
    """

    topic: str
    bodies: Sequence[bytes]
    group: int
    places: Sequence[int]
    delay_ms: int = 0

    def encode(self) -> bytes:
        """The bytes of the command."""
        if self.delay_ms:
            return commands.dpub(self.topic, self.bodies[0], self.delay_ms)
        if len(self.bodies) == 1:
            return commands.pub(self.topic, self.bodies[0])
        return commands.mpub(self.topic, self.bodies)

    def slice(self, start: int, end: int) -> PublishCommand:
        """The same command for the bodies from `start` to `end`."""
        return PublishCommand(
            self.topic, self.bodies[start:end], self.group, self.places[start:end], self.delay_ms
        )  # fmt: skip


class BatchSplitter:
    """Splits groups into commands. batch_count (messages), batch_bytes (bytes): the most that one MPUB holds.

    version: how often the limits changed.
    """

    def __init__(self, batch_count: int, batch_bytes: int) -> None:
        self.version = 0
        self._batch_count = batch_count
        self._batch_bytes = batch_bytes
        self._max_msg_size = MAX_MSG_SIZE
        self._max_body_size = MAX_BODY_SIZE

    def learn(self, max_msg_size: int, max_body_size: int) -> None:
        """Use a broker's own limits, in bytes, from now on."""
        if (max_msg_size, max_body_size) != (self._max_msg_size, self._max_body_size):
            self._max_msg_size, self._max_body_size = max_msg_size, max_body_size
            self.version += 1

    def split(self, groups: Sequence[Group], delay_ms: int, refused: Refused) -> list[PublishCommand]:
        """`groups` as commands, in their order; a message that no broker takes is added to `refused`."""
        found: list[PublishCommand] = []
        for group, (topic, bodies) in enumerate(groups):
            found += self._split(PublishCommand(topic, bodies, group, range(len(bodies)), delay_ms), refused)
        return found

    def split_again(self, older: Sequence[PublishCommand], refused: Refused) -> list[PublishCommand]:
        """Commands that were made by older limits, split by the present ones."""
        return [piece for command in older for piece in self._split(command, refused)]

    def split_refused(self, command: PublishCommand, refused: Refused) -> list[PublishCommand]:
        """Split `command`, which a broker refused as too large: by the limits, or in halves if it is within them.

        It has at least two bodies.
        """
        pieces = self._split(command, refused)
        if len(pieces) == 1 and len(pieces[0].bodies) == len(command.bodies):
            half = len(command.bodies) // 2
            return [command.slice(0, half), command.slice(half, len(command.bodies))]
        return pieces

    def _split(self, command: PublishCommand, refused: Refused) -> list[PublishCommand]:
        command = self._fitting(command, refused)
        bodies = command.bodies
        if not bodies:
            return []
        if command.delay_ms:
            ends = list(range(1, len(bodies) + 1))
        else:
            ends = request_ends(bodies, self._batch_count, min(self._batch_bytes, self._max_body_size))
            if len(ends) == 1:
                return [command]
        return [command.slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def _fitting(self, command: PublishCommand, refused: Refused) -> PublishCommand:
        """`command` without the messages that no broker takes, which are added to `refused`."""
        bodies, most = command.bodies, self._max_msg_size
        if not bodies or (max(map(len, bodies)) <= most and all(bodies)):
            return command
        places = []
        for place, body in zip(command.places, bodies, strict=True):
            if not body:
                refused[command.group, place] = MessageRefused(
                    "it is empty, and NSQ has no empty messages", is_too_large=False
                )
            elif len(body) > most:
                refused[command.group, place] = MessageRefused(
                    f"it has {len(body)} bytes, the broker takes at most {most} (its --max-msg-size)"
                )
            else:
                places.append(place)
        fitting = [body for body in bodies if 0 < len(body) <= most]
        return PublishCommand(command.topic, fitting, command.group, places, command.delay_ms)
