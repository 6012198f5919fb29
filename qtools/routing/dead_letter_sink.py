"""Publishes messages that failed as dead letters. In: messages, and why each failed. Out: which of them are safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from qtools.attributes import Attributes
from qtools.errors import BrokerError, DeadLettersRefused, NameInvalid, Postponed, QtoolsError, UsageError
from qtools.flow.contract import GroupPublisher
from qtools.flow.topic_sink import publish_groups
from qtools.message import Batch
from qtools.names import MAX_NAME_LENGTH, Subscription
from qtools.routing.dead_letter import dead_letter_topic, encode_dead_letter

POSTPONE_MS = 60_000  # for each attempt: the delay of a message that is too large even for a dead letter
MOST_POSTPONED_MS = 3_600_000  # nsqd's --max-req-timeout


class SentLetters(NamedTuple):
    """sent: topic of dead letters → place of each message that is safe there, and why it failed. postponed: the
    messages that no dead letter can hold, each as Postponed."""

    sent: dict[str, dict[int, QtoolsError]]
    postponed: dict[int, QtoolsError]


class DeadLetterSink:
    """Publishes dead letters with `publisher`. topics: topic that is read → topic of its dead letters. sources: what is
    read; a dead letter names its channel. instead: as in DeadLettersRefused."""

    def __init__(
        self,
        publisher: GroupPublisher,
        topics: Mapping[str, str],
        sources: Sequence[Subscription],
        *,
        instead: str = "",
    ) -> None:
        self._publisher = publisher
        self._instead = instead
        self._topics = topics
        self._channels = channels_of(sources)

    async def send(self, batch: Batch, failed: Mapping[int, QtoolsError]) -> SentLetters:
        """Publish the messages of `batch` that `failed`, by place; DeadLettersRefused if the broker takes none."""
        places = sorted(failed)
        some = batch.pick(places)
        attributes = some.attributes() or Attributes()
        keys = attributes.keys or [None] * len(some)
        headers = attributes.headers or [()] * len(some)
        groups: dict[str, tuple[list[bytes], list[int]]] = {}
        for origin, start, stop in some.parts:
            letters, at = groups.setdefault(self._topics[origin.topic], ([], []))
            channel = self._channels[origin.topic]
            for nth, message in enumerate(some.messages[start:stop], start):
                place = places[nth]
                letters.append(
                    encode_dead_letter(
                        message, origin.topic, channel, origin.address, failed[place],
                        key=keys[nth], headers=headers[nth],
                    )
                )  # fmt: skip
                at.append(place)
        try:
            refused = await publish_groups(
                self._publisher,
                [(topic, letters) for topic, (letters, _) in groups.items()],
                [at for _, at in groups.values()],
            )
        except BrokerError as error:
            raise DeadLettersRefused(failed[places[0]], len(places), error, self._instead) from error
        postponed: dict[int, QtoolsError] = {}
        for place, copy in refused.items():
            delay = min(MOST_POSTPONED_MS, POSTPONE_MS * max(1, batch.messages[place].attempts))
            postponed[place] = Postponed(f"{failed[place]}; as a dead letter {copy.error}", delay)
        sent = {
            topic: safe
            for topic, (_, at) in groups.items()
            if (safe := {place: failed[place] for place in at if place not in postponed})
        }
        return SentLetters(sent, postponed)


def channels_of(sources: Iterable[Subscription]) -> dict[str, str]:
    """topic → its channel, or its channels with a comma between, as a message does not say through which it came."""
    channels: dict[str, str] = {}
    for source in sources:
        known = channels.get(source.topic)
        channels[source.topic] = f"{known},{source.channel}" if known else source.channel
    return channels


def dead_letter_topics(
    sources: Sequence[Subscription], chosen: str = "", longest: int = MAX_NAME_LENGTH, *, instead: str = ""
) -> dict[str, str]:
    """topic that is read → topic for its dead letters; UsageError if there can be none.

    chosen: the value of --dead-letter-topic, "" for one beside each source. longest: the most characters of a topic.
    instead: what else the user can do about it, for the error, such as ", or choose --on-error".
    """
    topics: dict[str, str] = {}
    read = {source.topic for source in sources}
    for topic in read:
        try:
            topics[topic] = chosen or dead_letter_topic(topic, longest)
        except NameInvalid as error:
            raise UsageError(f"dead letters of {topic}: {error} (--dead-letter-topic names another)") from error
        if topics[topic] in read:
            raise UsageError(
                f"{topics[topic]} is read, and takes the dead letters of {topic}: they would be read again;"
                f" name another with --dead-letter-topic{instead}"
            )
    return topics
