"""Finds the consumer of a channel, or creates it. In: a subscription, options. Out: the stream and the consumer.

An existing consumer is taken as it is, if it can be read: it has to be a pull consumer for this topic alone, whose
messages are acknowledged one by one.
"""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime
from typing import Any, NamedTuple

from qtools.engines.contract import SourceOptions
from qtools.engines.jetstream.api import ApiRefused, ConsumerState, JetStreamApi, check_name
from qtools.engines.jetstream.settings import JetStreamSettings
from qtools.engines.requirements import channel_exists, channel_goes_on
from qtools.errors import TopicMissing, UsageError
from qtools.names import Subscription, is_ephemeral

log = logging.getLogger("qtools.nats")

INACTIVE = 60.0  # s without a reader after which the server deletes a temporary channel
MOST_UNFINISHED = 100_000  # messages of a channel that are in flight at once, with all its readers (max_ack_pending)
NO_ROOM = 10121  # max_ack_pending is above a limit of the server or the account


class Found(NamedTuple):
    """state: None while the consumer does not exist."""

    subscription: Subscription
    stream: str
    retention: str
    state: ConsumerState | None


async def find(api: JetStreamApi, subscription: Subscription, options: SourceOptions, where: str) -> Found:
    """Look a channel up; UsageError, TopicMissing, and what the API raises."""
    topic, channel = subscription
    check_name("topic", topic)
    is_temporary = is_ephemeral(channel)
    if not is_temporary:
        check_name("channel", channel)
    stream = await api.stream_of(topic)
    info = await api.stream_info(stream) if stream is not None else None
    if stream is None or info is None:
        raise TopicMissing(f"{topic}: no stream on {where} stores this subject: create one")
    retention = str(info["config"].get("retention", "limits"))
    state = None if is_temporary else await api.consumer(stream, channel)
    if state is not None:
        _check_usable(subscription, stream, state, info["config"].get("subjects") or [])
        if options.since is not None:
            if not options.goes_on:
                raise channel_exists(subscription)
            log.warning("%s", channel_goes_on(subscription))
    elif retention == "workqueue" and subscription in options.guarded and (count := info["state"]["messages"]):
        advice = options.advice(topic, count) if options.advice is not None else "name a channel"
        raise UsageError(f"{topic}: its stream {stream} deletes what is finished, and has {count:,} messages: {advice}")
    return Found(subscription, stream, retention, state)


def _check_usable(subscription: Subscription, stream: str, state: ConsumerState, subjects: list[str]) -> None:
    config = state.config
    what = f"{subscription}: the consumer {state.name} of the stream {stream}"
    if config.get("deliver_subject"):
        raise UsageError(f"{what} is a push consumer, and only pull consumers can be read: choose another channel")
    if config.get("ack_policy") != "explicit":
        raise UsageError(f"{what} does not acknowledge each message (ack_policy): choose another channel")
    filters = config.get("filter_subjects") or ([config["filter_subject"]] if config.get("filter_subject") else [])
    if (filters or subjects) != [subscription.topic]:
        read = ", ".join(filters or subjects)
        raise UsageError(f"{what} reads {read}: choose another channel for {subscription.topic}")


async def make(
    api: JetStreamApi, found: Found, options: SourceOptions, settings: JetStreamSettings, begin_at: int = 0
) -> ConsumerState:
    """Create the consumer of a channel. begin_at: the sequence of its first message; 0: as `options` say, or with the
    oldest message of a durable channel, and with the next one of a temporary channel."""
    topic, channel = found.subscription
    config: dict[str, Any] = {
        "ack_policy": "explicit", "filter_subject": topic, "ack_wait": round(settings.ack_wait * 1e9),
        "max_ack_pending": max(MOST_UNFINISHED, 2 * options.max_in_flight), "max_waiting": 512, "max_deliver": -1,
    }  # fmt: skip
    if is_ephemeral(channel):
        config |= {"deliver_policy": "new", "inactive_threshold": round(INACTIVE * 1e9)}
        config["name"] = f"qtools-{secrets.token_hex(8)}"
    else:
        config |= {"deliver_policy": "all", "durable_name": channel}
    if begin_at:
        config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": begin_at}
    elif options.since is not None:
        begin = datetime.fromtimestamp(options.since, UTC)
        config |= {"deliver_policy": "by_start_time", "opt_start_time": begin.isoformat().replace("+00:00", "Z")}
    if found.retention == "workqueue":
        config["deliver_policy"] = "all"  # the server accepts no other there
    config.pop("name", None)  # servers before 2.9 take none, and choose one themselves
    try:
        return await api.create_consumer(found.stream, config)
    except ApiRefused as error:
        if error.err_code != NO_ROOM:
            raise
        del config["max_ack_pending"]
        return await api.create_consumer(found.stream, config)
