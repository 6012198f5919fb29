"""Which messages that were published on a channel are not confirmed yet. In: segments, delivery tags. Out: segments
that are confirmed. No I/O, no clock.

    add(segment of 3)   add(segment of 2)      confirm up to 3        confirm 5        confirm 4
    tags 1 2 3          4 5                    ─▶ the first one                        ─▶ the second one

Tags count up from 1 on each channel. RabbitMQ confirms several at once where it can, and single ones in any order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qtools.engines.amqp.publish.request import PublishCall


class Segment:
    """Messages of one group of a publish that are sent together. places: in the group, ascending."""

    __slots__ = ("_early", "_upto", "call", "first", "group", "places", "sent_at", "size")

    def __init__(self, call: PublishCall, group: int, places: Sequence[int], size: int = 0) -> None:
        self.call = call
        self.group = group
        self.places = places
        self.size = size  # bytes of the frames
        self.sent_at = 0.0  # loop time
        self.first = 0  # delivery tag
        self._upto = 0  # all tags below are confirmed
        self._early: set[int] = set()  # confirmed ones above

    def begin(self, first: int) -> None:
        self.first = self._upto = first
        self._early.clear()

    def __len__(self) -> int:
        return len(self.places)

    @property
    def last(self) -> int:
        return self.first + len(self.places) - 1

    @property
    def is_confirmed(self) -> bool:
        return self._upto > self.last

    def confirm(self, tag: int) -> None:
        if tag != self._upto:
            if tag > self._upto:
                self._early.add(tag)
            return
        self._upto += 1
        while self._upto in self._early:
            self._early.discard(self._upto)
            self._upto += 1

    def confirm_below(self, tag: int) -> None:
        """All tags below `tag` are confirmed."""
        self._upto = max(self._upto, min(tag, self.last + 1))
        self._early = {each for each in self._early if each >= self._upto}
        self.confirm_next()

    def confirm_next(self) -> None:
        while self._upto in self._early:
            self._early.discard(self._upto)
            self._upto += 1

    def unconfirmed(self) -> list[int]:
        """The places whose messages are not confirmed."""
        start = self._upto - self.first
        return [
            place for offset, place in enumerate(self.places[start:], start=self._upto) if offset not in self._early
        ]


class ConfirmWindow:
    """The segments that were sent on one channel. count: messages that are not in a confirmed segment."""

    __slots__ = ("_next_tag", "count", "segments")

    def __init__(self) -> None:
        self.segments: deque[Segment] = deque()
        self.count = 0
        self._next_tag = 1

    def add(self, segment: Segment) -> None:
        segment.begin(self._next_tag)
        self._next_tag += len(segment)
        self.count += len(segment)
        self.segments.append(segment)

    def confirm(self, tags: Sequence[int]) -> list[Segment]:
        """The segments that are confirmed as a whole with `tags`; negative ones mean all up to that tag."""
        done: list[Segment] = []
        segments = self.segments
        for tag in tags:
            if tag < 0:
                while segments and segments[0].last <= -tag:
                    self._complete(done)
                if segments:
                    segments[0].confirm_below(1 - tag)
            elif segments and tag >= segments[0].first:
                self._find(tag).confirm(tag)
            while segments and segments[0].is_confirmed:
                self._complete(done)
        return done

    def _complete(self, done: list[Segment]) -> None:
        segment = self.segments.popleft()
        self.count -= len(segment)
        done.append(segment)

    def _find(self, tag: int) -> Segment:
        for segment in self.segments:
            if tag <= segment.last:
                return segment
        return self.segments[-1]  # a tag that was never sent; it is ignored there

    def places_of(self, tag: int, multiple: bool) -> list[tuple[Segment, int]]:
        """The messages that a basic.nack names: those with `tag`, or all up to it that are not confirmed."""
        found = []
        for segment in self.segments:
            if segment.first > tag:
                break
            if multiple:
                open_ = segment.unconfirmed()
                last = tag - segment.first
                index = {place: offset for offset, place in enumerate(segment.places)}
                found += [(segment, place) for place in open_ if index[place] <= last]
            elif tag <= segment.last:
                found.append((segment, segment.places[tag - segment.first]))
        return found

    def take_all(self) -> list[Segment]:
        """Those that are not confirmed, as segments of the messages that are to be sent again; none is left here."""
        found = [
            Segment(segment.call, segment.group, places)
            for segment in self.segments
            if (places := segment.unconfirmed())
        ]
        self.segments.clear()
        self.count = 0
        return found
